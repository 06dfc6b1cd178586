"""The plan of a training: its length, batch, learning rate, precision and optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Plan:
    """The settings of a training's steps.

    Attributes:
        steps: all of them, those of earlier calls included. A later call can raise them if the rate is constant.
        batch: items of a step.
        lr: the highest rate, reached after `warmup` steps.
        schedule: `constant`: the rate stays; `cosine`: it falls along a cosine from the first step on, to 3% at the
            end; `cosine-after-warmup`: along a cosine that begins after the warmup, to 0.
        save_every: steps between checkpoints, each with a usable model.
        autocast: float32 computes in float32; bfloat16 and float16 multiply in those, float16 with a loss that is
            scaled up.
        ema: the decay of the running mean of weights that is exported; it rises to this value as
            (1 + step) / (10 + step). 0: export the weights themselves.
        accumulate: compute a step's items in so many parts, one after the other; for losses that are means of items.
        optimizer: adamw, or adamw8bit (bitsandbytes, on a GPU), whose moments take a quarter of the memory.
        beta2, eps: AdamW's; its first beta is 0.9.
        decay_biases: biases and gains decay as matrices do.
        clip_norm: the gradient is scaled down to this norm; 0: it is not.
    """

    steps: int
    batch: int = 256
    lr: float = 1e-3
    warmup: int = 150
    schedule: str = "cosine"
    weight_decay: float = 0.1
    seed: int = 0
    save_every: int = 500
    autocast: str = "float32"
    ema: float = 0.0
    accumulate: int = 1
    optimizer: str = "adamw"
    beta2: float = 0.98
    eps: float = 1e-8
    decay_biases: bool = True
    clip_norm: float = 1.0

    @staticmethod
    def binding(plan: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a later call cannot change: all but the pace of checkpoints and, at a constant rate, steps."""
        free = {"save_every", "steps"} if plan.get("schedule") == "constant" else {"save_every"}
        before = {field.name: field.default for field in fields(Plan)}  # what older checkpoints, which lack it, did
        return {name: value for name, value in {**before, **plan}.items() if name not in free}

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / max(self.warmup, 1))
        if self.schedule == "constant":
            return self.lr * rising
        if self.schedule == "cosine-after-warmup":
            done = max(0, step - self.warmup) / max(1, self.steps - self.warmup)
            return self.lr * rising * 0.5 * (1 + math.cos(math.pi * done))
        return self.lr * rising * (0.5 * (1 + math.cos(math.pi * step / self.steps)) * 0.97 + 0.03)


def describe_memory(weights: tuple[int, int], plan: Plan) -> str:
    """Say what a model of so many weights, and so many of them trained, takes: activations come on top."""
    count, trained = weights
    moments = 2 if plan.optimizer == "adamw8bit" else 8
    frozen = (count - trained) * (4 if plan.autocast == "float32" else 2)
    copies = trained * (2 if plan.autocast != "float32" else 0)  # that autocast keeps
    mean = trained * 4 if plan.ema else 0
    needed, stored = frozen + trained * (8 + moments) + copies + mean, trained * (4 + moments) + mean
    return (
        f"of {count / 1e6:,.1f} M weights, {trained / 1e6:,.1f} M are trained: {needed / 1e9:.1f} GB of memory for "
        f"weights, gradients, moments and mean, more for activations and other models; {stored / 1e9:.1f} GB of disk "
        f"for a checkpoint, twice that while one replaces another"
    )


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ between an earlier run and this one, for a message."""
    keys = {**now, **then}
    return [f"{key}: {then.get(key)} there, {now.get(key)} now" for key in keys if then.get(key) != now.get(key)]
