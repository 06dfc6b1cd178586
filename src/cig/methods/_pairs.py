"""The base class of methods that score a query's picture and its text apart, over the whole gallery.

A query's row holds both unit features side by side, [picture d | text d]; a half that the query lacks is zero. What is
ranked is `score`, not the cosine similarity of rows, so no single query vector exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cig.methods._dual import DualTower, unit


class PairedFeatures(DualTower):
    """Subclasses define `score(queries [Q, 2d], gallery [N, d]) -> [Q, N]`."""

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Return the unit rows [B, 2d] of pictures [B, d] and captions; see types.Method."""
        texts = torch.zeros_like(image_features)
        captioned = [i for i, given in enumerate(captions) if given]
        if captioned:
            texts[captioned] = self.embed_texts([captions[i] for i in captioned])
        return unit(torch.cat([unit(image_features), texts], dim=-1))

    def embed_captions(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        texts = self.embed_texts(captions)
        return torch.cat([torch.zeros_like(texts), texts], dim=-1)

    def embed_texts(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Return unit text features [B, d] of captions."""
        return super().embed_captions(captions)


def halves(queries: Tensor) -> tuple[Tensor, Tensor]:
    """Split rows [Q, 2d] into unit picture and unit text features [Q, d]; what a query lacks stays zero."""
    pictures, texts = queries.chunk(2, dim=-1)
    return unit(pictures), unit(texts)


def lacks(features: Tensor) -> Tensor:
    """Return [Q, 1]: whether a query lacks this half."""
    return ~features.any(dim=-1, keepdim=True)
