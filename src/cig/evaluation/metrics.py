"""The field's measures as pure functions: (hits [Q, K], number of relevant pictures [Q], k) -> [Q], each 0..1.

hits[q, i] is true where the picture at rank i + 1 of query q is relevant. Only numpy is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def ndcg(hits: Hits, relevant: NDArray[np.int64], k: int) -> Values:
    """Return binary nDCG@k (Jarvelin and Kekalainen, 2002), as trec_eval's ndcg_cut_k does for grades of 0 and 1."""
    first = hits[:, :k]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.array([discounts[: min(count, k)].sum() for count in relevant])
    gains: Values = (first * discounts[: first.shape[1]]).sum(axis=1) / np.where(ideal > 0, ideal, 1)
    return gains


def share(hits: Hits, relevant: NDArray[np.int64], k: int) -> Values:
    """Return the share of the first k that are hits; with pictures marked as wrong, the false positives."""
    shares: Values = hits[:, :k].sum(axis=1) / k
    return shares


def trapezoid_average_precision(ranks: Sequence[Sequence[int]], relevant: NDArray[np.int64]) -> Values:
    """Return AP over whole rankings as the area under precision and recall, by the trapezoid rule.

    Oxford's buildings have it (Philbin et al., CVPR 2007), i-CIR and FREEDOM, too: at each hit, the precision before it
    and at it are averaged, and before the first picture it is 1. trec_eval's map takes the precision at the hit alone.

    Args:
        ranks: the ranks, from 1, of each query's relevant pictures that were ranked, ascending.
        relevant: [Q] how many are relevant; those that were not ranked add nothing.
    """
    areas = []
    for row in ranks:
        at = np.array(row, dtype=float)
        hits = np.arange(1, len(row) + 1)
        before = np.where(at > 1, (hits - 1) / np.maximum(at - 1, 1), 1.0)
        areas.append(float(((before + hits / at) / 2).sum()))
    total: Values = np.array(areas) / np.maximum(relevant, 1)
    return total
