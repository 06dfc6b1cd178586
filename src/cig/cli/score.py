"""The command that scores anyone's run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cig.cli.flags import DataFlags, Gallery, output_file
from cig.errors import IncompleteError, UsageError
from cig.io import outputs
from cig.runtime import say


def score(
    benchmark: str,
    /,
    *files: Path,
    data: DataFlags = DataFlags(),
    gallery: Gallery = None,
    circus: Path | None = None,
    json: Annotated[Path | None, output_file(outputs.SCORES)] = None,
) -> None:
    """Score a run that another program made, by the benchmark's official protocol. It needs no model and no picture.

    Parameters
    ----------
    benchmark
        NAME or NAME/SPLIT, of a split whose targets are public: cirr/val.
    files
        A TREC run, the JSON of --rankings, or a file in the form of a submission; of CIRR, that of the subsets, too.
    gallery
        FashionIQ: all names of the split file (full, the default), or the union of references and targets (val).
    circus
        CIRCUS's labels, a folder or a CSV file (cig download circus): also the scores of queries without a shortcut.
    json
        Write scores, intervals and per-query values here.
    """
    from cig.evaluation.report import to_text
    from cig.pipelines.score import score_run

    if not files:
        raise UsageError("which run? Give its file: cig score cirr/val FILE")
    scored = score_run(data.named(benchmark, None, gallery), files, json, circus=circus)
    print(to_text(scored.report))
    if scored.subsets:
        print(scored.subsets)
    for note in scored.notes:
        say(note)
    lacking = sum(map(len, scored.report.missing.get("lists", {}).values()))
    if lacking:
        raise IncompleteError(f"queries that the run has no list of, which score 0: {lacking}")
