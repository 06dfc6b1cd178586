"""The command line: a verb -> the pipeline's function. Each signature gives the flags; underscores and dashes are one.

The flags of the published scripts are among them, so their command lines work with only the script's name replaced.
A flag that is not given is looked up by its group's name in the environment and in cig.toml (see settings.py).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, Parameter, Token

from cig import settings
from cig.errors import CigError, IncompleteError, UsageError
from cig.flags import (
    ComposeFlags,
    ComputeFlags,
    ContestFlags,
    DataFlags,
    FindFlags,
    Flag,
    GenerateFlags,
    ImagineFlags,
    Name,
    RunSearchFlags,
    SearchFlags,
    TargetFlags,
    WorkFlags,
    at_least_1,
)

app = App(
    name="cig",
    help="Composed image retrieval: a picture and a sentence find the picture you mean.",
    help_epilogue="Every verb takes --debug, which shows the traceback of an error.",
    version=lambda: metadata.version("cig"),
    suppress_keyboard_interrupt=False,
)


@app.command
def extract(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compose: ComposeFlags = ComposeFlags(),
    compute: ComputeFlags = ComputeFlags(),
    work: WorkFlags = WorkFlags(),
    text_embeddings_dir: Path | None = None,
    batch_size: int = 4,
) -> None:
    """Reference + caption -> composed embeddings, one {id}.pt a query (CIG, stage 1).

    Parameters
    ----------
    text_embeddings_dir
        Where the files go. Default: ./outputs/embeddings/NAME_SPLIT.
    """
    from cig import pipeline

    asked = data.asked(benchmark, "cirr")
    pipeline.extract(asked, compute.asked(batch_size), compose.asked(), text_embeddings_dir, work.asked())


@app.command
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
    from cig import pipeline

    pipeline.generate(
        data.asked(benchmark, "cirr"),
        compute.asked(batch_size),
        generator.asked(),
        embeddings=text_embeddings_dir,
        out=save_path,
        work=work.asked(retry_rejected),
    )


@app.command
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
    from cig import pipeline

    asked = data.asked(benchmark, None, gallery)
    pipeline.evaluate(asked, compute.asked(batch_size), search.asked(targets), json, rankings, report, run, qrels)


@app.command
def compare(
    *inputs: str,
    data: DataFlags = DataFlags(),
    contest: ContestFlags = ContestFlags(),
    compute: ComputeFlags = ComputeFlags(),
    gallery: Literal["full", "val"] | None = None,
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
    from cig import pipeline

    runs = [Path(own) for own in inputs if own.endswith(".run") or Path(own).is_file()]
    if runs and len(runs) == len(inputs):
        if not qrels:
            raise UsageError("runs are compared by judgements: give them with --qrels FILE")
        pipeline.compare_runs(runs, qrels, [contest.measure] if contest.measure else (), json)
        return
    if len(inputs) > 1:
        raise UsageError(f"give one benchmark, or files of runs; found {', '.join(inputs)}")
    asked = data.asked(inputs[0] if inputs else None, None, gallery)
    pipeline.compare(asked, compute.asked(batch_size), contest.asked(), contest.feature_cache, json, report)


@app.command
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
    allow_missing
        Rank queries without a reference by their caption alone, and name them in NAME.missing.json.
    """
    from cig import pipeline

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
    )
    print("\n".join(map(str, paths)))


@app.command
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
        pseudo_targets/, features/, scores.json, rankings.json, report.html, report.md; for hidden splits submission/.
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
    from cig import pipeline
    from cig.options import Work

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


@app.command
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
    search: FindFlags = FindFlags(),
    compose: ImagineFlags = ImagineFlags(),
    generator: GenerateFlags = GenerateFlags(),
    compute: ComputeFlags = ComputeFlags(),
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
    from cig import pipeline
    from cig.options import Finding

    at_least_1("-k", k)
    asked = Finding(gallery, image, text, without, without_weight, k, name, metadata, where, keep_reference, imagine)
    models = search.asked(), compose.asked(), generator.asked()
    pipeline.find(asked, compute.asked(batch_size), *models, json, html, sys.stdin if asked.from_lines else ())


@app.command
def plan(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compose: ComposeFlags = ComposeFlags(),
    generator: GenerateFlags = GenerateFlags(),
    search: RunSearchFlags = RunSearchFlags(),
    compute: ComputeFlags = ComputeFlags(),
    out: Path | None = None,
    batch_size: int = 4,
) -> None:
    """What `cig run` with the same flags would take: pictures, disk, memory, hours, and whether the device fits.

    Parameters
    ----------
    out
        Where the run would write. Default: ./outputs/runs/NAME_SPLIT.
    batch_size
        Pictures imagined at once.
    """
    from cig import pipeline

    asked = data.asked(benchmark, "cirr"), compute.asked(batch_size), compose.asked(), generator.asked()
    if not pipeline.plan(*asked, search.asked(), out):
        raise IncompleteError("this run does not fit on this machine as asked")


@app.command
def trial(
    pictures: Path,
    /,
    *,
    queries: Path | None = None,
    generated_image_dir: Path | None = None,
    compose: ComposeFlags = ComposeFlags(),
    generator: GenerateFlags = GenerateFlags(),
    search: RunSearchFlags = RunSearchFlags(),
    compute: ComputeFlags = ComputeFlags(),
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
    from cig import pipeline
    from cig.options import Work
    from cig.trial import Trying

    if result:
        pipeline.trial_result(out or pipeline.trial_folder(pictures))
        return
    at_least_1("--top", top)
    at_least_1("--search-batch-size", search_batch_size)
    searching = replace(search.asked(), pseudo_targets=generated_image_dir)
    trying = Trying(pictures, queries, searching, compose.asked(), generator.asked(), top)
    asked, work = compute.asked(batch_size), Work(retry_rejected=retry_rejected)
    pipeline.trial(trying, asked, out, search_batch_size, work, port, browse)


@app.command
def check(benchmark: Name = None, /, *, data: DataFlags = DataFlags(), compute: ComputeFlags = ComputeFlags()) -> None:
    """What of a dataset is missing, unreadable or double, and on how many queries an evaluation would stand."""
    from cig import pipeline

    pipeline.check(data.asked(benchmark), compute.asked(1))


@app.command
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
    from cig import pipeline

    pipeline.validate_submission(file, dataset_path)


@app.command
def cache(folder: Path | None = None, /, *, clear: Annotated[bool, Flag] = False) -> None:
    """Shows what a feature cache holds, or empties it.

    Parameters
    ----------
    folder
        Default: feature_cache of cig.toml's [search], or CIG_SEARCH_FEATURE_CACHE.
    clear
        Forget everything. It can all be computed again.
    """
    from cig.cache import FeatureCache, summary

    known = settings.value("search", "feature_cache")
    place = folder or (Path(known.value) if known else None)
    if place is None:
        raise UsageError("which cache? Give its folder: cig cache FOLDER")
    print(summary(place))
    if clear:
        FeatureCache(place).clear()
        print("cleared")


@app.command
def config(*words: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """What is in force, and where each value came from: a flag, the environment, cig.toml, or the default.

    Parameters
    ----------
    words
        A verb with its flags, to see what that call would use: cig config run cirr/val --method lincir.
    """
    _in_force.clear()
    app.parse_args(list(words) or ["run"])
    places = {} if words else {key: settings.place_of(key) for key in settings.PLACES}
    lines = list({**places, **_in_force}.items())
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name:{width}}  {found.value:44}  {found.source}" for name, found in lines))


_in_force: dict[str, settings.Setting] = {}  # of the call in hand


def _fill_in(_: App, commands: tuple[str, ...], arguments: Any) -> None:
    """Flags that were not given take their value from the environment or cig.toml, where their group is a table."""
    for argument in arguments:
        table = next((group.name for group in argument.parameter.group or () if group.name in settings.TABLES), None)
        if not table or argument.children:
            continue
        flag = argument.names[0]
        key = flag.removeprefix("--").replace("-", "_").removeprefix("search_").removeprefix("compose_")
        if not argument.tokens and (found := settings.value(table, key)):
            argument.append(Token(keyword=flag, value=found.value, source=found.source))
            _in_force[f"{table}.{key}"] = found
        elif argument.tokens:
            _in_force[f"{table}.{key}"] = settings.Setting(argument.tokens[0].value, flag)
        else:
            _in_force[f"{table}.{key}"] = settings.Setting(str(argument.field_info.default), "default")


app.config = (_fill_in,)


def main(argv: list[str] | None = None) -> None:
    """Exit codes: 0 done, 1 a failed run, 2 a wrong call, 130 Ctrl-C. No traceback for a user's mistake."""
    from cig.runtime import is_out_of_memory, stops_between_batches

    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        with stops_between_batches():
            app([argument for argument in arguments if argument != "--debug"])
    except CigError as error:
        if debug:
            raise
        _end(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        how_far = str(stop) or "interrupted"
        _end(f"{how_far}; what was finished is kept, and a rerun goes on from there", 130)
    except (RuntimeError, MemoryError) as error:
        if debug or not is_out_of_memory(error):
            raise
        _end(f"{str(error).splitlines()[0]}\n{MEMORY}", 1)


MEMORY = (
    "Out of memory: lower --batch-size (run: --search-batch-size, too), or --workers if the machine's own ran out; in "
    "generate and run also --offload model, --vae-slicing, --attention-slicing, a smaller --height and --width. "
    "What was finished is kept, and a rerun goes on from there"
)


def _end(message: str, code: int) -> NoReturn:
    print(f"cig: {message}", file=sys.stderr)
    raise SystemExit(code) from None
