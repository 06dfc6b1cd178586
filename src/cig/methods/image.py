"""The reference picture alone: a method that reads the caption has to beat it."""

from collections.abc import Sequence

from torch import Tensor

from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import DualTower, unit


class ImageOnly(DualTower):
    family = "image"

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        return unit(image_features)


load = ImageOnly
