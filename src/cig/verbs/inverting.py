"""The verbs of `cig train` that turn pictures into words."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cig.flags import LoopFlags


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
    loop: LoopFlags = LoopFlags(),
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
    cache_dir
        The hub's cache.
    """
    import torch

    from cig.encoders import load_clip
    from cig.training import load_pairs
    from cig.training.lincir import Lincir
    from cig.training.phi import train_phi
    from cig.training.pic2word import Pic2Word

    plan, pairs = loop.plan(steps, batch_size, lr, warmup, schedule), load_pairs(data)
    learnt = Lincir(pairs) if objective == "lincir" else Pic2Word(pairs, scale)
    tower = load_clip(clip, loop.place(), torch.float32, cache_dir)
    train_phi(tower, learnt, plan, out, dropout, loop.tensorboard)
