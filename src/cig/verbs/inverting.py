"""The verbs of `cig train` that turn pictures into words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cig.flags import LoopFlags, SearleFlags

if TYPE_CHECKING:
    from cig.training.phi import Objective


def phi(
    data: str,
    /,
    *,
    clip: str,
    out: Path,
    objective: Literal["lincir", "pic2word", "searle"] = "lincir",
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float = 1e-4,
    warmup: int = 1,
    schedule: Literal["constant", "cosine"] = "constant",
    dropout: float = 0.5,
    scale: float = 100.0,
    searle: SearleFlags = SearleFlags(),
    loop: LoopFlags = LoopFlags(),
    cache_dir: Path | None = None,
) -> None:
    """Trains a textual-inversion network for a frozen CLIP; a rerun continues.

    Parameters
    ----------
    data
        A benchmark with captioned pictures to train on: icons/train. searle: pictures, a folder or NAME/SPLIT.
    clip
        The CLIP: a hub id or a folder.
    out
        Gets phi.safetensors (for --phi), a model card, and what a rerun continues from.
    objective
        lincir learns from captions alone, pic2word from pictures alone, searle from pseudo-words of pictures and from
        phrases. Defaults are LinCIR's, unless said otherwise.
    steps
        All of them, those of earlier calls included. Default: 20,000; searle: 100 passes over the pictures.
    batch_size
        Captions or pictures a step. Default: 512; searle: 256.
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
    cache_dir
        The hub's cache.
    """
    import torch

    from cig.encoders import load_clip
    from cig.training import load_pairs
    from cig.training.lincir import Lincir
    from cig.training.phi import train_phi
    from cig.training.pic2word import Pic2Word
    from cig.training.step import need_whole
    from cig.verbs.pseudo_words import searle_book, searle_objective

    searles = objective == "searle"
    size = (256 if searles else 512) if batch_size is None else batch_size
    plan = loop.plan(20_000 if steps is None else steps, size, lr, warmup, schedule)
    learnt: Objective
    if searles:
        need_whole(plan, "SEARLE's loss")
        book = searle_book(searle)
        tower = load_clip(clip, loop.place(), torch.float32, cache_dir)
        learnt = searle_objective(tower, data, searle, book, size)
        plan = replace(plan, steps=100 * (len(learnt.lesson) // size)) if steps is None else plan
    else:
        pairs = load_pairs(data)
        learnt = Lincir(pairs) if objective == "lincir" else Pic2Word(pairs, scale)
        tower = load_clip(clip, loop.place(), torch.float32, cache_dir)
    train_phi(tower, learnt, plan, out, dropout, loop.tensorboard)
