"""Paired comparison of two systems on the same queries: the difference, its significance, and who gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cig.evaluation import significance
from cig.evaluation.score import AVERAGED, clusters_of, score_queries
from cig.evaluation.significance import Labels, Values
from cig.types import Benchmark, Ranking


@dataclass(frozen=True)
class PairedComparison:
    """Two systems under one measure; the difference is other minus base, in percent."""

    difference: float
    interval: tuple[float, float]  # 95%, resampling queries: both systems answer the same ones
    p: float  # two-sided paired randomisation test of no difference
    gained: int  # queries that score higher than by the base
    lost: int
    equal: int

    @property
    def shares(self) -> tuple[float, float]:
        """Return the percentages of queries gained and lost."""
        count = max(1, self.gained + self.lost + self.equal)
        return 100 * self.gained / count, 100 * self.lost / count


def compare_scores(
    base: Sequence[Values],
    other: Sequence[Values],
    clusters: Sequence[Labels | None] | None = None,
    *,
    macro: bool = False,
) -> PairedComparison:
    """Compare scores of the same queries by the mean of the strata's means.

    Args:
        base, other: [Q] a stratum (FashionIQ: a category), in percent.
        clusters: [Q] labels a stratum, of queries that are not independent; None for single queries.
        macro: a stratum's mean is that of its clusters' means.
    """
    labels = clusters or [None] * len(base)
    differences = [new - old for old, new in zip(base, other, strict=True)]
    every = np.concatenate(differences)
    if macro:
        pairs = zip(differences, labels, strict=True)
        differences = [
            each if label is None else significance.cluster_means(each[:, None], label)[:, 0] for each, label in pairs
        ]
        labels = [None] * len(base)
    rng = np.random.default_rng(0)
    pairs = zip(differences, labels, strict=True)
    draws = [significance.bootstrap(stratum[:, None], cluster, seed=rng) for stratum, cluster in pairs]
    return PairedComparison(
        difference=float(np.mean([stratum.mean() for stratum in differences])),
        interval=significance.interval(np.mean(draws, axis=0)[:, 0]),
        p=significance.paired_p(differences, labels),
        gained=int((every > 0).sum()),
        lost=int((every < 0).sum()),
        equal=int((every == 0).sum()),
    )


def compare_by_part(
    parts: Sequence[Benchmark], base: Sequence[Ranking], other: Sequence[Ranking]
) -> dict[str, Mapping[str, PairedComparison]]:
    """Compare two searches within each part and over all of them: part -> measure -> comparison.

    The parts' mean is called "average", as in Report.scores; it is left out where there is one part.
    """
    rows = zip(parts, base, other, strict=True)
    compared = {part.part: compare_rankings([part], [before], [after]) for part, before, after in rows}
    return compared if len(parts) == 1 else {**compared, "average": compare_rankings(parts, base, other)}


def compare_rankings(
    parts: Sequence[Benchmark], base: Sequence[Ranking], other: Sequence[Ranking]
) -> Mapping[str, PairedComparison]:
    """Compare two searches under each of the benchmark's measures, and CIRR's average of two; raise UsageError where
    targets are hidden.
    """
    of_base = [score_queries(part, ranking) for part, ranking in zip(parts, base, strict=True)]
    of_other = [score_queries(part, ranking) for part, ranking in zip(parts, other, strict=True)]
    clusters, measures = [clusters_of(part) for part in parts], parts[0].measures
    columns = {measure: [i] for i, measure in enumerate(measures)}
    if set(AVERAGED) <= set(measures):
        columns["average"] = list(map(measures.index, AVERAGED))
    return {
        measure: compare_scores(
            [table[:, chosen].mean(axis=1) for table in of_base],
            [table[:, chosen].mean(axis=1) for table in of_other],
            clusters,
            macro=parts[0].macro,
        )
        for measure, chosen in columns.items()
    }
