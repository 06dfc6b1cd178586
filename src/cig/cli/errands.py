"""The verbs beside the walk: compare, search, trial, plan, check, stats, validate-submission."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cig.cli.flags import (
    Branches,
    ComposeFlags,
    ComputeFlags,
    ContestFlags,
    DataFlags,
    Flag,
    Gallery,
    GenerateFlags,
    GeneratorName,
    Name,
    RunSearchFlags,
    SearchFlags,
    computing,
    prefixed,
    without,
)
from cig.config import DEFAULT_GENERATOR
from cig.errors import IncompleteError, UsageError, at_least_1
from cig.generators import Composing, Generation
from cig.retrieval.requests import Searching
from cig.runtime import Compute, say


def demo(
    *,
    full: Annotated[bool, Flag] = False,
    query: str | None = None,
    text: str | None = None,
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 20,
    out: Path = Path("outputs/demo"),
    compute: ComputeFlags = Compute(),
    batch_size: int = 256,
) -> None:
    """Composed retrieval over icons, with what the package ships: no network, nothing of yours, two minutes.

    Prints the table of methods on icons/val and writes a page; with --query and --text, answers one search.

    Parameters
    ----------
    full
        All queries of icons/val, not the first 400.
    query
        An icon to start from: folder, tabler/folder, tabler/folder.orange.
    text
        What should be different: "has a plus badge".
    k
        How many icons a search shows.
    out
        Gets report.html and scores.json, or query.html; pseudo-targets and features, which a rerun does not make again.
    batch_size
        Pictures embedded at once.
    """
    from cig.pipelines import demo as room
    from cig.pipelines.search import to_text

    compute = computing(compute, batch_size)
    if query is not None or text is not None:
        if not query or query.isspace():
            raise UsageError("which icon should it start from? Name it with --query: --query folder")
        if not text or text.isspace():
            raise UsageError('what should be different? Say it with --text: --text "has a plus badge"')
        at_least_1("-k", k)
        print(to_text(room.ask(query, text, out, k=k, compute=compute).hits))
    else:
        print(room.to_text(room.run(out, full, compute)))


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

    runs = [Path(own) for own in inputs if own.endswith(".run") or os.path.isfile(own)]
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
    asked = data.named(inputs[0] if inputs else None, None, gallery)
    comparing, cache = contest.asked(asked.name), contest.feature_cache
    comparison = compare(asked, computing(compute, batch_size), comparing, cache=cache, json=json, reports=report)
    for row in comparison.rows if comparing.sweep else ():
        if row.branch:
            say(f"{row.method} + {row.branch}: the reference weighs {1 - row.weight:.2f}, {row.source}")
    print(to_text(comparison))


def search(
    *,
    gallery: Path,
    image: Annotated[tuple[Path, ...], Flag] = (),
    text: str = "",
    without: str = "",
    without_weight: float = 0.3,
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 10,
    name: Annotated[tuple[str, ...], Flag] = (),
    metadata: Path | None = None,
    where: Annotated[tuple[str, ...], Flag] = (),
    keep_reference: Annotated[bool, Flag] = False,
    imagine: Annotated[bool, Flag] = False,
    html: Path | None = None,
    json: Path | None = None,
    search: Annotated[SearchFlags, without("frozen_weights")] = Searching(),
    compose: Annotated[ComposeFlags, prefixed("compose")] = Composing(),
    generator: GeneratorName = DEFAULT_GENERATOR,
    generation: GenerateFlags = Generation(),
    compute: ComputeFlags = Compute(),
    batch_size: int = 32,
) -> None:
    """Composed search over a folder of your own: a picture and a sentence find the picture you mean.

    Without --image and --text, searches are read line by line: TEXT, or PICTURE | TEXT, or PICTURE | TEXT | WITHOUT.

    Parameters
    ----------
    gallery
        The folder; pictures in all folders below it are searched.
    image
        What it should look like; may be given several times, which is averaged.
    text
        What should be different, or, without an image, what it should show.
    without
        What should not be in it.
    without_weight
        How much of that is taken away; 0 is nothing.
    k
        How many are shown.
    name
        Only pictures whose path below the folder matches: --name "dresses/*". Several: any of them.
    metadata
        A table about the pictures (CSV, JSON, JSONL, Parquet) with a column name, for --where.
    where
        A condition on its columns: "price<50", "colour=red", "title~summer". Several: all of them.
    keep_reference
        Show a picture that is asked with, too, if it is in the folder.
    imagine
        Imagine a pseudo-target of the first image and the text, and search with it, too: needs SDXL and two phis.
    html
        Write a page with the pictures here.
    json
        Write the hits here.
    batch_size
        Pictures embedded at once, when the folder is new or changed.
    """
    from cig.pipelines.search import FolderSearch, answers, find, open_gallery, to_text

    at_least_1("-k", k)
    finding = FolderSearch(
        gallery, image, text, without, without_weight, k, name, metadata, where, keep_reference, imagine
    )
    if finding.from_lines and (json or html):
        raise UsageError("--json and --html are of one search: give --image or --text with them, not lines")
    lookup = open_gallery(finding, computing(compute, batch_size), search, composing=compose, generation=generation)
    for note in lookup.notes():
        say(note)
    if not finding.from_lines:
        print(to_text(find(lookup, compose, generation, json=json, html=html).hits))
        return
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # so that one line of another encoding does not end the others
    for _, hits, seconds in answers(lookup, sys.stdin):
        print(to_text(hits), flush=True)
        say(f"{seconds:.3f} s")


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
    out: Path | None = None,
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
    from cig.cli.branch_flags import asked_branches
    from cig.pipelines.plan import plan

    text, fits = plan(
        data.named(benchmark, "cirr"),
        computing(compute, batch_size),
        compose,
        generation=generation,
        searching=replace(search, branches=asked_branches(branch)),
        out=out,
    )
    print(text)
    if not fits:
        raise IncompleteError("this run does not fit on this machine as asked")


def trial(
    pictures: Path,
    /,
    *,
    queries: Path | None = None,
    generated_image_dir: Path | None = None,
    compose: ComposeFlags = Composing(),
    generator: GeneratorName = DEFAULT_GENERATOR,
    generation: GenerateFlags = Generation(),
    search: RunSearchFlags = Searching(),
    branch: Branches = (),
    compute: ComputeFlags = Compute(),
    out: Path | None = None,
    top: int = 6,
    batch_size: int = 4,
    search_batch_size: int = 32,
    retry_rejected: Annotated[bool, Flag] = False,
    port: int = 0,
    browse: Annotated[bool, Parameter(name="--open", negative="")] = False,
    result: Annotated[bool, Flag] = False,
) -> None:
    """Do pseudo-targets help on your pictures? A blind vote on a local page: lists with them and without. Resumable.

    Parameters
    ----------
    pictures
        The folder that is searched, with everything below it (see docs/folder.md).
    queries
        A CSV file with the columns reference and caption. Default: queries.csv in the folder.
    generated_image_dir
        Pseudo-targets that exist, by the query's id. Default: they are made, with the flags of `cig run`.
    out
        trial.json, votes.jsonl, result.json; pseudo_targets/, features/. Default: ./outputs/trials/NAME.
    top
        Pictures a list.
    batch_size
        Pictures imagined at once; halved where they do not fit into memory.
    search_batch_size
        Pictures embedded at once.
    retry_rejected
        Go on with the next seeds for queries without an accepted picture.
    port
        Of the page. Default: any that is free.
    browse
        Open the page in this machine's browser.
    result
        Print what was voted so far, and serve no page.
    """
    from cig.cli.branch_flags import asked_branches
    from cig.pipelines.trial.run import trial, trial_folder, trial_result
    from cig.pipelines.trial.trial import TrialRequest
    from cig.runtime import Work

    if result:
        print("\n".join(trial_result(out or trial_folder(pictures)).words))
        return
    at_least_1("--top", top)
    at_least_1("--search-batch-size", search_batch_size)
    searching = replace(search, pseudo_targets=generated_image_dir, branches=asked_branches(branch))
    trying = TrialRequest(pictures, queries, searching, compose, generation, top)
    compute, work = computing(compute, batch_size), Work(retry_rejected=retry_rejected)
    verdict = trial(trying, compute, out, search_batch=search_batch_size, work=work, port=port, browse=browse)
    print("\n".join(verdict.words))


def check(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compute: ComputeFlags = Compute(),
    json: Path | None = None,
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
    json: Path | None = None,
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
    from cig.pipelines.check import need_lists, stats

    queries = data.named(benchmark, None, gallery)
    described = stats(queries, computing(compute, 1), json=json, pictures=not no_pictures)
    print("\n\n".join(map(to_text, described)))
    need_lists(queries)


def validate_submission(
    file: Path, /, *, dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None
) -> None:
    """Whether the official server would take a file (CIRR test1, CIRCO test and val), and if not, why.

    Parameters
    ----------
    file
        What `cig submit` wrote, or anyone's. Which split and metric it is for is told by its keys.
    dataset_path
        The dataset's folder, to check names, references and subset membership, too.
    """
    from cig.pipelines.check import validate_submission

    print(validate_submission(file, dataset_path))
