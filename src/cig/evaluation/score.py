"""Rankings -> scores, per query and with intervals, by the official definitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from cig.errors import UsageError, check_type
from cig.evaluation import metrics, significance
from cig.types import ALSO_CORRECT, TARGET, Benchmark, Query, Ranking, Report

T = TypeVar("T")


def parse(measure: str) -> tuple[str, int]:
    """("subset_recall", 1) from "subset_recall@1"."""
    name, _, cutoff = measure.partition("@")
    if name not in ("recall", "subset_recall", "map") or not cutoff.isdecimal() or not int(cutoff):
        raise UsageError(f'no measure "{measure}"; there are recall@k, subset_recall@k and map@k')
    return name, int(cutoff)


def evaluate(
    benchmarks: Benchmark | Sequence[Benchmark],
    rankings: Ranking | Sequence[Ranking],
    alone: Ranking | Sequence[Ranking] | None = None,
) -> Report:
    """Scores in percent, with 95% intervals from 2,000 resamples of queries or of named clusters.

    FashionIQ's are drawn within a category.

    A query that could not run, or whose target is not in the gallery, scores 0; the mean is over all queries.

    Args:
        alone: the rankings without pseudo-targets, to say whom these helped and whom they harmed.

    Raises:
        UsageError: a benchmark whose targets are hidden.
    """
    parts = _listed(benchmarks, Benchmark, "benchmark", 'a Benchmark, such as cig.load_benchmark("cirr/val")')
    wanted = "a Ranking, such as cig.search(benchmark, method)"
    ranked = _listed(rankings, Ranking, "ranking", wanted)
    before = [] if alone is None else _listed(alone, Ranking, "alone", wanted)
    if len(parts) != len(ranked):
        raise UsageError(f"{len(parts)} benchmarks and {len(ranked)} rankings: give each benchmark one ranking")
    tables = {part.part: score_queries(part, ranking) for part, ranking in zip(parts, ranked, strict=True)}
    measures = parts[0].measures
    means = {part: table.mean(axis=0) for part, table in tables.items()}
    rng = np.random.default_rng(0)
    draws = {part.part: significance.bootstrap(tables[part.part], clusters_of(part), seed=rng) for part in parts}
    if len(parts) > 1:
        means["average"] = np.mean(list(means.values()), axis=0)
        draws["average"] = np.mean(list(draws.values()), axis=0)
    return Report(
        benchmark=parts[0].name,
        protocol={**parts[0].protocol, **_drawn(parts)},
        scores={part: _named(measures, mean) for part, mean in means.items()},
        intervals={part: _intervals(measures, draw) for part, draw in draws.items()},
        per_query={part.part: _per_query(part, tables[part.part]) for part in parts},
        missing=missing_of(parts, ranked),
        counts=counts_of(parts, ranked),
        changes={part.part: changes(one, two) for part, one, two in zip(parts, before, ranked, strict=bool(before))},
    )


def _listed(value: T | Sequence[T], kind: type[T], name: str, wanted: str) -> list[T]:
    """Return one or several arguments as a list; raise WrongTypeError unless each is of the type."""
    items = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    for item in items:
        check_type(item, kind, name, wanted)
    return cast("list[T]", items)


def clusters_of(part: Benchmark) -> significance.Labels | None:
    return significance.labels([query.cluster for query in part.queries])


def _drawn(parts: Sequence[Benchmark]) -> dict[str, str]:
    """What intervals rest on, where it is not single queries."""
    known = [own for own in map(clusters_of, parts) if own is not None]
    return {"intervals": f"over {sum(int(own.max()) + 1 for own in known)} clusters of queries"} if known else {}


def changes(alone: Ranking, fused: Ranking, far: int = 10) -> dict[str, float]:
    """How many queries' targets rose, fell or stayed, and the share (percent) that fell by more than `far` ranks.

    Counted are queries whose target has a rank in both.
    """
    pairs = zip(alone.target_ranks, fused.target_ranks, strict=True)
    falls = np.array([after - before for before, after in pairs if before and after], dtype=int)
    worse = 100 * float((falls > far).mean()) if len(falls) else 0.0
    counts = {"gained": (falls < 0).sum(), "lost": (falls > 0).sum(), "unchanged": (falls == 0).sum()}
    return {**{name: int(count) for name, count in counts.items()}, f"worse_by_more_than_{far}": worse}


def score_queries(benchmark: Benchmark, ranking: Ranking) -> metrics.Values:
    """[Q, M] percent: each query under each of the benchmark's measures."""
    if benchmark.hidden or not all(query.relevant for query in benchmark.queries):
        hint = "use `cig submit` and the official server, or evaluate val"
        raise UsageError(f"the targets of {benchmark.name} are hidden; {hint}")
    columns = [_column(benchmark.queries, ranking, *parse(measure)) for measure in benchmark.measures]
    return 100 * np.stack(columns, axis=1)


def _column(queries: Sequence[Query], ranking: Ranking, name: str, k: int) -> metrics.Values:
    grade = ALSO_CORRECT if name == "map" else TARGET
    lists = ranking.subset if name == "subset_recall" else ranking.ids
    return score_lists(lists, [query.relevant for query in queries], name, k, grade)


def score_lists(
    lists: Sequence[Sequence[str]], relevant: Sequence[Mapping[str, int]], name: str, k: int, grade: int
) -> metrics.Values:
    """[Q], 0..1: lists of names, best first, by a measure over the names of at least this grade."""
    wanted = [{name for name, own in grades.items() if own >= grade} for grades in relevant]
    hits = np.zeros((len(lists), k), dtype=bool)
    for row, (names, right) in enumerate(zip(lists, wanted, strict=True)):
        hits[row, : len(names)] = [name in right for name in names[:k]]
    counts = np.array([len(right) for right in wanted])
    return metrics.average_precision(hits, counts, k) if name == "map" else metrics.recall(hits, counts, k)


def _named(measures: Sequence[str], row: metrics.Values) -> dict[str, float]:
    """Measure -> value; CIRR's average, (recall@5 + subset_recall@1) / 2, is added where both are there."""
    named = {measure: float(value) for measure, value in zip(measures, row, strict=True)}
    if {"recall@5", "subset_recall@1"} <= set(named):
        named["average"] = (named["recall@5"] + named["subset_recall@1"]) / 2
    return named


def _intervals(measures: Sequence[str], draws: metrics.Values) -> dict[str, tuple[float, float]]:
    columns = dict(zip(measures, draws.T, strict=True))
    if {"recall@5", "subset_recall@1"} <= set(columns):
        columns["average"] = (columns["recall@5"] + columns["subset_recall@1"]) / 2
    return {measure: significance.interval(column) for measure, column in columns.items()}


def _per_query(benchmark: Benchmark, table: metrics.Values) -> dict[str, dict[str, float]]:
    rows = zip(benchmark.queries, table, strict=True)
    return {query.id: dict(zip(benchmark.measures, map(float, row), strict=True)) for query, row in rows}


def missing_of(benchmarks: Sequence[Benchmark], rankings: Sequence[Ranking]) -> dict[str, Any]:
    """What was missing, by kind, and in FashionIQ by category; empty where nothing was."""
    missing: dict[str, Any] = {}
    for benchmark, ranking in zip(benchmarks, rankings, strict=True):
        for kind, what in _missing(benchmark, ranking).items():
            if what:
                missing.setdefault(kind, {})[benchmark.part] = what
    return missing


def counts_of(benchmarks: Sequence[Benchmark], rankings: Sequence[Ranking]) -> dict[str, dict[str, int | None]]:
    """Queries and gallery pictures of each part, and how many of them are there: that can be answered, are ranked.

    The gallery's is None where its list is missing: what was found says nothing of how many there should be.
    """
    return {part.part: _counts(part, _missing(part, own)) for part, own in zip(benchmarks, rankings, strict=True)}


def _counts(benchmark: Benchmark, missing: Mapping[str, Any]) -> dict[str, int | None]:
    queries, gallery = len(benchmark.queries), len(benchmark.gallery)
    return {
        "queries": queries,
        "queries_present": queries - len({*missing["references"], *missing["targets"]}),
        "gallery": None if benchmark.missing_list else gallery,
        "gallery_present": gallery - len(missing["gallery"]),
    }


def _missing(benchmark: Benchmark, ranking: Ranking) -> Mapping[str, Any]:
    there = set(benchmark.images) - set(ranking.notes.get("unreadable", ()))
    searched = there & set(benchmark.gallery)
    return {
        "list": [benchmark.missing_list.name] if benchmark.missing_list else [],
        "gallery": [name for name in benchmark.gallery if name not in searched],
        "references": dict(ranking.missing),
        "targets": [query.id for query in benchmark.queries if set(_targets(query)) - searched],
        **{_kind(name): queries for name, queries in ranking.notes.get("branches", {}).items()},
    }


def _kind(branch: str) -> str:
    return "pseudo_targets" if branch == "pseudo-target" else f"branch {branch}"


def _targets(query: Query) -> list[str]:
    return [name for name, grade in query.relevant.items() if grade == TARGET]
