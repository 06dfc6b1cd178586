"""The reference picture alone: what a method must beat to have read the caption."""

from collections.abc import Sequence

from torch import Tensor

from cig.methods import Source
from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import DualTower, unit


class Baseline(DualTower):
    family = "image"

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        return unit(image_features)


def load(variant: str, source: Source) -> Baseline:
    return Baseline(variant, source)
