"""The loop that every objective shares: seeds, schedule, checkpoints, resume, logs.

A step's randomness comes from (seed, step) alone, so a resumed run needs no more than weights, optimizer and step, and
ends with the same bits as an unbroken one (on a CPU, at one number of threads).
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from cig.errors import CigError, MismatchError
from cig.formats import append_json, make_folder, write_bytes
from cig.runtime import progress, say
from cig.tensors import read_tensors

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    Attributes:
        steps: all of them, those of earlier calls included.
        batch: items a step.
        lr: the highest rate; after `warmup` steps it falls along a cosine to 3% of it, or stays (`constant`).
        save_every: steps between checkpoints, each of them a usable model.
        autocast: float32 computes in float32; bfloat16 multiplies in bfloat16.
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

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / max(self.warmup, 1))
        if self.schedule == "constant":
            return self.lr * rising
        return self.lr * rising * (0.5 * (1 + math.cos(math.pi * step / self.steps)) * 0.97 + 0.03)


class DivergedError(CigError):
    """The loss is no number any more; the last good checkpoint is kept."""


def train(
    model: nn.Module,
    loss_of: Callable[[Random], Tensor],
    plan: Plan,
    out: Path,
    export: Callable[[Mapping[str, Any]], None],
    about: Mapping[str, Any],
    groups: Iterable[Mapping[str, Any]] | None = None,
) -> Mapping[str, Any]:
    """Trains to the plan's end, from the last checkpoint where there is one.

    Args:
        loss_of: the loss of a step, given the step's own source of randomness; torch's is seeded, too.
        out: gets checkpoint.pt and log.jsonl.
        export: writes the model as others read it; called with the facts of the run, at every checkpoint.
        about: what the result depends on beside the plan; a checkpoint of something else is refused.
        groups: parameter groups; a group's "speed" multiplies the rate, "decays" says whether its weights decay.

    Returns:
        The facts: plan, about, steps, seconds (of training, of all calls), device, last loss.

    Raises:
        MismatchError: the checkpoint is of another plan or data.
        DivergedError: the loss is not finite.
    """
    settings = {"plan": asdict(plan), "about": dict(about)}
    optimizer = torch.optim.AdamW(groups or [{"params": model.parameters()}], plan.lr, (0.9, 0.98))
    for group in optimizer.param_groups:
        group.setdefault("speed", 1.0)
        group["weight_decay"] = plan.weight_decay if group.get("decays", True) else 0.0
    done, seconds = _resume(model, optimizer, settings, out)
    started, smooth = time.monotonic() - seconds, float("nan")
    facts: dict[str, Any] = {**settings, "steps": done, "seconds": seconds}
    device = next(model.parameters()).device
    model.train()
    for step in progress(range(done, plan.steps), plan.steps - done, "training", "step"):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step) * group["speed"]
        rng = Random(f"{plan.seed}/{step}")
        torch.manual_seed(rng.getrandbits(62))
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.autocast == "bfloat16"):
            loss = loss_of(rng)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss.item()} at step {step}; the last good checkpoint is {out / CHECKPOINT}. "
                f"Try a lower rate (--lr), in another folder."
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smooth = loss.item() if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss.item()
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            seconds = time.monotonic() - started
            facts |= {"steps": step + 1, "seconds": round(seconds, 1), "device": str(device), "loss": round(smooth, 4)}
            _save(model, optimizer, facts, out)
            export(facts)
            append_json(out / LOG, {key: facts[key] for key in ("steps", "seconds", "loss")})
            say(f"step {step + 1} of {plan.steps}: loss {smooth:.4f}, {(step + 1) * plan.batch / seconds:.0f} items/s")
    return facts


def _save(model: nn.Module, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any], out: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "facts": dict(facts)}, buffer)
    make_folder(out)
    write_bytes(out / CHECKPOINT, buffer.getvalue())


def _resume(
    model: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], out: Path
) -> tuple[int, float]:
    """(steps done, seconds they took)."""
    if not (out / CHECKPOINT).exists():
        return 0, 0.0
    saved = read_tensors(out / CHECKPOINT)
    facts = saved["facts"]
    different = [
        f"{key}: {facts[part].get(key)} there, {own.get(key)} now"
        for part, own in settings.items()
        for key in {**own, **facts[part]}
        if facts[part].get(key) != own.get(key)
    ]
    if different:
        raise MismatchError(
            f"{out} holds a checkpoint of another training ({'; '.join(different)}); "
            f"give another --out, or the same flags"
        )
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    if facts["steps"] < settings["plan"]["steps"]:
        say(f"continuing after step {facts['steps']}")
    return facts["steps"], facts["seconds"]
