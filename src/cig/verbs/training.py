"""The verbs of `cig train`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cig.errors import NotFoundError, UsageError, did_you_mean
from cig.flags import LoopFlags, at_least_1


def clip(
    data: str,
    /,
    *,
    out: Path,
    size: str = "small",
    start: Path | None = None,
    layers: int | None = None,
    steps: int = 20_000,
    batch_size: int = 256,
    lr: float = 1e-3,
    warmup: int = 150,
    column: str | None = None,
    num_workers: Annotated[int, Parameter(alias="--workers")] = 4,
    loop: LoopFlags = LoopFlags(),
) -> None:
    """Trains a CLIP, from nothing with a tokenizer of its own, or from another; a rerun continues.

    Parameters
    ----------
    data
        A table of pictures and captions (.csv, .tsv, .json, .jsonl, .parquet), with columns picture, a path from the
        table's folder on, and caption; or a benchmark that has some to train on: icons/train.
    out
        Gets the CLIP in transformers' layout (fp16), a model card, and what a rerun continues from.
    size
        tiny or small.
    start
        The folder of a CLIP to start from, its tokenizer and size included. Default: from nothing.
    layers
        With --start: so many in each tower, more than that one has; the new ones change nothing until they have learnt.
    steps
        All of them, those of earlier calls included. The rate falls along a cosine to the last.
    batch_size
        Pairs a step; each is contrasted with the others.
    lr
        The highest learning rate.
    warmup
        Steps until it is reached.
    column
        The table's column of captions. Default: caption, else text.
    num_workers
        Threads that decode a table's pictures.
    """
    from cig.training.clip import SIZES, pixels_of, train_clip
    from cig.training.pairs import pair_source

    _check_size(size, SIZES)
    if layers and not start:
        raise UsageError("--layers deepens a CLIP that --start names; without one, --size says how many there are")
    at_least_1("--num-workers", num_workers)
    plan = loop.plan(steps, batch_size, lr, warmup, weight_decay=0.1)
    pairs = pair_source(data, pixels_of(SIZES[size], start), out, column, loop.seed, num_workers)
    train_clip(pairs, SIZES[size], plan, out, pairs.identity, loop.place(), start, layers, loop.tensorboard)


def vae(
    data: str,
    /,
    *,
    out: Path,
    size: str = "small",
    steps: int = 6_000,
    batch_size: int = 32,
    lr: float = 2e-3,
    warmup: int = 50,
    loop: LoopFlags = LoopFlags(),
) -> None:
    """Trains a VAE of SDXL's kind, for flat drawings; a rerun continues. For photos, take SDXL's own.

    Parameters
    ----------
    data
        A benchmark with pictures to draw: icons/train.
    out
        Gets the VAE in diffusers' layout (fp16), a model card, and what a rerun continues from.
    size
        tiny or small.
    steps
        All of them, those of earlier calls included. The rate falls along a cosine to the last.
    batch_size
        Pictures a step.
    lr
        The highest learning rate.
    warmup
        Steps until it is reached.
    """
    from cig.training import load_scenes
    from cig.training.vae import SIZES, train_vae

    _check_size(size, SIZES)
    scenes = load_scenes(data)
    plan = loop.plan(steps, batch_size, lr, warmup, weight_decay=1e-3)
    train_vae(scenes, SIZES[size], plan, out, scenes.identity, loop.place(), loop.tensorboard)


def generator(
    data: str,
    /,
    *,
    clip: str,
    phi: Path,
    clip2: str,
    phi2: Path,
    vae: str,
    out: Path,
    limit: int | None = None,
    size: str = "small",
    start: str | None = None,
    prediction: Literal["epsilon", "v"] = "epsilon",
    condition_dropout: float = 0.1,
    steps: int = 20_000,
    batch_size: int = 128,
    lr: float = 1e-4,
    warmup: int = 100,
    ema: float = 0.999,
    loop: LoopFlags = LoopFlags(),
    cache_dir: Path | None = None,
) -> None:
    """Trains a UNet of SDXL's architecture to imagine pseudo-targets, from nothing or from SDXL's; a rerun continues.

    Parameters
    ----------
    data
        A benchmark with pictures to draw: icons/train.
    clip
        The first composing CLIP: hub id or folder.
    phi
        The textual-inversion network of --clip.
    clip2
        The second one, whose pooled text the generator reads.
    phi2
        That of --clip2.
    vae
        What pictures are encoded by: hub id or folder.
    out
        Gets unet/, vae/ and scheduler/ (for --model-path, --vae-repo and --sdxl-repo), a model card, latents and
        features, and what a rerun continues from.
    limit
        So many of the data's pictures. Default: all.
    size
        tiny or small, of a UNet from nothing.
    start
        A UNet to start from: a folder with unet/ in it, or a hub id; with --prediction as that one was trained.
    prediction
        epsilon, as SDXL's weights predict; or v, the velocity.
    condition_dropout
        Share of examples without a condition, which guidance needs.
    steps
        All of them, those of earlier calls included. The rate falls along a cosine to the last.
    batch_size
        Pictures a step.
    lr
        The highest learning rate.
    warmup
        Steps until it is reached.
    ema
        What is written is the mean of weights with this decay; 0: the last weights.
    cache_dir
        The hub's cache.
    """
    from cig.inversion import load_composer
    from cig.training import load_scenes
    from cig.training.generator import SIZES, Recipe, train_generator

    if limit is not None:
        at_least_1("--limit", limit)
    _check_size(size, SIZES)
    plan = loop.plan(steps, batch_size, lr, warmup, ema=ema)
    scenes, place = load_scenes(data, limit), loop.place()
    composer = load_composer(clip, clip2, phi, phi2, place, cache_dir=cache_dir)
    recipe = Recipe("v_prediction" if prediction == "v" else "epsilon", condition_dropout)
    parts = (scenes, composer, vae, SIZES[size], recipe, plan, out, scenes.identity, place)
    train_generator(*parts, start, cache_dir, loop.tensorboard)


def _check_size(size: str, sizes: Iterable[str]) -> None:
    if size not in sizes:
        raise NotFoundError(f'no size "{size}".{did_you_mean(size, sizes)}')
