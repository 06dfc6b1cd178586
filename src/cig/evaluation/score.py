"""Score rankings by the official definitions, per query and with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from cig.errors import MismatchError, UsageError, check_type
from cig.evaluation import metrics, significance
from cig.types import ALSO_CORRECT, TARGET, Benchmark, Query, Ranking, Report

T = TypeVar("T")
AVERAGED = ("recall@5", "subset_recall@1")  # CIRR's "average" is their mean
AT_A_CUTOFF = {
    "recall": metrics.recall,
    "map": metrics.average_precision,
    "ndcg": metrics.ndcg,
    "negatives": metrics.share,
}
WHOLE_LISTS = ("trapezoid_map",)
LOWER_IS_BETTER = ("negatives",)


def parse(measure: str) -> tuple[str, int]:
    """Split a measure: "subset_recall@1" -> ("subset_recall", 1); the cutoff is 0 for one of whole lists."""
    name, _, cutoff = measure.partition("@")
    if measure in WHOLE_LISTS:
        return name, 0
    if name not in (*AT_A_CUTOFF, "subset_recall") or not cutoff.isdecimal() or not int(cutoff):
        names = ", ".join(f"{name}@k" for name in (*AT_A_CUTOFF, "subset_recall"))
        raise UsageError(f'no measure "{measure}"; there are {names} and {", ".join(WHOLE_LISTS)}')
    return name, int(cutoff)


def evaluate(
    benchmarks: Benchmark | Sequence[Benchmark],
    rankings: Ranking | Sequence[Ranking],
    alone: Ranking | Sequence[Ranking] | None = None,
) -> Report:
    """Score rankings in percent, with 95% intervals from 2,000 resamples of queries or of named clusters.

    FashionIQ's resamples are drawn within a category. A query that could not run, or whose target is not in the
    gallery, scores 0; the mean is over all queries.

    Args:
        alone: the rankings without pseudo-targets, to count the queries that these helped and harmed.

    Raises:
        UsageError: a benchmark whose targets are hidden.
    """
    example = "a Ranking, such as cig.search(benchmark, method)"
    parts = _listed(benchmarks, Benchmark, "benchmark", wanted='a Benchmark, such as cig.load_benchmark("cirr/val")')
    ranked = _listed(rankings, Ranking, "ranking", wanted=example)
    before = [] if alone is None else _listed(alone, Ranking, "alone", wanted=example)
    if len(parts) != len(ranked):
        raise UsageError(f"{len(parts)} benchmarks and {len(ranked)} rankings: give each benchmark one ranking")
    for part, *others in zip(parts, ranked, *([before] if before else []), strict=True):
        _need_rankings_of(part, others)
    tables = {part.part: score_queries(part, ranking) for part, ranking in zip(parts, ranked, strict=True)}
    units = {part.part: _units(part, tables[part.part]) for part in parts}
    means = {name: values.mean(axis=0) for name, (values, _) in units.items()}
    rng = np.random.default_rng(0)
    draws = {name: significance.bootstrap(values, clusters, seed=rng) for name, (values, clusters) in units.items()}
    if len(parts) > 1:
        means["average"] = np.mean(list(means.values()), axis=0)
        draws["average"] = np.mean(list(draws.values()), axis=0)
    triples = zip(parts, before, ranked, strict=bool(before))
    return Report(
        benchmark=parts[0].name,
        protocol={**parts[0].protocol, **_drawn(parts)},
        scores={part: _named(parts[0].measures, mean) for part, mean in means.items()},
        intervals={part: _intervals(parts[0].measures, draw) for part, draw in draws.items()},
        per_query={part.part: _per_query(part, tables[part.part]) for part in parts},
        missing=missing_of(parts, ranked),
        counts=counts_of(parts, ranked),
        changes={part.part: changes(without, fused) for part, without, fused in triples},
        unused=unused_of(parts, ranked),
    )


def _listed(value: T | Sequence[T], kind: type[T], name: str, *, wanted: str) -> list[T]:
    """Return one or several arguments as a list; raise WrongTypeError unless each is of the type."""
    items = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    for item in items:
        check_type(item, kind, name=name, wanted=wanted)
    return cast("list[T]", items)


def _need_rankings_of(part: Benchmark, rankings: Sequence[Ranking]) -> None:
    """Raise MismatchError unless the rankings are of this benchmark's queries: others would be scored by position."""
    ids = tuple(query.id for query in part.queries)
    for ranking in rankings:
        if ranking.queries != ids:
            raise MismatchError(
                f"the ranking has {len(ranking.queries)} queries that are not the {len(ids)} of {part.title}, in that "
                f"order: give what cig.search(benchmark, method) returned for {part.title}"
            )


def clusters_of(part: Benchmark) -> significance.Labels | None:
    """Label the clusters of a benchmark's queries; None where no query names one."""
    return significance.labels([query.cluster for query in part.queries])


def _units(part: Benchmark, table: metrics.Values) -> tuple[metrics.Values, significance.Labels | None]:
    """Return what a part's mean is over, and its clusters: scores of queries, or the means of clusters."""
    clusters = clusters_of(part)
    if part.macro and clusters is not None:
        return significance.cluster_means(table, clusters), None
    return table, clusters


def _drawn(parts: Sequence[Benchmark]) -> dict[str, str]:
    """Say what is resampled for the intervals, where it is not single queries."""
    labels = [clusters for clusters in map(clusters_of, parts) if clusters is not None]
    count = sum(int(clusters.max()) + 1 for clusters in labels)
    return {"intervals": f"over {count} clusters of queries"} if labels else {}


def changes(alone: Ranking, fused: Ranking, far: int = 10) -> dict[str, float]:
    """Count the queries whose targets rose, fell or stayed, and the percentage that fell by more than `far` ranks.

    Queries whose target has no rank in one of the rankings are not counted.
    """
    pairs = zip(alone.target_ranks, fused.target_ranks, strict=True)
    falls = np.array([after - before for before, after in pairs if before and after], dtype=int)
    worse = 100 * float((falls > far).mean()) if len(falls) else 0.0
    counts = {"gained": (falls < 0).sum(), "lost": (falls > 0).sum(), "unchanged": (falls == 0).sum()}
    return {**{name: int(count) for name, count in counts.items()}, f"worse_by_more_than_{far}": worse}


def score_queries(benchmark: Benchmark, ranking: Ranking) -> metrics.Values:
    """Return [Q, M] in percent: each query under each of the benchmark's measures."""
    if benchmark.hidden or not any(query.relevant for query in benchmark.queries):
        hint = "use `cig submit` and the official server, or evaluate val"
        raise UsageError(f"the targets of {benchmark.name} are hidden; {hint}")
    return 100 * np.stack([_score_measure(benchmark, ranking, measure) for measure in benchmark.measures], axis=1)


def _score_measure(benchmark: Benchmark, ranking: Ranking, measure: str) -> metrics.Values:
    """Score each query [Q], 0..1. Recall is of the annotated targets, the other measures of all that is correct."""
    name, _ = parse(measure)
    relevant = [query.relevant for query in benchmark.queries]
    if name == "trapezoid_map":
        ranks = ranking.relevant_ranks or [
            _ranks_in(names, grades) for names, grades in zip(ranking.ids, relevant, strict=True)
        ]
        return metrics.trapezoid_average_precision(ranks, np.array([len(grades) for grades in relevant]))
    if name == "negatives":
        relevant = [dict.fromkeys(query.negatives, TARGET) for query in benchmark.queries]
    lists = ranking.subset if name == "subset_recall" else ranking.ids
    grade = TARGET if name in ("recall", "subset_recall", "negatives") else ALSO_CORRECT
    return score_lists(lists, relevant, measure, grade=grade)


def _ranks_in(names: Sequence[str], relevant: Mapping[str, int]) -> list[int]:
    """Return the ranks of the relevant pictures in a list that may hold the first of them alone."""
    return [rank for rank, name in enumerate(names, 1) if name in relevant]


def score_lists(
    lists: Sequence[Sequence[str]], relevant: Sequence[Mapping[str, int]], measure: str, *, grade: int
) -> metrics.Values:
    """Score lists of names, best first, by a measure over the names of at least this grade: [Q], 0..1."""
    name, k = parse(measure)
    correct = [{picture for picture, own_grade in grades.items() if own_grade >= grade} for grades in relevant]
    hits = np.zeros((len(lists), k), dtype=bool)
    for row, (names, pictures) in enumerate(zip(lists, correct, strict=True)):
        hits[row, : len(names)] = [picture in pictures for picture in names[:k]]
    counts = np.array([len(pictures) for pictures in correct])
    return AT_A_CUTOFF[name.removeprefix("subset_")](hits, counts, k)


def _named(measures: Sequence[str], row: metrics.Values) -> dict[str, float]:
    """Return measure -> value, with CIRR's average where both are measured."""
    named = {measure: float(value) for measure, value in zip(measures, row, strict=True)}
    if set(AVERAGED) <= set(named):
        named["average"] = sum(named[measure] for measure in AVERAGED) / 2
    return named


def _intervals(measures: Sequence[str], draws: metrics.Values) -> dict[str, tuple[float, float]]:
    columns = dict(zip(measures, draws.T, strict=True))
    if set(AVERAGED) <= set(columns):
        columns["average"] = (columns["recall@5"] + columns["subset_recall@1"]) / 2
    return {measure: significance.interval(column) for measure, column in columns.items()}


def _per_query(benchmark: Benchmark, table: metrics.Values) -> dict[str, dict[str, float]]:
    rows = zip(benchmark.queries, table, strict=True)
    return {query.id: dict(zip(benchmark.measures, map(float, row), strict=True)) for query, row in rows}


def missing_of(benchmarks: Sequence[Benchmark], rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Return what was missing, by kind and part; empty where nothing was."""
    missing: dict[str, Any] = {}
    for benchmark, ranking in zip(benchmarks, rankings, strict=True):
        for kind, names in _missing(benchmark, ranking).items():
            if names:
                missing.setdefault(kind, {})[benchmark.part] = names
    return missing


def counts_of(benchmarks: Sequence[Benchmark], rankings: Sequence[Ranking]) -> dict[str, dict[str, int | None]]:
    """Count each part's queries and gallery pictures, those queries that can be answered and pictures that are ranked.

    The gallery's count is None where its list is missing: the pictures on disk do not say how many there should be.
    """
    counts: dict[str, dict[str, int | None]] = {}
    for part, ranking in zip(benchmarks, rankings, strict=True):
        missing, queries, gallery = _missing(part, ranking), len(part.queries), len(part.gallery)
        counts[part.part] = {
            "queries": queries,
            "queries_present": queries - len({*ranking.missing, *missing["targets"]}),
            "gallery": None if part.missing_list else gallery,
            "gallery_present": gallery - len(missing["gallery"]),
        }
    return counts


def _missing(benchmark: Benchmark, ranking: Ranking) -> Mapping[str, Any]:
    readable = set(benchmark.images) - set(ranking.notes.get("unreadable", ()))
    searched = readable & set(benchmark.gallery)
    lacks = str(ranking.notes.get("lacks", "references"))  # what queries that could not run have none of
    return {
        "list": [benchmark.missing_list.name] if benchmark.missing_list else [],
        "gallery": [name for name in benchmark.gallery if name not in searched],
        "references": dict(ranking.missing) if lacks == "references" else {},
        **({lacks: list(ranking.missing)} if lacks != "references" else {}),
        "targets": [query.id for query in benchmark.queries if _targets(query) - searched],
        "untargeted": [] if benchmark.hidden else [query.id for query in benchmark.queries if not query.relevant],
        **{_kind(branch): queries for branch, queries in ranking.notes.get("branches", {}).items()},
    }


def _kind(branch: str) -> str:
    return "pseudo_targets" if branch == "pseudo-target" else f"branch {branch}"


def unused_of(benchmarks: Sequence[Benchmark], rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Return which of the missing branches have a picture, by kind and part: query id -> why it is not used."""
    unused: dict[str, Any] = {}
    for benchmark, ranking in zip(benchmarks, rankings, strict=True):
        for branch, reasons in ranking.notes.get("unused", {}).items():
            if reasons:
                unused.setdefault(_kind(branch), {})[benchmark.part] = dict(reasons)
    return unused


def _targets(query: Query) -> set[str]:
    return {name for name, grade in query.relevant.items() if grade == TARGET}
