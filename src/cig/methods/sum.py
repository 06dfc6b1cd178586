"""The sum of the unit picture feature and the unit caption feature: the simplest composition."""

from collections.abc import Sequence

from torch import Tensor

from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import DualTower, unit


class FeatureSum(DualTower):
    family = "sum"

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """As Method; a query without a caption is its picture's feature."""
        return unit(unit(image_features) + self.embed_captions_or(image_features, captions))


load = FeatureSum
