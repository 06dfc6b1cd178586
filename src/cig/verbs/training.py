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
    steps: int = 20_000,
    batch_size: int = 256,
    lr: float = 1e-3,
    warmup: int = 150,
    seed: int = 0,
    save_every: int = 500,
    dtype: Autocast = "float32",
    device: str = "auto",
) -> None:
    """Trains a CLIP from nothing, with a tokenizer of its own; a rerun continues.

    Parameters
    ----------
    data
        A benchmark with captioned pictures to train on: icons/train.
    out
        Gets the CLIP in transformers' layout (fp16), a model card, and what a rerun continues from.
    size
        tiny, small or large.
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
    train_clip(pairs, SIZES[size], plan, out, pairs.identity, str(resolve_device(device)))


def phi() -> None:
    """To come."""
