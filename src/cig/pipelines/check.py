"""Check a dataset, describe a benchmark, validate a submission: what data is good for, before anything is run on it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from cig.benchmarks import Data
from cig.benchmarks._check import BY_HAND, Checkup
from cig.benchmarks._check import check as check_part
from cig.benchmarks._check import to_json as checkups_to_json
from cig.benchmarks._describe import Stats, to_json
from cig.benchmarks._describe import stats as describe_part
from cig.errors import IncompleteError
from cig.io.outputs import write_json_output
from cig.runtime import Compute
from cig.types import Benchmark


def check(data: Data, compute: Compute, *, json: Path | None = None) -> list[Checkup]:
    """What is missing, broken or odd in each part, what mends it, and on how many queries an evaluation would stand."""
    checkups = [check_part(part, compute.num_workers, _mend(data, part)) for part in data.load("val")]
    if json:
        write_json_output(json, checkups_to_json(checkups), indent=1)
    return checkups


def need_whole(checkups: list[Checkup]) -> None:
    """Raise IncompleteError unless every part is complete."""
    lacking = [checkup.title for checkup in checkups if not checkup.whole]
    if lacking:
        raise IncompleteError(f"incomplete: {', '.join(lacking)}; results on it say so, and are not comparable")


def stats(data: Data, compute: Compute, *, json: Path | None = None, pictures: bool = True) -> list[Stats]:
    """Sizes, lengths, repetitions and oddities of every part, and, with pictures, near-duplicates."""
    oddities = getattr(data.module, "ODDITIES", ())
    described = [describe_part(part, oddities, pictures, workers=compute.num_workers) for part in data.load("val")]
    if json:
        write_json_output(json, {part.part: to_json(part) for part in described}, indent=1)
    return described


def need_galleries(data: Data) -> None:
    """Raise IncompleteError where a gallery's list is missing (its pictures were only found), or has no picture."""
    lacking = {_mend(data, part): str(part.missing_list) for part in data.load("val") if part.missing_list}
    if lacking:
        raise IncompleteError(f"incomplete, for lack of {', '.join(lacking.values())}. To get it: {'; '.join(lacking)}")
    empty = [part.title for part in data.load("val") if not part.gallery]
    if empty:
        raise IncompleteError(f"no picture is in the gallery of {', '.join(empty)}; {BY_HAND}")


def _mend(data: Data, part: Benchmark) -> str:
    """What the benchmark says that brings its pictures, into the folder that is checked."""
    mend: Callable[[Benchmark], str] = getattr(data.module, "mend", lambda part: BY_HAND)
    folder = f" --dataset-path {shlex.quote(str(data.dataset_path))}" if data.dataset_path else ""
    return mend(part) + (folder if mend(part).startswith("cig ") else "")


def validate_submission(path: Path, dataset: Path | None = None, split: str | None = None) -> str:
    """Which submission a file is, in words, if the official server would take it.

    Raises:
        IncompleteError: it would not; every problem is named.
    """
    from cig.evaluation.submissions import validate
    from cig.pipelines._models import first_of

    form, problems = validate(path, dataset, split)
    what = " ".join(filter(None, (form.benchmark, form.metric)))
    if problems:
        raise IncompleteError("\n  ".join([f"{path} is no valid submission for {what}:", *first_of(problems)]))
    names = "checked against the dataset" if dataset else "not checked: give the dataset with --dataset-path"
    return f"{path} is a valid submission for {what}; names, references and subsets: {names}"
