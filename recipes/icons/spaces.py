"""What the experiment searches with: every query by every component, as unit features beside a gallery's.

A component is a picture or a caption seen in one way: the reference as a pseudo-word, a pseudo-target's image feature.
A system mixes components at weights; a query that lacks one (a refused pseudo-target) keeps the others' proportions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cig.evaluation.metrics import Values, average_precision
from cig.evaluation.score import score_queries
from cig.io.feature_cache import FeatureCache
from cig.retrieval.embed import EmbeddedQueries, embed
from cig.retrieval.features import embed_pictures
from cig.retrieval.rank import index, rank, wanted_pictures
from cig.types import Benchmark, Branch, Gallery, Method

REFERENCE = "reference"
CUTOFF = 10
Weights = Mapping[str, float]


@dataclass(frozen=True)
class System:
    """A branch set: what is mixed into the reference, or, for two spaces, into each of them."""

    name: str
    kind: str  # control, pseudo-target, pixel-free, bound
    components: tuple[str, ...] = ()  # beside the reference
    spaces: tuple[str, ...] = ("small",)


@dataclass(frozen=True)
class Space:
    """One searcher over one benchmark."""

    part: Benchmark
    embedded: EmbeddedQueries
    gallery: Gallery

    def features(self, weights: Weights) -> Tensor:
        """[Q, d] unit rows."""
        return self.embedded.fused(weights)


def look(part: Benchmark, method: Method, branches: Sequence[Branch], cache: FeatureCache) -> Space:
    """Every query by the method and by every branch; weights come later."""
    pictures = embed_pictures(method, wanted_pictures(part, method, branches), 256, cache=cache)
    return Space(part, embed(part, method, branches, pictures=pictures, cache=cache), index(part, pictures))


def mixed(spaces: Sequence[Space], weights: Weights, shares: Sequence[float]) -> tuple[Tensor, Gallery]:
    """Queries and gallery whose cosines are those of the spaces, summed at shares: late fusion, as one search."""
    queries = [share**0.5 * space.features(weights) for space, share in zip(spaces, shares, strict=True)]
    pictures = [share**0.5 * space.gallery.features for space, share in zip(spaces, shares, strict=True)]
    return torch.cat(queries, -1), Gallery(spaces[0].gallery.ids, torch.cat(pictures, -1))


def scores(spaces: Sequence[Space], weights: Weights, shares: Sequence[float] = (1.0,)) -> Values:
    """[Q, M] percent, under each of the benchmark's measures, by the house's own ranking."""
    part = spaces[0].part
    queries, gallery = mixed(spaces, weights, shares)
    return score_queries(part, rank(part, spaces[0].embedded.queries, queries, gallery=gallery))


class Quick:
    """AP@10 alone, for grids of weights: what is relevant, as a matrix, is known beforehand."""

    def __init__(self, space: Space) -> None:
        place = {name: column for column, name in enumerate(space.gallery.ids)}
        queries = space.embedded.queries
        self.references = torch.tensor([place.get(query.reference, -1) for query in queries])
        self.relevant = torch.zeros(len(queries), len(place), dtype=torch.bool)
        for row, query in enumerate(queries):
            self.relevant[row, [place[name] for name in query.relevant if name in place]] = True
        self.counts = np.array([len(query.relevant) for query in queries])

    def __call__(self, queries: Tensor, gallery: Gallery) -> float:
        """Percent, the mean over queries."""
        similar = queries @ gallery.features.T
        rows = torch.arange(len(similar))[self.references >= 0]
        similar[rows, self.references[rows]] = -torch.inf
        hits = self.relevant.gather(1, similar.topk(min(CUTOFF, similar.shape[1])).indices)
        return 100 * float(average_precision(hits.numpy(), self.counts, CUTOFF).mean())


def grid(components: Sequence[str]) -> Iterator[dict[str, float]]:
    """Weights from 0 to 1 that leave the reference the rest: by 0.05 for one component, by 0.1 for several."""
    step = 0.05 if len(components) < 2 else 0.1
    levels = [round(step * i, 2) for i in range(round(1 / step) + 1)]
    for own in product(levels, repeat=len(components)):
        if sum(own) <= 1 + 1e-9:
            yield dict(zip(components, own, strict=True))


def choose(system: System, spaces: Sequence[Space]) -> tuple[dict[str, float], list[float], float]:
    """The weights and the spaces' shares that score best on this benchmark, and that score (mAP@10, percent)."""
    quick = Quick(spaces[0])
    shares = [[1.0]] if len(spaces) == 1 else [[round(0.1 * i, 1), round(1 - 0.1 * i, 1)] for i in range(11)]
    tried = [
        (quick(*mixed(spaces, weights, own)), weights, own) for weights in grid(system.components) for own in shares
    ]
    best, weights, own = max(tried, key=lambda one: one[0])
    return weights, own, best


def unit_mean(rows: Sequence[Tensor]) -> Tensor:
    """Of unit features [Q, d] in several draws: their mean, unit again."""
    return normalize(torch.stack(list(rows)).sum(0), dim=-1)
