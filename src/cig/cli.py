"""The command line: a verb -> the pipeline's function. Each signature gives the flags; underscores and dashes are one.

The flags of the published scripts are among them, so their command lines work with only the script's name replaced.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from cig.errors import CigError, UsageError

app = App(
    name="cig",
    help="Composed image retrieval: a picture and a sentence find the picture you mean.",
    help_epilogue="Every verb takes --debug, which shows the traceback of an error.",
    version=lambda: metadata.version("cig"),
)

Name = Annotated[str | None, Parameter(help="NAME or NAME/SPLIT: cirr/val, circo/test, fashioniq.")]
Flag = Parameter(negative="")


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


@Parameter(name="*")
@dataclass(frozen=True)
class ComputeFlags:
    device: str = "auto"
    "cuda, cuda:1, mps, cpu; auto takes a GPU where there is one."
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    "auto: what the paper used on a GPU, float32 on a CPU."
    num_workers: Annotated[int, Parameter(alias="--workers")] = 4
    "Threads that decode pictures."
    cache_dir: Path | None = None
    "The hub's cache."
    max_pixels: int = 2**28
    "Larger pictures are refused before they are decoded."


@Parameter(name="*")
@dataclass(frozen=True)
class SearchFlags:
    method: Annotated[str, Parameter(alias="--eval-type")] = "searle"
    "FAMILY[/VARIANT]: image, text, sum, searle, searle-xl, lincir, phi, or a module of your own."
    clip: str | None = None
    "A CLIP to search with: hub id or folder. With a phi, the two come together. Default: the variant's."
    phi: Path | None = None
    "The textual-inversion network that fits --clip. Default: the variant's, in ./models."
    preprocess_type: Literal["clip", "targetpad"] | None = None
    "Default: the method's (searle targetpad, others clip)."
    generated_image_dir: Path | None = None
    "Pseudo-targets by query id; {category} stands for FashionIQ's categories."
    fusion_weight: float | None = None
    "The reference's share, 0 to 1. Default: the published one of that benchmark and split."
    exp_name: str | None = None
    "With phi, as published: the folder ./data/phi_models/EXP-NAME."
    phi_checkpoint_name: str | None = None
    "With --exp-name: the file in its checkpoints folder."


@app.command
def extract(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compute: ComputeFlags = ComputeFlags(),
    text_embeddings_dir: Path | None = None,
    clip: str = "openai/clip-vit-large-patch14",
    clip2: str = "Geonmo/CLIP-Giga-config-fixed",
    phi: Path | None = None,
    phi2: Path | None = None,
    preprocess_type: Literal["clip", "targetpad"] = "clip",
    batch_size: int = 4,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Reference + caption -> composed embeddings, one {id}.pt a query (CIG, stage 1).

    Parameters
    ----------
    text_embeddings_dir
        Where the files go. Default: ./outputs/embeddings/NAME_SPLIT.
    clip
        The first composing CLIP: hub id or folder.
    clip2
        The second one, whose pooled text the generator reads.
    phi
        The textual-inversion network of --clip. Default: ./models/phi_best.pt.
    phi2
        That of --clip2. Default: ./models/phi_best_giga.pt.
    preprocess_type
        clip is the published way of this stage.
    overwrite
        Make everything again, with other settings if need be.
    """
    from cig import pipeline

    pipeline.extract(
        _data(benchmark, data, "cirr"),
        _compute(compute, batch_size),
        out=text_embeddings_dir,
        clip=clip,
        clip2=clip2,
        phi=phi,
        phi2=phi2,
        preprocessing=preprocess_type,
        overwrite=overwrite,
    )


@app.command
def generate(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    compute: ComputeFlags = ComputeFlags(),
    text_embeddings_dir: Path | None = None,
    save_path: Path | None = None,
    model_path: Path | None = None,
    sdxl_repo: str = "stabilityai/stable-diffusion-xl-base-1.0",
    vae_repo: str = "madebyollin/sdxl-vae-fp16-fix",
    height: int = 512,
    width: int = 512,
    steps: int = 50,
    guidance_scale: float = 5.0,
    batch_size: int = 4,
    seed: int = 1600,
    seeds: Literal["published", "per-query"] = "published",
    brightness_thresh: float = 10.0,
    max_retries: int = 5,
    offload: Literal["none", "model", "sequential"] = "none",
    vae_slicing: Annotated[bool, Flag] = False,
    vae_tiling: Annotated[bool, Flag] = False,
    attention_slicing: Annotated[bool, Flag] = False,
    retry_rejected: Annotated[bool, Flag] = False,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Composed embeddings -> pseudo-targets, one picture a query (CIG, stage 2). A rerun goes on where it stopped.

    Parameters
    ----------
    text_embeddings_dir
        What `cig extract` wrote, or published files. Default: ./outputs/embeddings/NAME_SPLIT.
    save_path
        Where pictures go. Default: ./outputs/generated_images/NAME_SPLIT.
    model_path
        A folder with unet/ in it, or a hub id. Default: ./models/sdxl_checkpoint.
    sdxl_repo
        The base pipeline, for its scheduler: hub id or folder.
    vae_repo
        A VAE that is safe in fp16: hub id or folder.
    guidance_scale
        Classifier-free guidance, towards zero embeddings.
    seeds
        published: one seed for every query, + 1 a retry; per-query: derived from the query's id.
    brightness_thresh
        A picture whose mean pixel value (0..255) is not above it is made again.
    max_retries
        How often; then the query has no accepted picture, and is listed.
    offload
        Move weights to the GPU when they are needed: whole models, or layer by layer (slow, least memory).
    vae_slicing
        Decode one picture of a batch at a time.
    vae_tiling
        Decode large pictures in tiles, which are blended: pixels move.
    attention_slicing
        Less memory in attention, slower.
    retry_rejected
        Go on with the next seeds for queries without an accepted picture.
    overwrite
        Make everything again, with other settings if need be.
    """
    from cig import pipeline

    generation = pipeline.Generation(
        model_path=model_path,
        sdxl_repo=sdxl_repo,
        vae_repo=vae_repo,
        height=height,
        width=width,
        steps=steps,
        guidance=guidance_scale,
        seed=seed,
        seeds=seeds,
        brightness_thresh=brightness_thresh,
        max_retries=max_retries,
        offload=offload,
        vae_slicing=vae_slicing,
        vae_tiling=vae_tiling,
        attention_slicing=attention_slicing,
    )
    pipeline.generate(
        _data(benchmark, data, "cirr"),
        _compute(compute, batch_size),
        generation,
        embeddings=text_embeddings_dir,
        out=save_path,
        overwrite=overwrite,
        retry_rejected=retry_rejected,
    )


@app.command
def evaluate(
    benchmark: Name = None,
    /,
    *,
    data: DataFlags = DataFlags(),
    search: SearchFlags = SearchFlags(),
    compute: ComputeFlags = ComputeFlags(),
    gallery: Literal["full", "val"] | None = None,
    batch_size: int = 32,
    json: Path | None = None,
    rankings: Path | None = None,
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
    """
    from cig import pipeline

    pipeline.evaluate(
        _data(benchmark, data, None, gallery), _compute(compute, batch_size), _searching(search), json, rankings
    )


@app.command
def submit(
    benchmark: Name = None,
    /,
    *,
    submission_name: str,
    data: DataFlags = DataFlags(),
    search: SearchFlags = SearchFlags(),
    compute: ComputeFlags = ComputeFlags(),
    batch_size: int = 32,
    output_dir: Path | None = None,
    rankings: Path | None = None,
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
    allow_missing
        Rank queries without a reference by their caption alone, and name them in NAME.missing.json.
    """
    from cig import pipeline

    paths = pipeline.submit(
        _data(benchmark, data, None),
        _compute(compute, batch_size),
        _searching(search),
        submission_name,
        output_dir,
        rankings,
        allow_missing,
    )
    print("\n".join(map(str, paths)))


def _data(benchmark: str | None, flags: DataFlags, default: str | None, gallery: str | None = None):  # type: ignore[no-untyped-def]
    """Raises UsageError where the benchmark is not named, or named twice and differently."""
    from cig.pipeline import Data

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
    from cig.pipeline import Compute

    for name, value in (("--batch-size", batch_size), ("--max-pixels", flags.max_pixels)):
        if value < 1:
            raise UsageError(f"{name} {value}: at least 1")
    limit_pixels(flags.max_pixels)
    return Compute(flags.device, flags.dtype, batch_size, flags.num_workers, flags.cache_dir)


def _searching(flags: SearchFlags):  # type: ignore[no-untyped-def]
    from cig.pipeline import Searching

    clip, phi = flags.clip, flags.phi
    if flags.exp_name or flags.phi_checkpoint_name:
        from cig.methods import published_experiment

        clip, phi = published_experiment(flags.exp_name, flags.phi_checkpoint_name, clip, phi)
    return Searching(flags.method, clip, phi, flags.preprocess_type, flags.generated_image_dir, flags.fusion_weight)


def main(argv: list[str] | None = None) -> None:
    """Exit codes: 0 done, 1 a failed run, 2 a wrong call, 130 Ctrl-C. No traceback for a user's mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        app([argument for argument in arguments if argument != "--debug"])
    except CigError as error:
        if debug:
            raise
        print(f"cig: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("cig: interrupted; what was finished is kept, and a rerun goes on from there", file=sys.stderr)
        raise SystemExit(130) from None
