"""Score anyone's run of a benchmark by its official protocol, without a model or a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cig.benchmarks import Data
from cig.errors import UsageError
from cig.evaluation.given_runs import read_given_run
from cig.evaluation.report import to_json
from cig.evaluation.score import evaluate
from cig.io.digests import file_digest
from cig.io.outputs import write_json_output
from cig.pipelines._composition import labelled, subset_scores
from cig.runtime import versions
from cig.types import Report


@dataclass(frozen=True)
class ScoredRun:
    report: Report
    notes: tuple[str, ...]  # what is odd about the run
    subsets: str = ""  # a table of scores on subsets of the queries, where there are labels


def score_run(data: Data, paths: Sequence[Path], json: Path | None = None, *, circus: Path | None = None) -> ScoredRun:
    """Score a run's files; write the fields of `cig evaluate --json` where asked for.

    Raises:
        UsageError: the split's targets are hidden.
        InputError, MismatchError: a file that is not a run of this benchmark.
    """
    parts = data.load("val")
    if any(part.hidden for part in parts):
        raise UsageError(f"the targets of {parts[0].name} are hidden; send the file to its server, or score val")
    labels = labelled(circus, parts)
    run = read_given_run(paths, parts)
    report = evaluate(run.parts, run.rankings)
    scored = subset_scores(labels, run.parts, run.rankings)
    if json:
        made_of = {str(path): file_digest(path) for path in paths}
        content = to_json(report, "a given run", [], provenance={"versions": versions(), "run": made_of})
        further = {"circus": scored.facts} if scored.scores else {}
        write_json_output(json, {**content, "notes": list(run.notes), **further})
    return ScoredRun(report, run.notes, scored.text)
