"""BGE-VL (Zhou et al., MegaPairs, ACL 2025): the sum of the raw picture and text features of one dual encoder.

Its -base and -large are CLIPs, trained so that the sum of a reference and an instruction is near the target. Any other
dual encoder by `--clip` is composed the same way.
"""

from collections.abc import Sequence

from torch import Tensor

from cig.methods import Weights
from cig.methods._dual import DualTower, unit
from cig.methods._inversion import over_orders
from cig.models.prompts import prompts

VARIANTS = {"base": Weights("BAAI/BGE-VL-base"), "large": Weights("BAAI/BGE-VL-large")}


class RawSum(DualTower):
    family = "bge-vl"
    variants = VARIANTS

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """As Method: normalise(text + picture), features as the towers return them; without a caption, the picture."""
        captioned = [i for i, texts in enumerate(captions) if texts]
        sums = image_features.clone()
        if captioned:
            texts = [prompts(captions[i], "{caption}", None) for i in captioned]
            sums[captioned] = over_orders(texts, self._add_texts, image_features[captioned])
        return unit(sums)

    def _add_texts(self, texts: Sequence[str], pictures: Tensor) -> Tensor:
        return pictures + self.tower.embed_texts(texts)


load = RawSum
