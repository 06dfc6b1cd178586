"""The product of two similarities, to the reference and to the caption: both have to hold.

score = max(s_image, 0) * max(s_text, 0), of unit features (the baseline of i-CIR, Psomas et al., NeurIPS 2025, which
finds twice what their sum does). A query without a caption, or without a reference, is scored by what it has.
"""

from __future__ import annotations

from torch import Tensor

from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._pairs import PairedFeatures, halves, lacks


class Product(PairedFeatures):
    family = "product"

    def score(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """Score rows [Q, 2d] over unit picture features [N, d]: [Q, N], 0..1."""
        scores = gallery.new_ones(len(queries), len(gallery))
        for features in halves(queries):
            scores *= (features @ gallery.T).clamp(min=0).masked_fill(lacks(features), 1.0)
        return scores


load = Product
