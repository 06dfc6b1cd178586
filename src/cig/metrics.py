"""The field's measures as pure functions: (hits [Q, K], number of relevant pictures [Q], k) -> [Q], each 0..1.

hits[q, i] says whether the picture at rank i + 1 of query q is relevant. Nothing of ours is imported here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]
Values = NDArray[np.float64]


def recall(hits: Hits, relevant: NDArray[np.int64], k: int) -> Values:
    """The share of relevant pictures among the first k. With one target, what trec_eval calls success@k."""
    found: Values = hits[:, :k].sum(axis=1) / np.maximum(relevant, 1)
    return found


def average_precision(hits: Hits, relevant: NDArray[np.int64], k: int) -> Values:
    """CIRCO's AP@k: precision at each hit, summed, over min(k, relevant) (Baldrati et al., 2023, eq. 6).

    trec_eval's AP@k (map_cut_k) divides by all relevant instead.
    """
    first = hits[:, :k]
    precision = np.cumsum(first, axis=1) / np.arange(1, first.shape[1] + 1)
    total: Values = (precision * first).sum(axis=1) / np.maximum(np.minimum(relevant, k), 1)
    return total


def bootstrap(values: Values, resamples: int = 2000, seed: int = 0) -> Values:
    """Means [resamples, M] of queries drawn with replacement from values [Q, M]."""
    count = len(values)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    means: Values = draws @ values / count
    return means


def interval(means: Values, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled means [resamples]."""
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
