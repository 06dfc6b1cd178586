"""The sum of the unit picture feature and the unit caption feature: the simplest composition."""

from collections.abc import Sequence

from torch import Tensor

from cig.methods import Source
from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import DualTower, unit


class Baseline(DualTower):
    family = "sum"

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Without a caption, the picture's feature."""
        return unit(unit(image_features) + self.embed_captions_or(image_features, captions))


def load(variant: str, source: Source) -> Baseline:
    return Baseline(variant, source)
