"""The verbs of `cig train`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cig.errors import NotFoundError, did_you_mean
from cig.flags import at_least_1

Autocast = Literal["float32", "bfloat16"]


def clip(
    data: str,
    /,
    *,
    out: Path,
    size: str = "small",
    start: Path | None = None,
    steps: int = 20_000,
    batch_size: int = 256,
    lr: float = 1e-3,
    warmup: int = 150,
    seed: int = 0,
    save_every: int = 500,
    dtype: Autocast = "float32",
    device: str = "auto",
) -> None:
    """Trains a CLIP, from nothing with a tokenizer of its own, or from another; a rerun continues.

    Parameters
    ----------
    data
        A benchmark with captioned pictures to train on: icons/train.
    out
        Gets the CLIP in transformers' layout (fp16), a model card, and what a rerun continues from.
    size
        tiny, small or large.
    start
        The folder of a CLIP to start from, its tokenizer and size included. Default: from nothing.
    steps
        All of them, those of earlier calls included. The rate falls along a cosine to the last.
    batch_size
        Pairs a step; each is contrasted with the others.
    lr
        The highest learning rate.
    warmup
        Steps until it is reached.
    seed
        Of the first weights and of every step's data.
    save_every
        Steps between checkpoints; each is a usable model.
    dtype
        bfloat16: multiply in bfloat16, keep weights in float32.
    device
        cuda, mps, cpu; auto takes a GPU where there is one.
    """
    from cig.runtime import resolve_device
    from cig.training import load_pairs
    from cig.training.clip import SIZES, train_clip
    from cig.training.loop import Plan

    for flag, value in (("--steps", steps), ("--batch-size", batch_size), ("--save-every", save_every)):
        at_least_1(flag, value)
    if size not in SIZES:
        raise NotFoundError(f'no size "{size}".{did_you_mean(size, SIZES)}')
    pairs = load_pairs(data)
    plan = Plan(steps, batch_size, lr, warmup, seed=seed, save_every=save_every, autocast=dtype)
    train_clip(pairs, SIZES[size], plan, out, pairs.identity, str(resolve_device(device)), start)


def phi(
    data: str,
    /,
    *,
    clip: str,
    out: Path,
    objective: Literal["lincir", "pic2word"] = "lincir",
    steps: int = 20_000,
    batch_size: int = 512,
    lr: float = 1e-4,
    warmup: int = 1,
    schedule: Literal["constant", "cosine"] = "constant",
    dropout: float = 0.5,
    scale: float = 100.0,
    seed: int = 0,
    save_every: int = 1_000,
    dtype: Autocast = "float32",
    device: str = "auto",
    cache_dir: Path | None = None,
) -> None:
    """Trains a textual-inversion network for a frozen CLIP; a rerun continues.

    Parameters
    ----------
    data
        A benchmark with captioned pictures to train on: icons/train.
    clip
        The CLIP: a hub id or a folder.
    out
        Gets phi.safetensors (for --phi), a model card, and what a rerun continues from.
    objective
        lincir learns from captions alone, pic2word from pictures alone. Defaults are LinCIR's.
    steps
        All of them, those of earlier calls included.
    batch_size
        Captions or pictures a step.
    lr
        The learning rate.
    warmup
        Steps over which the rate rises; some seeds never recover from a first step at a high rate.
    schedule
        cosine: the rate falls along a cosine to the last step; a high rate then diverges less often.
    dropout
        Between phi's layers.
    scale
        pic2word: of the logits (the inverse temperature); OpenAI's CLIPs end at 100.
    seed
        Of the first weights and of every step's data.
    save_every
        Steps between checkpoints; each is a usable phi.
    dtype
        bfloat16: multiply in bfloat16, keep weights in float32.
    device
        cuda, mps, cpu; auto takes a GPU where there is one.
    cache_dir
        The hub's cache.
    """
    import torch

    from cig.encoders import load_clip
    from cig.runtime import resolve_device
    from cig.training import load_pairs
    from cig.training.loop import Plan
    from cig.training.phi import train_phi

    for flag, value in (("--steps", steps), ("--batch-size", batch_size), ("--save-every", save_every)):
        at_least_1(flag, value)
    pairs = load_pairs(data)
    plan = Plan(steps, batch_size, lr, warmup, schedule, 0.01, seed, save_every, dtype)
    tower = load_clip(clip, resolve_device(device), torch.float32, cache_dir)
    train_phi(tower, pairs, objective, plan, out, pairs.identity, dropout, scale)
