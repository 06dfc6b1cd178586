"""The command line: a verb -> the pipeline's function. Each signature gives the flags; underscores and dashes are one.

The flags of the published scripts are among them, so their command lines work with only the script's name replaced.
A flag that is not given is looked up by its group's name in the environment and in cig.toml (see settings.py).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, Group, Parameter, Token

from cig import settings
from cig.errors import CigError, IncompleteError, UsageError

app = App(
    name="cig",
    help="Composed image retrieval: a picture and a sentence find the picture you mean.",
    help_epilogue="Every verb takes --debug, which shows the traceback of an error.",
    version=lambda: metadata.version("cig"),
    suppress_keyboard_interrupt=False,
)

Name = Annotated[str | None, Parameter(help="NAME or NAME/SPLIT: cirr/val, circo/test, fashioniq.")]
Flag = Parameter(negative="")
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Preprocess = Literal["clip", "targetpad"]
# A group is a panel in --help, and a table in cig.toml
COMPUTE, COMPOSE, GENERATE, SEARCH = (Group(name, sort_key=i) for i, name in enumerate(settings.TABLES))


@Parameter(name="*")
@dataclass(frozen=True)
class DataFlags:
    dataset: str | None = None
    "The benchmark, where it is not given as the first argument: cirr, circo, fashioniq."
    split: str | None = None
    "The benchmark's split: train, val, test (CIRR: test1)."
    dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None
    "The dataset's own folder, or its parent. Default: ./datasets/NAME, or cig.toml's."
    categories: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = ()
    "FashionIQ: some of dress, shirt, toptee. Default: all."


@Parameter(name="*", group=COMPUTE)
@dataclass(frozen=True)
class ComputeFlags:
    device: str = "auto"
    "cuda, cuda:1, mps, cpu; auto takes a GPU where there is one."
    dtype: Dtype = "auto"
    "auto: what the paper used on a GPU, float32 on a CPU."
    num_workers: Annotated[int, Parameter(alias="--workers")] = 4
    "Threads that decode pictures."
    cache_dir: Path | None = None
    "The hub's cache."
    max_pixels: int = 2**28
    "Larger pictures are refused before they are decoded."


@Parameter(name="*", group=COMPOSE)
@dataclass(frozen=True)
class ComposeFlags:
    clip: str = "openai/clip-vit-large-patch14"
    "The first composing CLIP: hub id or folder."
    clip2: str = "Geonmo/CLIP-Giga-config-fixed"
    "The second one, whose pooled text the generator reads."
    phi: Path | None = None
    "The textual-inversion network of --clip. Default: ./models/phi_best.pt."
    phi2: Path | None = None
    "That of --clip2. Default: ./models/phi_best_giga.pt."
    preprocess_type: Preprocess = "clip"
    "clip is the published way of this stage."


@Parameter(name="*", group=GENERATE)
@dataclass(frozen=True)
class GenerateFlags:
    model_path: Path | None = None
    "A folder with unet/ in it, or a hub id. Default: ./models/sdxl_checkpoint."
    sdxl_repo: str = "stabilityai/stable-diffusion-xl-base-1.0"
    "The base pipeline, for its scheduler: hub id or folder."
    vae_repo: str = "madebyollin/sdxl-vae-fp16-fix"
    "A VAE that is safe in fp16: hub id or folder."
    height: int = 512
    width: int = 512
    steps: int = 50
    guidance_scale: float = 5.0
    "Classifier-free guidance, towards zero embeddings."
    seed: int = 1600
    seeds: Literal["published", "per-query"] = "published"
    "published: one seed for every query, + 1 a retry; per-query: derived from the query's id."
    brightness_thresh: float = 10.0
    "A picture whose mean pixel value (0..255) is not above it is made again."
    max_retries: int = 5
    "How often; then the query has no accepted picture, and is listed."
    offload: Literal["none", "model", "sequential"] = "none"
    "Move weights to the GPU when they are needed: whole models, or layer by layer (slow, least memory)."
    vae_slicing: Annotated[bool, Flag] = False
    "Decode one picture of a batch at a time."
    vae_tiling: Annotated[bool, Flag] = False
    "Decode large pictures in tiles, which are blended: pixels move."
    attention_slicing: Annotated[bool, Flag] = False
    "Less memory in attention, slower."


@Parameter(name="*", group=SEARCH)
@dataclass(frozen=True)
class SearchFlags:
    method: Annotated[str, Parameter(alias="--eval-type")] = "searle"
    "FAMILY[/VARIANT]: image, text, sum, searle, searle-xl, lincir, phi, or a module of your own."
    clip: str | None = None
    "A CLIP to search with: hub id or folder. With a phi, the two come together. Default: the variant's."
    phi: Path | None = None
    "The textual-inversion network that fits --clip. Default: the variant's, in ./models."
    preprocess_type: Preprocess | None = None
    "Default: the method's (searle targetpad, others clip)."
    fusion_weight: float | None = None
    "The reference's share, 0 to 1. Default: the published one of that benchmark and split."
    feature_cache: Path | None = None
    "A folder where features are kept: what was embedded once is not embedded again, and models load when needed."


@Parameter(name="*")
@dataclass(frozen=True)
class TargetFlags:
    generated_image_dir: Path | None = None
    "Pseudo-targets by query id; {category} stands for FashionIQ's categories."
    exp_name: str | None = None
    "With phi, as published: the folder ./data/phi_models/EXP-NAME."
    phi_checkpoint_name: str | None = None
    "With --exp-name: the file in its checkpoints folder."


@Parameter(name="*", group=SEARCH)
@dataclass(frozen=True)
class RunSearchFlags:
    method: Annotated[str, Parameter(alias="--eval-type")] = "searle"
    "FAMILY[/VARIANT]: image, text, sum, searle, searle-xl, lincir, phi, or a module of your own."
    search_clip: str | None = None
    "A CLIP to search with: hub id or folder. With a phi, the two come together. Default: the variant's."
    search_phi: Path | None = None
    "The textual-inversion network that fits --search-clip. Default: the variant's, in ./models."
    search_preprocess_type: Preprocess | None = None
    "Default: the method's (searle targetpad, others clip)."
    fusion_weight: float | None = None
    "The reference's share, 0 to 1. Default: the published one of that benchmark and split."
    feature_cache: Path | None = None
    "A folder where features are kept. Default: features/ in --out."


@Parameter(name="*")
@dataclass(frozen=True)
class WorkFlags:
    shard: str = "1/1"
    "I/N: do this share of the batches, counted from 1; shards may run side by side into one folder."
    overwrite: Annotated[bool, Flag] = False
    "Make everything again, with other settings if need be."


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

    asked = _data(benchmark, data, "cirr")
    pipeline.extract(asked, _compute(compute, batch_size), _composing(compose), text_embeddings_dir, _work(work))


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
        _data(benchmark, data, "cirr"),
        _compute(compute, batch_size),
        _generation(generator),
        embeddings=text_embeddings_dir,
        out=save_path,
        work=_work(work, retry_rejected),
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
    """
    from cig import pipeline

    asked = _data(benchmark, data, None, gallery)
    pipeline.evaluate(asked, _compute(compute, batch_size), _searching(search, targets), json, rankings, report)


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
    allow_missing
        Rank queries without a reference by their caption alone, and name them in NAME.missing.json.
    """
    from cig import pipeline

    paths = pipeline.submit(
        _data(benchmark, data, None),
        _compute(compute, batch_size),
        _searching(search, targets),
        submission_name,
        output_dir,
        rankings,
        allow_missing,
        report,
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

    _at_least_1("--search-batch-size", search_batch_size)
    pipeline.run(
        _data(benchmark, data, "cirr", gallery),
        _compute(compute, batch_size),
        _composing(compose),
        _generation(generator),
        _searching(_own(search)),
        out,
        submission_name,
        search_batch_size,
        Work(overwrite=overwrite, retry_rejected=retry_rejected),
        allow_missing,
    )


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

    asked = _data(benchmark, data, "cirr"), _compute(compute, batch_size), _composing(compose), _generation(generator)
    if not pipeline.plan(*asked, _searching(_own(search)), out):
        raise IncompleteError("this run does not fit on this machine as asked")


@app.command
def check(benchmark: Name = None, /, *, data: DataFlags = DataFlags(), compute: ComputeFlags = ComputeFlags()) -> None:
    """What of a dataset is missing, unreadable or double, and on how many queries an evaluation would stand."""
    from cig import pipeline

    pipeline.check(_data(benchmark, data, None), _compute(compute, 1))


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
        key = flag.removeprefix("--").replace("-", "_").removeprefix("search_")
        if not argument.tokens and (found := settings.value(table, key)):
            argument.append(Token(keyword=flag, value=found.value, source=found.source))
            _in_force[f"{table}.{key}"] = found
        elif argument.tokens:
            _in_force[f"{table}.{key}"] = settings.Setting(argument.tokens[0].value, flag)
        else:
            _in_force[f"{table}.{key}"] = settings.Setting(str(argument.field_info.default), "default")


app.config = (_fill_in,)


def _data(benchmark: str | None, flags: DataFlags, default: str | None, gallery: str | None = None):  # type: ignore[no-untyped-def]
    """Raises UsageError where the benchmark is not named, or named twice and differently."""
    from cig.options import Data

    family, _, split = (benchmark or flags.dataset or default or "").partition("/")
    if not family:
        raise UsageError("which benchmark? Give it as the first argument or by --dataset, e.g. cirr/val")
    for asked, flag, given in ((family, "--dataset", flags.dataset), (split, "--split", flags.split)):
        if asked and given and given.partition("/")[0] != asked:
            raise UsageError(f"{benchmark or flags.dataset} and {flag} {given} disagree; give one of them")
    name = "/".join(filter(None, (family, split or flags.split)))
    return Data(name, flags.dataset_path, flags.categories, gallery)


def _compute(flags: ComputeFlags, batch_size: int):  # type: ignore[no-untyped-def]
    from cig.images import limit_pixels
    from cig.options import Compute

    _at_least_1("--batch-size", batch_size)
    _at_least_1("--max-pixels", flags.max_pixels)
    limit_pixels(flags.max_pixels)
    return Compute(flags.device, flags.dtype, batch_size, flags.num_workers, flags.cache_dir)


def _at_least_1(flag: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{flag} {value}: at least 1")


def _composing(flags: ComposeFlags):  # type: ignore[no-untyped-def]
    from cig.options import Composing

    return Composing(flags.clip, flags.clip2, flags.phi, flags.phi2, flags.preprocess_type)


def _generation(flags: GenerateFlags):  # type: ignore[no-untyped-def]
    from cig.options import Generation

    values = dict(vars(flags))
    return Generation(guidance=values.pop("guidance_scale"), **values)


def _own(flags: RunSearchFlags) -> SearchFlags:
    return SearchFlags(**{name.removeprefix("search_"): value for name, value in vars(flags).items()})


def _searching(flags: SearchFlags, targets: TargetFlags = TargetFlags()):  # type: ignore[no-untyped-def]
    from cig.options import Searching

    clip, phi = flags.clip, flags.phi
    if targets.exp_name or targets.phi_checkpoint_name:
        from cig.methods import published_experiment

        clip, phi = published_experiment(targets.exp_name, targets.phi_checkpoint_name, clip, phi)
    pictures, weight = targets.generated_image_dir, flags.fusion_weight
    return Searching(flags.method, clip, phi, flags.preprocess_type, pictures, weight, flags.feature_cache)


def _work(flags: WorkFlags, retry_rejected: bool = False):  # type: ignore[no-untyped-def]
    from cig.options import Work
    from cig.runtime import Shard

    return Work(Shard.parse(flags.shard), flags.overwrite, retry_rejected)


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
