"""The verbs of `cig train`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cig.cli.flags import TRAINED_FOLDER, Flag, LoopFlags
from cig.cli.next_steps import after_clip, after_generator, after_vae
from cig.errors import NotFoundError, UsageError, at_least_1, did_you_mean


def clip(
    data: str,
    /,
    *,
    out: Annotated[Path, TRAINED_FOLDER],
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
    from cig.models.preprocessing import load_clip_preprocess
    from cig.training.data.pairs import pair_source
    from cig.training.objectives.clip import SIZES, pixels_of, train_clip

    _check_size(size, SIZES)
    if layers is not None:
        at_least_1("--layers", layers)
    if layers and not start:
        raise UsageError("--layers deepens a CLIP that --start names; without one, --size says how many there are")
    at_least_1("--num-workers", num_workers)
    plan = loop.plan(steps, batch_size, lr, warmup=warmup, weight_decay=0.1)
    side = pixels_of(SIZES[size], start)
    pairs = pair_source(
        data,
        side,
        out,
        column=column,
        seed=loop.seed,
        workers=num_workers,
        preprocess=load_clip_preprocess(start, side) if start else None,
    )
    train_clip(
        pairs,
        SIZES[size],
        plan,
        out=out,
        inputs=pairs.identity,
        device=loop.process_device(),
        start=start,
        layers=layers,
        tensorboard=loop.tensorboard,
    )
    after_clip(data, out)


def vae(
    data: str,
    /,
    *,
    out: Annotated[Path, TRAINED_FOLDER],
    resolution: int | None = None,
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
        A benchmark with pictures to draw: icons/train; or a table or a folder of pictures, as for cig train generator.
    out
        Gets the VAE in diffusers' layout (fp16), a model card, and what a rerun continues from.
    resolution
        Pixels a side that pictures are resized and cropped to. Default: 256; icons have 64.
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
    from cig.training.data import has_own_size, load_scenes
    from cig.training.data.framing import Frame
    from cig.training.objectives.vae import SIZES, train_vae

    _check_size(size, SIZES)
    process_device, plan = loop.process_device(), loop.plan(steps, batch_size, lr, warmup=warmup, weight_decay=1e-3)
    frame = None if resolution is None and has_own_size(data) else Frame(256 if resolution is None else resolution)
    scenes = load_scenes(
        data, frame=frame, ledger=out / "pictures.json"
    )  # not before: processes that are together look at files once
    train_vae(
        scenes, SIZES[size], plan, out=out, inputs=scenes.identity, device=process_device, tensorboard=loop.tensorboard
    )
    after_vae(data, out)


def generator(
    data: str,
    /,
    *,
    clip: str,
    phi: Path,
    clip2: str,
    phi2: Path,
    vae: str,
    out: Annotated[Path, TRAINED_FOLDER],
    dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None,
    limit: int | None = None,
    resolution: int | None = None,
    crop: Literal["centre", "random"] | None = None,
    max_pixels: int = 2**28,
    size: str = "small",
    start: str | None = None,
    lora: int | None = None,
    lora_alpha: int | None = None,
    prediction: Literal["epsilon", "v"] = "epsilon",
    condition_dropout: float = 0.1,
    show_reference: Annotated[bool, Flag] = False,
    sample_latents: Annotated[bool, Flag] = False,
    min_snr: float | None = None,
    gradient_checkpointing: Annotated[bool, Flag] = False,
    shelf: bool = True,
    frozen_dtype: Literal["float32", "bfloat16", "float16"] = "float32",
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
        What to draw: icons/train, icons/altered, icons/triplets; cirr/train, fashioniq/train, folder/train; a table
        with the columns reference, caption, target or picture, caption; a folder of pictures, with captions in .txt
        files, or of InstructPix2Pix.
    clip
        The first composing CLIP: hub id or folder.
    phi
        The textual-inversion network of --clip.
    clip2
        The second one, whose pooled text the generator reads.
    phi2
        That of --clip2.
    vae
        What pictures are encoded by: hub id or folder. For SDXL, madebyollin/sdxl-vae-fp16-fix.
    out
        Gets unet/, vae/ and scheduler/ (for --model-path, --vae-repo and --sdxl-repo), a model card, latents and
        features, and what a rerun continues from.
    dataset_path
        The benchmark's own folder, or its parent; or what a table's pictures are relative to.
    limit
        The first so many of the data's pictures. Default: all.
    resolution
        Pixels a side that pictures are resized and cropped to. Default: 1024; icons have 64.
    crop
        centre, the default; or random, drawn once for each picture. Either way the UNet is told.
    max_pixels
        Larger pictures are refused before they are decoded.
    size
        tiny or small, of a UNet from nothing.
    start
        A UNet to start from: a folder with unet/ in it, or a hub id; with --prediction as that one was trained.
    lora
        Train an adapter of this rank alone (LoRA, on attention). Default: the whole UNet.
    lora_alpha
        The adapter's share is this over its rank. Default: the rank.
    prediction
        epsilon, as SDXL's weights predict; or v, the velocity.
    condition_dropout
        Share of examples without a condition, which guidance needs.
    show_reference
        The UNet is given the reference's latents beside the noisy ones, as InstructPix2Pix's; one that --start names
        is widened, unless it reads them already.
    sample_latents
        Draw a picture's latents from the VAE's distribution at each step, as diffusers' scripts do. Default: its mean.
    min_snr
        Gamma of min-SNR's weights of timesteps; its paper has 5. Default: all weigh alike.
    gradient_checkpointing
        Compute activations twice instead of keeping them: less memory, slower, the same result.
    shelf
        Keep latents and features on the disk; --no-shelf computes them at each step, with views drawn anew.
    frozen_dtype
        What the CLIPs and the VAE compute in. float16 needs a VAE that is safe in it.
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
    import torch

    from cig.io.images import limit_pixels
    from cig.models.composer import load_composer
    from cig.training.data import has_own_size, load_scenes
    from cig.training.data.framing import Frame
    from cig.training.objectives._diffusion import Prediction
    from cig.training.objectives._lora import Lora
    from cig.training.objectives._unet import SIZES
    from cig.training.objectives.generator import GeneratorRecipe, MemoryOptions, StartModels, train_generator

    for flag, value in {
        "--limit": limit,
        "--lora": lora,
        "--lora-alpha": lora_alpha,
        "--max-pixels": max_pixels,
    }.items():
        if value is not None:
            at_least_1(flag, value)
    _check_size(size, SIZES)
    _check_generator(start, lora, lora_alpha, min_snr=min_snr, dropout=condition_dropout)
    limit_pixels(max_pixels)
    plan = loop.plan(steps, batch_size, lr, warmup=warmup, ema=ema)
    side = 1024 if resolution is None else resolution
    frame = Frame(side, crop or "centre") if resolution is not None or crop else None
    process_device = loop.process_device()
    scenes = load_scenes(data, limit, frame, root=dataset_path, ledger=out / "pictures.json")
    frozen = getattr(torch, frozen_dtype)
    composer = load_composer(clip, clip2, phi=phi, phi2=phi2, device=process_device, dtype=frozen, cache_dir=cache_dir)
    adapter = Lora(lora, lora_alpha or lora) if lora else None
    predicted: Prediction = "v_prediction" if prediction == "v" else "epsilon"
    train_generator(
        scenes,
        composer,
        plan,
        recipe=GeneratorRecipe(
            predicted, condition_dropout, min_snr, lora=adapter, shown=show_reference, sampled=sample_latents
        ),
        start=StartModels(vae, SIZES[size], start, cache_dir=cache_dir),
        out=out,
        inputs=scenes.identity,
        device=process_device,
        tensorboard=loop.tensorboard,
        memory=MemoryOptions(gradient_checkpointing, shelf, frozen),
    )
    side = 64 if has_own_size(data) and not frame else side
    after_generator(data, (clip, phi, clip2, phi2), out, side=side)


def _check_generator(
    start: str | None, lora: int | None, alpha: int | None, *, min_snr: float | None, dropout: float
) -> None:
    """Raise UsageError for flags without effect, alone or together."""
    if lora and not start:
        raise UsageError("--lora adapts a UNet that --start names, such as stabilityai/stable-diffusion-xl-base-1.0")
    if alpha is not None and not lora:
        raise UsageError("--lora-alpha goes with --lora RANK")
    if not 0 <= dropout < 1:
        raise UsageError(f"--condition-dropout {dropout:g}: from 0 to less than 1")
    if min_snr is not None and not 0 < min_snr < float("inf"):
        raise UsageError(f"--min-snr {min_snr:g}: more than 0, such as 5")


def _check_size(size: str, sizes: Iterable[str]) -> None:
    if size not in sizes:
        raise NotFoundError(f'no size "{size}".{did_you_mean(size, sizes)}')
