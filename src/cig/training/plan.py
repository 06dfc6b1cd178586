"""How long a training is, and how fast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    Attributes:
        steps: all of them, those of earlier calls included. A later call can raise them where the rate stays.
        batch: items a step.
        lr: the highest rate; after `warmup` steps it falls along a cosine to 3% of it, or stays (`constant`).
        save_every: steps between checkpoints, each of them a usable model.
        autocast: float32 computes in float32; bfloat16 and float16 multiply in those, float16 with a loss that is
            scaled up.
        ema: what is exported is a running mean of the weights with this decay, which rises to it as
            (1 + step) / (10 + step) does; 0: the weights themselves.
        accumulate: parts that a step's items are computed in, one after the other; for losses that are means of items.
        optimizer: adamw, or adamw8bit (bitsandbytes, on a GPU), whose moments take a quarter of the memory.
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

    @staticmethod
    def binding(plan: Mapping[str, Any]) -> dict[str, Any]:
        """What a later call cannot change: all but how often it is kept and, where the rate stays, how long it goes."""
        free = {"save_every", "steps"} if plan.get("schedule") == "constant" else {"save_every"}
        return {name: own for name, own in plan.items() if name not in free}

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / max(self.warmup, 1))
        if self.schedule == "constant":
            return self.lr * rising
        return self.lr * rising * (0.5 * (1 + math.cos(math.pi * step / self.steps)) * 0.97 + 0.03)
