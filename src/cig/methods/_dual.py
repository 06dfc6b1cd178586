"""The base class of the methods without a phi: one dual encoder, its preprocessing, captions without a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import normalize

from cig.methods import CLIPS, Source, Weights
from cig.methods._inversion import over_orders
from cig.models.clip import Clip
from cig.models.prompts import prompts
from cig.types import Described

if TYPE_CHECKING:
    from torch import Tensor

    from cig.models.dual_encoder import Tower

VARIANTS = {name: Weights(clip) for name, clip in CLIPS.items()}


class DualTower(Described):
    """Subclasses define `embed_queries`. `--clip` takes any dual encoder of transformers: CLIP, SigLIP, ALIGN..."""

    family = ""
    variants: Mapping[str, Weights] = VARIANTS
    uses_picture = True

    def __init__(self, variant: str, source: Source) -> None:
        self.tower: Tower = source.load_tower(self.variants[variant])
        self.name = self.family if source.clip else f"{self.family}/{variant}"
        self.preprocess = self.tower.preprocess(pad=source.preprocessing == "targetpad")
        self.picture_model = self.tower.identity
        self.identity: Mapping[str, Any] = {"clip": self.picture_model}

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.tower.embed_images(pixels)

    def release_pictures(self) -> None:
        if isinstance(self.tower, Clip):  # the towers of other models load together
            self.tower.release("vision")

    def embed_captions(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Captions -> [B, d] unit rows; raises UsageError for a query without a caption."""
        return over_orders([prompts(texts, "{caption}", None) for texts in captions], self.tower.embed_texts)

    def embed_captions_or(self, otherwise: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Captions -> [B, d] unit rows; a query without a caption gets the row of `otherwise` [B, d]."""
        rows = unit(otherwise)
        captioned = torch.tensor([bool(texts) for texts in captions])
        if captioned.any():
            rows[captioned] = self.embed_captions([texts for texts in captions if texts])
        return rows


def unit(features: Tensor) -> Tensor:
    return normalize(features, dim=-1)
