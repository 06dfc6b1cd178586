"""The caption alone: what a method must beat to have looked at the picture."""

from collections.abc import Sequence

from torch import Tensor

from cig.methods import Source
from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import DualTower


class Baseline(DualTower):
    family = "text"
    uses_picture = False

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        return self.embed_captions(captions)


def load(variant: str, source: Source) -> Baseline:
    return Baseline(variant, source)
