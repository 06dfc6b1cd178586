"""The verbs of the walk: extract, generate, evaluate, submit, run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cig.cli.flags import (
    GENERATE,
    ComposeFlags,
    ComputeFlags,
    DataFlags,
    Flag,
    GenerateFlags,
    Name,
    RunSearchFlags,
    SearchFlags,
    TargetFlags,
    WorkFlags,
    at_least_1,
)


def extract(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compose: ComposeFlags = ComposeFlags(),
    generator: Annotated[str, Parameter(group=GENERATE)] = "sdxl",
    compute: ComputeFlags = ComputeFlags(),
    work: WorkFlags = WorkFlags(),
    text_embeddings_dir: Path | None = None,
    batch_size: int = 4,
) -> None:
    """Reference + caption -> composed embeddings, one {id}.pt a query (CIG, stage 1).

    Parameters
    ----------
    generator
        As in generate: with sdxl/icons, the defaults of compose's flags are what conditions that one.
    text_embeddings_dir
        Where the files go. Default: ./outputs/embeddings/NAME_SPLIT.
    """
    from cig.pipelines import pipeline

    asked = data.asked(benchmark, "cirr")
    pipeline.extract(asked, compute.asked(batch_size), compose.asked(), text_embeddings_dir, work.asked())


def generate(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    generator: GenerateFlags = GenerateFlags(),
    compute: ComputeFlags = ComputeFlags(),
    work: WorkFlags = WorkFlags(),
    text_embeddings_dir: Path | None = None,
    save_path: Path | None = None,
    batch_size: int = 4,
    retry_rejected: Annotated[bool, Flag] = False,
) -> None:
    """Composed embeddings -> pseudo-targets, one picture a query (CIG, stage 2). A rerun goes on where it stopped.

    Parameters
    ----------
    text_embeddings_dir
        What `cig extract` wrote, or published files. Default: ./outputs/embeddings/NAME_SPLIT.
    save_path
        Where pictures go. Default: ./outputs/generated_images/NAME_SPLIT.
    batch_size
        Pictures at once; halved where they do not fit into memory.
    retry_rejected
        Go on with the next seeds for queries without an accepted picture.
    """
    from cig.pipelines import pipeline

    pipeline.generate(
        data.asked(benchmark, "cirr"),
        compute.asked(batch_size),
        generator.asked(),
        embeddings=text_embeddings_dir,
        out=save_path,
        work=work.asked(retry_rejected),
    )


def evaluate(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    search: SearchFlags = SearchFlags(),
    targets: TargetFlags = TargetFlags(),
    compute: ComputeFlags = ComputeFlags(),
    gallery: Literal["full", "val"] | None = None,
    batch_size: int = 32,
    json: Path | None = None,
    rankings: Path | None = None,
    report: Annotated[tuple[Path, ...], Flag] = (),
    run: Path | None = None,
    qrels: Path | None = None,
) -> None:
    """Search a benchmark whose targets are public, and score it by the official protocol.

    Parameters
    ----------
    gallery
        FashionIQ: all names of the split file (full, the default), or the union of references and targets (val).
    json
        Write scores, intervals, per-query values, what was missing and provenance here.
    rankings
        Write the first 50 names of each query here.
    report
        Write a page with pictures (FILE.html) or a Markdown summary (FILE.md) here; may be given twice.
    run
        Write the rankings as a TREC run here, for other tools and `cig compare`.
    qrels
        Write the judgements as TREC qrels here.
    """
    from cig.pipelines import pipeline

    asked = data.asked(benchmark, None, gallery)
    pipeline.evaluate(asked, compute.asked(batch_size), search.asked(targets), json, rankings, report, run, qrels)


def submit(
    benchmark: Name = None,
    /,
    *,
    submission_name: str,
    data: DataFlags = DataFlags(),
    search: SearchFlags = SearchFlags(),
    targets: TargetFlags = TargetFlags(),
    compute: ComputeFlags = ComputeFlags(),
    batch_size: int = 32,
    output_dir: Path | None = None,
    rankings: Path | None = None,
    report: Annotated[tuple[Path, ...], Flag] = (),
    run: Path | None = None,
    json: Path | None = None,
    allow_missing: Annotated[bool, Flag] = False,
) -> None:
    """Search a benchmark whose targets are hidden, and write the official server's files.

    Parameters
    ----------
    submission_name
        NAME.json, and for CIRR subset_NAME.json.
    output_dir
        Where they go. Default: ./outputs/submissions/DATASET.
    rankings
        Write the first 50 names of each query here, too.
    report
        Write a page with pictures (FILE.html) here.
    run
        Write the rankings as a TREC run here.
    json
        Write protocol, branches, what was missing and provenance here.
    allow_missing
        Rank queries without a reference by their caption alone, and name them in NAME.missing.json.
    """
    from cig.pipelines import pipeline

    paths = pipeline.submit(
        data.asked(benchmark),
        compute.asked(batch_size),
        search.asked(targets),
        submission_name,
        output_dir,
        rankings,
        allow_missing,
        report,
        run,
        json,
    )
    print("\n".join(map(str, paths)))


def run(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compose: ComposeFlags = ComposeFlags(),
    generator: GenerateFlags = GenerateFlags(),
    search: RunSearchFlags = RunSearchFlags(),
    compute: ComputeFlags = ComputeFlags(),
    out: Path | None = None,
    submission_name: str | None = None,
    gallery: Literal["full", "val"] | None = None,
    batch_size: int = 4,
    search_batch_size: int = 32,
    retry_rejected: Annotated[bool, Flag] = False,
    overwrite: Annotated[bool, Flag] = False,
    allow_missing: Annotated[bool, Flag] = False,
) -> None:
    """Everything in one process: compose, imagine, search, and evaluate (or write the official files). Resumable.

    Parameters
    ----------
    out
        pseudo_targets/, features/, scores.json, rankings.json, report.html, report.md; for hidden splits submission/
        and record.json.
        Default: ./outputs/runs/NAME_SPLIT.
    submission_name
        For hidden splits: submission/NAME.json. Default: the benchmark's name.
    gallery
        FashionIQ: all names of the split file (full, the default), or the union of references and targets (val).
    batch_size
        Pictures imagined at once; halved where they do not fit into memory.
    search_batch_size
        Pictures embedded at once.
    retry_rejected
        Go on with the next seeds for queries without an accepted picture.
    overwrite
        Imagine everything again, with other settings if need be.
    allow_missing
        For hidden splits: rank queries without a reference by their caption alone, and name them.
    """
    from cig.pipelines import pipeline
    from cig.runtime import Work

    at_least_1("--search-batch-size", search_batch_size)
    pipeline.run(
        data.asked(benchmark, "cirr", gallery),
        compute.asked(batch_size),
        compose.asked(),
        generator.asked(),
        search.asked(),
        out,
        submission_name,
        search_batch_size,
        Work(overwrite=overwrite, retry_rejected=retry_rejected),
        allow_missing,
    )
