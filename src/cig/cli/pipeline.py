"""The commands of the pipeline: extract, generate, evaluate, submit, run, and plan, which estimates a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cig.cli.flags import (
    GENERATE,
    OUTPUT_FOLDER,
    Branches,
    ComposeFlags,
    ComputeFlags,
    DataFlags,
    Flag,
    Gallery,
    GenerateFlags,
    GeneratorName,
    Name,
    RerankFlags,
    RunSearchFlags,
    SearchFlags,
    WorkFlags,
    computing,
    output_file,
)
from cig.cli.published_flags import TargetFlags
from cig.config import DEFAULT_GENERATOR
from cig.errors import IncompleteError, at_least_1
from cig.generators import Composing, Generation
from cig.io import outputs
from cig.retrieval.requests import Reranking, Searching
from cig.runtime import Compute, Work

if TYPE_CHECKING:
    from cig.pipelines._search_benchmark import Evaluation


def extract(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compose: ComposeFlags = Composing(),
    generator: Annotated[str, Parameter(group=GENERATE)] = DEFAULT_GENERATOR,
    compute: ComputeFlags = Compute(),
    work: WorkFlags = Work(),
    text_embeddings_dir: Annotated[Path | None, OUTPUT_FOLDER] = None,
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
    from cig.pipelines.extract import extract

    queries = data.named(benchmark, "cirr")
    extract(queries, computing(compute, batch_size), compose, out=text_embeddings_dir, work=work)


def generate(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    generator: GeneratorName = DEFAULT_GENERATOR,
    generation: GenerateFlags = Generation(),
    compute: ComputeFlags = Compute(),
    work: WorkFlags = Work(),
    text_embeddings_dir: Path | None = None,
    save_path: Annotated[Path | None, OUTPUT_FOLDER] = None,
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
    from cig.pipelines.generate import generate

    generate(
        data.named(benchmark, "cirr"),
        computing(compute, batch_size),
        generation,
        embeddings=text_embeddings_dir,
        out=save_path,
        work=replace(work, retry_rejected=retry_rejected),
    )


def evaluate(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    search: SearchFlags = Searching(),
    branch: Branches = (),
    targets: TargetFlags = TargetFlags(),
    rerank: RerankFlags = Reranking(),
    compute: ComputeFlags = Compute(),
    gallery: Gallery = None,
    batch_size: int = 32,
    circus: Path | None = None,
    json: Annotated[Path | None, output_file(outputs.SCORES)] = None,
    rankings: Annotated[Path | None, output_file(outputs.RANKINGS)] = None,
    report: Annotated[tuple[Path, ...], Flag, output_file(outputs.REPORT)] = (),
    run: Annotated[Path | None, output_file(outputs.TREC_RUN)] = None,
    qrels: Annotated[Path | None, output_file(outputs.TREC_QRELS)] = None,
) -> None:
    """Search a benchmark whose targets are public, and score it by the official protocol.

    Parameters
    ----------
    gallery
        FashionIQ: all names of the split file (full, the default), or the union of references and targets (val).
    circus
        CIRCUS's labels, a folder or a CSV file (cig download circus): also the scores of queries without a shortcut.
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
    from cig.pipelines._search_benchmark import Outputs
    from cig.pipelines.evaluate import evaluate

    outputs = Outputs(json, rankings, report, run=run, qrels=qrels)
    queries = data.named(benchmark, None, gallery)
    searching = rerank.joined(targets.completed(search, branch, queries))
    show(evaluate(queries, computing(compute, batch_size), searching, outputs=outputs, circus=circus))


def submit(
    benchmark: Name = None,
    /,
    *,
    submission_name: str,
    data: DataFlags = DataFlags(),
    search: SearchFlags = Searching(),
    branch: Branches = (),
    targets: TargetFlags = TargetFlags(),
    rerank: RerankFlags = Reranking(),
    compute: ComputeFlags = Compute(),
    batch_size: int = 32,
    output_dir: Annotated[Path | None, OUTPUT_FOLDER] = None,
    rankings: Annotated[Path | None, output_file(outputs.RANKINGS)] = None,
    report: Annotated[tuple[Path, ...], Flag, output_file(outputs.REPORT)] = (),
    run: Annotated[Path | None, output_file(outputs.TREC_RUN)] = None,
    json: Annotated[Path | None, output_file(outputs.SCORES)] = None,
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
    from cig.pipelines._search_benchmark import Outputs
    from cig.pipelines.submit import submit

    queries = data.named(benchmark)
    evaluation = submit(
        queries,
        computing(compute, batch_size),
        rerank.joined(targets.completed(search, branch, queries, default_split="test")),
        name=submission_name,
        out=output_dir,
        allow_missing=allow_missing,
        outputs=Outputs(json, rankings, report, run=run),
    )
    show(evaluation)
    print("\n".join(map(str, evaluation.submissions)))


def run(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compose: ComposeFlags = Composing(),
    generator: GeneratorName = DEFAULT_GENERATOR,
    generation: GenerateFlags = Generation(),
    search: RunSearchFlags = Searching(),
    branch: Branches = (),
    rerank: RerankFlags = Reranking(),
    compute: ComputeFlags = Compute(),
    out: Annotated[Path | None, OUTPUT_FOLDER] = None,
    submission_name: str | None = None,
    gallery: Gallery = None,
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
    from cig.cli.branch_flags import requested_branches
    from cig.pipelines.run import run
    from cig.runtime import Work, say

    at_least_1("--search-batch-size", search_batch_size)
    queries = data.named(benchmark, "cirr", gallery)
    out = out or queries.default_folder("runs", "val")
    evaluation = run(
        queries,
        computing(compute, batch_size),
        compose,
        generation=generation,
        searching=rerank.joined(replace(search, branches=requested_branches(branch, search, pseudo_targets=True))),
        out=out,
        name=submission_name,
        search_batch=search_batch_size,
        work=Work(overwrite=overwrite, retry_rejected=retry_rejected),
        allow_missing=allow_missing,
    )
    show(evaluation)
    say(f"{out / 'report.html'} shows the queries; scores, rankings and pseudo-targets are beside it")


def plan(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compose: ComposeFlags = Composing(),
    generator: GeneratorName = DEFAULT_GENERATOR,
    generation: GenerateFlags = Generation(),
    search: RunSearchFlags = Searching(),
    branch: Branches = (),
    compute: ComputeFlags = Compute(),
    out: Annotated[Path | None, OUTPUT_FOLDER] = None,
    batch_size: int = 4,
) -> None:
    """What `cig run` of the same would take: pictures, disk, memory, hours, and whether the device fits.

    Parameters
    ----------
    out
        Where the run would write. Default: ./outputs/runs/NAME_SPLIT.
    batch_size
        Pictures imagined at once.
    """
    from cig.cli.branch_flags import requested_branches
    from cig.pipelines.plan import plan

    text, fits = plan(
        data.named(benchmark, "cirr"),
        computing(compute, batch_size),
        compose,
        generation=generation,
        searching=replace(search, branches=requested_branches(branch, search, pseudo_targets=True)),
        out=out,
    )
    print(text)
    if not fits:
        raise IncompleteError("this run does not fit on this machine as asked")


def show(evaluation: Evaluation) -> None:
    """Print the scores, if there are any, and what they rest on.

    Raises:
        IncompleteError: queries that could not run, after everything was shown.
    """
    from cig.evaluation.report import notes, to_text
    from cig.pipelines._models import complain
    from cig.runtime import say

    report, search = evaluation.report, evaluation.search
    if report.scores:
        say(search.recipe)
        say(f"protocol: {', '.join(f'{key}: {value}' for key, value in report.protocol.items())}")
        print(to_text(report))
        if evaluation.subsets:
            print(evaluation.subsets)
        complain(search.missing_references, "could not run and score 0")
    elif evaluation.submissions:
        for line in (search.recipe, *notes(report.missing, report.unused)):
            say(line)
    else:
        say(f"{search.recipe}; nobody gave targets, so nothing is scored")
        complain(search.missing_references, "could not run")
