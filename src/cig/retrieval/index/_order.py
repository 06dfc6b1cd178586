"""The order of hits, the same for every engine: by exact score, then by name.

An engine's own scores differ in the last digits by its library, its block sizes and a row's place in a block. So an
engine only proposes candidates, with their features, and this module scores them again: one float64 sum a row, which
depends on nothing but the two features. Equal pictures then get equal scores, and names decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MARGIN = 1e-5  # scores of engines are this exact: a candidate further below the k-th cannot be among the first k


@dataclass(frozen=True)
class Candidate:
    """A picture that an engine proposes."""

    name: str
    feature: NDArray[np.float32]  # [d], a unit row
    file: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def ranked(query: NDArray[np.float32], candidates: Sequence[Candidate]) -> list[tuple[float, Candidate]]:
    """Return (cosine similarity, candidate), nearest first; equal ones by name.

    Args:
        query: [d], a unit row.
    """
    if not candidates:
        return []
    features = np.stack([candidate.feature for candidate in candidates]).astype(np.float64)
    scores = (features * query.astype(np.float64)).sum(axis=1)
    order = sorted(range(len(candidates)), key=lambda i: (-scores[i], candidates[i].name))
    return [(float(scores[i]), candidates[i]) for i in order]


def first_groups(
    propose: Callable[[int], list[tuple[float, Candidate]]], k: int, same: Callable[[Candidate, Candidate], bool]
) -> list[tuple[float, Candidate, list[Candidate]]]:
    """Return the first k hits of which no two are the same, each with those that stand behind it, nearest first.

    Args:
        propose: n -> the n nearest, or fewer where there are no more.
        same: whether a candidate goes behind an earlier one.
    """
    size = k
    while True:
        hits = propose(size)
        heads: list[tuple[float, Candidate, list[Candidate]]] = []
        for score, candidate in hits:
            head = next((head for head in heads if same(head[1], candidate)), None)
            if head:
                head[2].append(candidate)
            elif len(heads) < k:
                heads.append((score, candidate, []))
        if len(heads) == k or len(hits) < size:
            return heads
        size *= 4
