"""The commands that inspect: a dataset's files, its numbers, a submission."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cig.cli.flags import (
    ComputeFlags,
    DataFlags,
    Flag,
    Gallery,
    Name,
    computing,
    output_file,
)
from cig.io import outputs
from cig.runtime import Compute


def check(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compute: ComputeFlags = Compute(),
    json: Annotated[Path | None, output_file(outputs.CHECKUPS)] = None,
) -> None:
    """What of a dataset is missing, broken or odd, what mends it, and on how many queries an evaluation would stand.

    Parameters
    ----------
    json
        Write the findings here, with every name.
    """
    from cig.benchmarks._check import picture_set, to_text
    from cig.pipelines.check import check, need_whole

    checkups = check(data.named(benchmark), computing(compute, 1), json=json)
    for checkup in checkups:
        print(to_text(checkup))
    print(f"picture set {picture_set(checkups)}")
    need_whole(checkups)


def stats(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compute: ComputeFlags = Compute(),
    gallery: Gallery = None,
    no_pictures: Annotated[bool, Flag] = False,
    json: Annotated[Path | None, output_file(outputs.STATS)] = None,
) -> None:
    """What a benchmark is made of: sizes, lengths of captions, prompts over 77 tokens, repetitions, near-duplicates.

    Parameters
    ----------
    gallery
        FashionIQ: all names of the split file (full, the default), or the union of references and targets (val).
    no_pictures
        Annotations alone: no picture is read, and near-duplicates are not looked for.
    json
        Write the numbers here, with every name.
    """
    from cig.benchmarks._describe import to_text
    from cig.pipelines.check import need_galleries, stats

    queries = data.named(benchmark, None, gallery)
    described = stats(queries, computing(compute, 1), json=json, pictures=not no_pictures)
    print("\n\n".join(map(to_text, described)))
    need_galleries(queries)


def validate_submission(
    file: Path,
    /,
    *,
    dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None,
    split: str | None = None,
) -> None:
    """Whether the official server would take a file (CIRR test1, CIRCO test and val), and if not, why.

    Parameters
    ----------
    file
        What `cig submit` wrote, or anyone's. Which split and metric it is for is told by its keys.
    dataset_path
        The dataset's folder, to check names, references and subset membership, too.
    split
        Which split it is for: circo/val, or val. Default: what its keys, queries and their number fit best.
    """
    from cig.pipelines.check import validate_submission

    print(validate_submission(file, dataset_path, split))
