"""The command that compares: a table of methods and branches, or TREC runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cig.cli.flags import (
    ComputeFlags,
    ContestFlags,
    DataFlags,
    Flag,
    Gallery,
    computing,
)
from cig.errors import UsageError
from cig.runtime import Compute, say


def compare(
    *inputs: str,
    data: DataFlags = DataFlags(),
    contest: ContestFlags = ContestFlags(),
    compute: ComputeFlags = Compute(),
    gallery: Gallery = None,
    batch_size: int = 32,
    qrels: Path | None = None,
    json: Path | None = None,
    report: Annotated[tuple[Path, ...], Flag] = (),
) -> None:
    """The table of the field: methods, each alone and with each branch, with intervals, paired p and cost.

    Or TREC runs, each against the first: cig compare A.run B.run --qrels FILE.

    Parameters
    ----------
    inputs
        NAME or NAME/SPLIT of a benchmark; or two and more run files.
    gallery
        FashionIQ: all names of the split file (full, the default), or the union of references and targets (val).
    qrels
        For runs: the judgements.
    json
        Write all measures of all rows here.
    report
        Write the table as Markdown (FILE.md) here.
    """
    from cig.pipelines.compare import compare, compare_runs, to_text

    runs = [Path(name) for name in inputs if name.endswith(".run") or os.path.isfile(name)]
    if runs and len(runs) == len(inputs):
        if not qrels:
            raise UsageError("runs are compared by judgements: give them with --qrels FILE")
        if report:
            raise UsageError("--report is of a benchmark's table; what runs have is written by --json FILE")
        from cig.evaluation.trec_compare import to_text as runs_to_text

        print(runs_to_text(compare_runs(runs, qrels, [contest.measure] if contest.measure else (), json=json)))
        return
    if len(inputs) > 1:
        raise UsageError(f"give one benchmark, or files of runs; found {', '.join(inputs)}")
    if qrels:
        raise UsageError("--qrels goes with runs: cig compare A.run B.run --qrels FILE")
    benchmark = data.named(inputs[0] if inputs else None, None, gallery)
    comparing, cache = contest.comparing(benchmark.name), contest.feature_cache
    comparison = compare(benchmark, computing(compute, batch_size), comparing, cache=cache, json=json, reports=report)
    for row in comparison.rows if comparing.sweep else ():
        if row.branch:
            say(f"{row.method} + {row.branch}: the reference weighs {1 - row.weight:.2f}, {row.source}")
    print(to_text(comparison))
