"""What the methods without a phi share: one CLIP, its preprocessing, captions as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch.nn.functional import normalize

from cig.encoders import Clip
from cig.images import Preprocess
from cig.inversion import over_orders
from cig.methods import CLIPS, Source, Weights

if TYPE_CHECKING:
    from torch import Tensor

VARIANTS = {name: Weights(clip) for name, clip in CLIPS.items()}


class DualTower:
    """A subclass says what a query is made of."""

    family = ""
    uses_picture = True

    def __init__(self, variant: str, source: Source) -> None:
        self.clip: Clip = source.load_clip(VARIANTS[variant])
        self.name = self.family if source.clip else f"{self.family}/{variant}"
        self.preprocess = Preprocess(self.clip.size, pad=source.preprocessing == "targetpad")
        self.picture_model = self.clip.identity
        self.identity: Mapping[str, Any] = {"clip": self.picture_model}

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.clip.embed_images(pixels)

    def embed_captions(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        return over_orders(captions, lambda texts, _: self.clip.embed_texts(texts), None)


def unit(features: Tensor) -> Tensor:
    return normalize(features, dim=-1)
