"""How much a method composes: scores with both modalities, with one alone, and on queries that need both.

The composition gap (CIRCUS, arXiv 2605.14787) is 1 - max(image alone, text alone) / both, of nDCG: 0 where one modality
does as well as both, 1 where either alone finds nothing, below 0 where it does better.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cig.evaluation import significance
from cig.evaluation.score import clusters_of, evaluate, score_queries
from cig.evaluation.significance import Values
from cig.types import Benchmark, Ranking, Report

MEASURE = "ndcg@10"
SOLVED = 10  # the target's rank at most, as in CIRCUS
Subset = Mapping[str, Collection[str]]  # title of a part -> ids of queries


@dataclass(frozen=True)
class CompositionGap:
    """Mean nDCG@10 in percent, with both modalities and with each alone."""

    both: float
    image: float
    text: float
    gap: float  # a share; 0 where nothing is found with both
    interval: tuple[float, float]  # 95%, resampling queries: all three answer the same ones


def composition_gap(
    parts: Sequence[Benchmark], both: Sequence[Ranking], *, image: Sequence[Ranking], text: Sequence[Ranking]
) -> CompositionGap:
    """Compare a search with those by image alone and by text alone; parts count alike."""
    by_part = [
        np.stack([_ndcg(part, each) for each in three], axis=1)
        for part, *three in zip(parts, both, image, text, strict=True)
    ]
    rng = np.random.default_rng(0)
    draws = np.mean(
        [
            significance.bootstrap(values, clusters_of(part), seed=rng)
            for part, values in zip(parts, by_part, strict=True)
        ],
        axis=0,
    )
    means = np.mean([values.mean(axis=0) for values in by_part], axis=0)
    gaps = np.array([_gap(row) for row in draws])
    of_both, of_image, of_text = map(float, means)
    return CompositionGap(of_both, of_image, of_text, _gap(means), significance.interval(gaps))


def _ndcg(part: Benchmark, ranking: Ranking) -> Values:
    scores: Values = score_queries(replace(part, measures=(MEASURE,)), ranking)[:, 0]
    return scores


def _gap(row: Values) -> float:
    both, image, text = row
    return float(1 - max(image, text) / both) if both else 0.0


def unsolved(parts: Sequence[Benchmark], unimodal: Sequence[Sequence[Ranking]]) -> dict[str, set[str]]:
    """Return the queries whose target none of these searches by one modality has among the first 10."""
    left = {part.title: {query.id for query in part.queries} for part in parts}
    for rankings in unimodal:
        for part, ranking in zip(parts, rankings, strict=True):
            ranks = zip(ranking.queries, ranking.target_ranks, strict=True)
            left[part.title] -= {query for query, rank in ranks if rank and rank <= SOLVED}
    return left


def evaluate_subset(parts: Sequence[Benchmark], rankings: Sequence[Ranking], subset: Subset) -> Report | None:
    """Score a subset of the queries by the benchmark's measures; parts without any are left out, None without all."""
    chosen = [
        _restricted(part, ranking, subset[part.title])
        for part, ranking in zip(parts, rankings, strict=True)
        if subset.get(part.title)
    ]
    return evaluate([part for part, _ in chosen], [ranking for _, ranking in chosen]) if chosen else None


def _restricted(part: Benchmark, ranking: Ranking, queries: Collection[str]) -> tuple[Benchmark, Ranking]:
    rows = [row for row, query in enumerate(ranking.queries) if query in queries]
    fields = ("queries", "ids", "scores", "subset", "target_ranks", "relevant_ranks")
    kept = {name: tuple(values[row] for row in rows) for name in fields if (values := getattr(ranking, name))}
    missing = {query: why for query, why in ranking.missing.items() if query in queries}
    return (
        replace(part, queries=tuple(part.queries[row] for row in rows)),
        replace(ranking, missing=missing, notes={}, **kept),
    )


def subset_lines(reports: Mapping[str, Report | None]) -> list[list[str]]:
    """Return a table: a line a subset, a column a measure, each with its interval."""
    shown = {name: report for name, report in reports.items() if report}
    if not shown:
        return []
    measures = list(_scores(next(iter(shown.values()))))
    lines = [["queries", "", *measures]]
    for name, report in shown.items():
        scores, intervals = _scores(report), report.intervals[_part(report)]
        count = sum(part["queries"] or 0 for part in report.counts.values())
        cells = [
            f"{scores[measure]:.2f} [{intervals[measure][0]:.2f}, {intervals[measure][1]:.2f}]" for measure in measures
        ]
        lines.append([name, f"{count:,}", *cells])
    return lines


def _part(report: Report) -> str:
    return "average" if "average" in report.scores else next(iter(report.scores))


def _scores(report: Report) -> Mapping[str, float]:
    return report.scores[_part(report)]
