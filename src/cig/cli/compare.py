"""The command that compares: a table of methods and branches, or TREC runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cig.cli.flags import (
    ComputeFlags,
    DataFlags,
    Flag,
    Gallery,
    Several,
    computing,
    output_file,
)
from cig.errors import UsageError
from cig.io import outputs
from cig.retrieval.requests import Comparing
from cig.runtime import Compute, say


def compare(
    *inputs: str,
    data: DataFlags = DataFlags(),
    methods: Annotated[tuple[str, ...], Several, Parameter(alias="--method")] = (),
    branches: Annotated[tuple[str, ...], Several] = (),
    comparing: Annotated[Comparing, Parameter(name="*", negative="")] = Comparing(),
    clip: str | None = None,
    feature_cache: Path | None = None,
    compute: ComputeFlags = Compute(),
    gallery: Gallery = None,
    batch_size: int = 32,
    qrels: Path | None = None,
    json: Annotated[Path | None, output_file(outputs.COMPARISON, outputs.RUN_COMPARISON)] = None,
    report: Annotated[tuple[Path, ...], Flag, output_file(outputs.REPORT)] = (),
) -> None:
    """The table of the field: methods, each alone and with each branch, with intervals, paired p and cost.

    Of several benchmarks, one table of all comes first: cig compare cirr/val circo/val. Or TREC runs, each against the
    first: cig compare A.run B.run --qrels FILE.

    Parameters
    ----------
    inputs
        NAME or NAME/SPLIT of a benchmark, or of several; or two and more run files.
    methods
        Methods, each with its weights if they are yours: searle "lincir clip=DIR phi=FILE". Default: all that can be
        loaded (of icons, with the shipped weights); the others are named.
    branches
        Ready-made names (pseudo-target, reference-image, reference-augmented, reference-vae, shuffled, oracle), or
        branches as in `cig evaluate --branch`. Default: those that need nothing more, and with pseudo-targets all.
    clip
        A CLIP for the methods without a phi: hub id or folder.
    feature_cache
        A folder where features are kept.
    gallery
        FashionIQ: all names of the split file (full, the default), or the union of references and targets (val).
    qrels
        For runs: the judgements.
    json
        Write all measures of all rows here.
    report
        Write the tables here, as a page with scores against costs (FILE.html) or as Markdown (FILE.md).
    """
    from cig.cli.branch_flags import parse_comparing
    from cig.pipelines.compare import compare, compare_runs, tables_to_text
    from cig.retrieval.fusion_weight import to_reference_weight

    runs = [Path(name) for name in inputs if name.endswith(".run") or os.path.isfile(name)]
    if runs and len(runs) == len(inputs):
        if not qrels:
            raise UsageError("runs are compared by judgements: give them with --qrels FILE")
        if report:
            raise UsageError("--report is of a benchmark's table; what runs have is written by --json FILE")
        from cig.evaluation.trec_compare import to_text as runs_to_text

        print(runs_to_text(compare_runs(runs, qrels, [comparing.measure] if comparing.measure else (), json=json)))
        return
    if runs:
        raise UsageError(f"give benchmarks, or files of runs; found both: {', '.join(inputs)}")
    if qrels:
        raise UsageError("--qrels goes with runs: cig compare A.run B.run --qrels FILE")
    benchmarks = [data.named(name, None, gallery) for name in dict.fromkeys(inputs)] or [
        data.named(None, None, gallery)
    ]
    comparing = parse_comparing(methods, branches, comparing, clip=clip, family=benchmarks[0].family)
    compute = computing(compute, batch_size)
    tables = compare(benchmarks, compute, comparing, cache=feature_cache, json=json, reports=report)
    for row in tables.tables[0].rows if comparing.sweep else ():
        if row.branch:
            reference_weight = to_reference_weight([row.weight])
            say(f"{row.method} + {row.branch}: the reference weighs {reference_weight:.2f}, {row.source}")
    print(tables_to_text(tables))
