"""What the methods without a phi share: one dual tower, its preprocessing, captions as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import normalize

from cig.methods import CLIPS, Source, Weights
from cig.methods._inversion import over_orders
from cig.models.prompts import prompts

if TYPE_CHECKING:
    from torch import Tensor

    from cig.models.dual_encoder import Tower

VARIANTS = {name: Weights(clip) for name, clip in CLIPS.items()}


class DualTower:
    """A subclass says what a query is made of. `--clip` takes any dual tower of transformers: CLIP, SigLIP, ALIGN..."""

    family = ""
    uses_picture = True

    def __init__(self, variant: str, source: Source) -> None:
        self.tower: Tower = source.load_tower(VARIANTS[variant])
        self.name = self.family if source.clip else f"{self.family}/{variant}"
        self.preprocess = self.tower.preprocess(pad=source.preprocessing == "targetpad")
        self.picture_model = self.tower.identity
        self.identity: Mapping[str, Any] = {"clip": self.picture_model}

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.tower.embed_images(pixels)

    def embed_captions(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Raises UsageError for a query without a caption."""
        return over_orders([prompts(own, "{caption}", None) for own in captions], self.tower.embed_texts)

    def embed_captions_or(self, otherwise: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """[B, d] unit rows: of the captions, or of `otherwise` [B, d] where a query has none."""
        rows = unit(otherwise)
        told = torch.tensor([bool(own) for own in captions])
        if told.any():
            rows[told] = self.embed_captions([own for own in captions if own])
        return rows


def unit(features: Tensor) -> Tensor:
    return normalize(features, dim=-1)
