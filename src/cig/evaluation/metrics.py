"""The field's measures as pure functions: (hits [Q, K], number of relevant pictures [Q], k) -> [Q], each 0..1.

hits[q, i] is true where the picture at rank i + 1 of query q is relevant. Only numpy is imported here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]
Values = NDArray[np.float64]


def recall(hits: Hits, relevant: NDArray[np.int64], k: int) -> Values:
    """Return the share of the relevant pictures among the first k; with one target, trec_eval's success@k."""
    shares: Values = hits[:, :k].sum(axis=1) / np.maximum(relevant, 1)
    return shares


def average_precision(hits: Hits, relevant: NDArray[np.int64], k: int) -> Values:
    """Return CIRCO's AP@k: precision at each hit, summed, over min(k, relevant) (Baldrati et al., 2023, eq. 6).

    trec_eval's AP@k (map_cut_k) divides by all relevant instead.
    """
    first = hits[:, :k]
    precision = np.cumsum(first, axis=1) / np.arange(1, first.shape[1] + 1)
    total: Values = (precision * first).sum(axis=1) / np.maximum(np.minimum(relevant, k), 1)
    return total
