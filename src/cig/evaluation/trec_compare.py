"""Comparison of two or more TREC runs, ours or others', against one set of judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cig.errors import MismatchError, UsageError, some
from cig.evaluation import significance
from cig.evaluation.paired import PairedComparison, compare_scores
from cig.evaluation.score import parse, score_lists
from cig.evaluation.significance import Values
from cig.evaluation.trec import Qrels, Run, read_qrels, read_run
from cig.types import ALSO_CORRECT, TARGET

SMALLEST = 5  # queries a part
MEASURES = ("recall@1", "recall@5", "recall@10", "recall@50", "map@10")


@dataclass(frozen=True)
class RunComparison:
    names: tuple[str, ...]  # of the runs; the first is the base
    queries: int
    measures: tuple[str, ...]
    scores: tuple[Mapping[str, float], ...]  # of each run, percent
    versus: tuple[Mapping[str, PairedComparison], ...]  # of each other run against the first
    holm: tuple[Mapping[str, float], ...]  # p of these, corrected over the other runs
    lacking: tuple[tuple[str, ...], ...]  # queries that a run has no line of; they score 0
    foreign: tuple[tuple[str, ...], ...]  # queries of a run without judgements; they are left out


def compare_runs(paths: Sequence[Path], qrels: Path, measures: Sequence[str] = MEASURES) -> RunComparison:
    """Score every run, and compare each with the first.

    Raises:
        UsageError: an unknown measure, or fewer than two runs.
        MismatchError: a run without a judged query.
    """
    if len(paths) < 2:
        raise UsageError("give at least two runs to compare: cig compare A.run B.run --qrels FILE")
    for measure in measures:
        if parse(measure)[0] not in ("recall", "map", "ndcg"):
            raise UsageError(f"a run does not answer {measure}; there are recall@k, map@k and ndcg@k")
    judged, runs = read_qrels(qrels), [read_run(path) for path in paths]
    for path, run in zip(paths, runs, strict=True):
        if not set(run) & set(judged):
            raise MismatchError(f"{path} and {qrels} share no query: {some(run, 3)} there, {some(judged, 3)} here")
    strata = _strata(judged)
    tables = {measure: [_scores(run, judged, strata, measure=measure) for run in runs] for measure in measures}
    against = [
        {name: compare_scores(runs_scores[0], runs_scores[i]) for name, runs_scores in tables.items()}
        for i in range(1, len(runs))
    ]
    corrected = {name: significance.holm([comparisons[name].p for comparisons in against]) for name in measures}
    return RunComparison(
        names=tuple(map(str, paths)),
        queries=len(judged),
        measures=tuple(measures),
        scores=tuple(
            {name: float(np.mean([stratum.mean() for stratum in tables[name][i]])) for name in measures}
            for i in range(len(runs))
        ),
        versus=tuple(against),
        holm=tuple({name: corrected[name][i] for name in measures} for i in range(len(against))),
        lacking=tuple(tuple(query for query in judged if query not in run) for run in runs),
        foreign=tuple(tuple(query for query in run if query not in judged) for run in runs),
    )


def _strata(judged: Qrels) -> list[list[str]]:
    """Group queries by the part before the slash, where all have one: FashionIQ's categories.

    Few queries in any group mean that the slash is of something else; then all queries are one stratum.
    """
    strata: dict[str, list[str]] = {}
    have_parts = all("/" in query for query in judged)
    for query in judged:
        strata.setdefault(query.partition("/")[0] if have_parts else "", []).append(query)
    few = any(len(queries) < SMALLEST for queries in strata.values())
    return [list(judged)] if few else list(strata.values())


def _scores(run: Run, judged: Qrels, strata: Sequence[Sequence[str]], *, measure: str) -> list[Values]:
    """Score a run in percent, [Q] a stratum."""
    graded = any(grade >= TARGET for grades in judged.values() for grade in grades.values())
    grade = TARGET if graded and parse(measure)[0] == "recall" else ALSO_CORRECT
    return [
        100 * score_lists([run.get(name, ()) for name in names], [judged[name] for name in names], measure, grade=grade)
        for names in strata
    ]


def to_text(compared: RunComparison) -> str:
    """Format a block of lines for each run after the first: measure, scores, difference, p."""
    base, lines = compared.names[0], [f"{compared.queries} judged queries; percent [95% interval]"]
    for name, comparisons, scores, holm in zip(
        compared.names[1:], compared.versus, compared.scores[1:], compared.holm, strict=True
    ):
        lines += ["", f"{name} against {base}"]
        for measure in compared.measures:
            each = comparisons[measure]
            lines.append(
                f"  {measure:10}  {compared.scores[0][measure]:6.2f} -> {scores[measure]:6.2f}  {each.difference:+.2f} "
                f"[{each.interval[0]:+.2f}, {each.interval[1]:+.2f}]  p {each.p:.4f} (Holm {holm[measure]:.4f})  "
                f"{each.gained} gained, {each.lost} lost, {each.equal} equal"
            )
    for name, lacking, foreign in zip(compared.names, compared.lacking, compared.foreign, strict=True):
        if lacking:
            lines += ["", f"{name}: judged queries without a line, which score 0: {len(lacking)} ({some(lacking, 10)})"]
        if foreign:
            lines += ["", f"{name}: queries that nobody judged, left out: {len(foreign)} ({some(foreign, 10)})"]
    return "\n".join(lines)
