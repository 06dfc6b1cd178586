"""The caption alone: a method that looks at the picture has to beat it."""

from collections.abc import Sequence

from torch import Tensor

from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import DualTower


class TextOnly(DualTower):
    family = "text"
    uses_picture = False

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        return self.embed_captions(captions)


load = TextOnly
