"""One system against another on the same queries: how much, how sure, and for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cig.evaluation import significance
from cig.evaluation.score import clusters_of, score_queries
from cig.evaluation.significance import Labels, Values
from cig.types import Benchmark, Ranking


@dataclass(frozen=True)
class Versus:
    """Under one measure; the difference is other minus base, in the measure's unit (percent)."""

    difference: float
    interval: tuple[float, float]  # 95%, resampling queries: both systems answer the same ones
    p: float  # two-sided paired randomisation test of no difference
    gained: int  # queries that score higher than by the base
    lost: int
    equal: int

    @property
    def shares(self) -> tuple[float, float]:
        """Percent of queries gained and lost."""
        count = max(1, self.gained + self.lost + self.equal)
        return 100 * self.gained / count, 100 * self.lost / count


def versus(base: Sequence[Values], other: Sequence[Values], clusters: Sequence[Labels | None] | None = None) -> Versus:
    """Scores of the same queries, [Q] a stratum (FashionIQ: a category); the mean of the strata's means is compared."""
    labels = clusters or [None] * len(base)
    differences = [two - one for one, two in zip(base, other, strict=True)]
    rng = np.random.default_rng(0)
    pairs = zip(differences, labels, strict=True)
    draws = [significance.bootstrap(own[:, None], which, seed=rng) for own, which in pairs]
    every = np.concatenate(differences)
    return Versus(
        difference=float(np.mean([own.mean() for own in differences])),
        interval=significance.interval(np.mean(draws, axis=0)[:, 0]),
        p=significance.paired_p(differences, labels),
        gained=int((every > 0).sum()),
        lost=int((every < 0).sum()),
        equal=int((every == 0).sum()),
    )


def compare_rankings(
    parts: Sequence[Benchmark], base: Sequence[Ranking], other: Sequence[Ranking]
) -> Mapping[str, Versus]:
    """Under each of the benchmark's measures. Raises UsageError where targets are hidden."""
    ones = [score_queries(part, own) for part, own in zip(parts, base, strict=True)]
    twos = [score_queries(part, own) for part, own in zip(parts, other, strict=True)]
    clusters = [clusters_of(part) for part in parts]
    return {
        measure: versus([table[:, i] for table in ones], [table[:, i] for table in twos], clusters)
        for i, measure in enumerate(parts[0].measures)
    }
