"""The loop that every objective shares: seeds, schedule, checkpoints, resume, logs.

A step's randomness comes from (seed, step) alone, so a resumed run needs no more than weights, optimizer and step, and
ends with the same bits as an unbroken one (on a CPU, at one number of threads).
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
        ema: what is exported is a running mean of the weights with this decay, which rises to it as
            (1 + step) / (10 + step) does; 0: the weights themselves.
        accumulate: parts that a step's items are computed in, one after the other; for losses that are means of items.
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
    loss_of: Callable[[Random], Tensor | Iterable[Tensor]],
    plan: Plan,
    out: Path,
    export: Callable[[Mapping[str, Any]], None],
    about: Mapping[str, Any],
    groups: Iterable[Mapping[str, Any]] | None = None,
) -> Mapping[str, Any]:
    """Trains to the plan's end, from the last checkpoint where there is one.

    Args:
        loss_of: the loss of a step, given the step's own source of randomness; torch's is seeded, too. A loss in parts
            is an iterable of them; each part is made after the last one's gradients are in.
        out: gets checkpoint.pt and log.jsonl.
        export: writes the model as others read it; called with the facts of the run, at every checkpoint. With
            `plan.ema` the model holds its mean weights then.
        about: what the result depends on beside the plan; a checkpoint of something else is refused.
        groups: parameter groups; a group's "speed" multiplies the rate, "decays" says whether its weights decay.

    Returns:
        The facts: plan, about, steps, seconds (of training, of all calls), device, last loss.

    Raises:
        MismatchError: the checkpoint is of another plan or data.
        DivergedError: the loss or a gradient is not finite; the step is not taken.
    """
    settings = {"plan": asdict(plan), "about": dict(about)}
    optimizer = torch.optim.AdamW(groups or [{"params": model.parameters()}], plan.lr, (0.9, 0.98))
    for group in optimizer.param_groups:
        group.setdefault("speed", 1.0)
        group["weight_decay"] = plan.weight_decay if group.get("decays", True) else 0.0
    mean = Mean(model, plan.ema)
    done, seconds = _resume(model, optimizer, mean, settings, out)
    started, smooth = time.monotonic() - seconds, float("nan")
    facts: dict[str, Any] = {**settings, "steps": done, "seconds": seconds}
    device = next(model.parameters()).device
    model.train()
    for step in progress(range(done, plan.steps), plan.steps - done, "training", "step"):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step) * group["speed"]
        rng = Random(f"{plan.seed}/{step}")
        torch.manual_seed(rng.getrandbits(62))
        optimizer.zero_grad()
        loss = _backward(loss_of, rng, torch.autocast(device.type, torch.bfloat16, enabled=plan.autocast == "bfloat16"))
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"the loss is {loss} and its gradient's norm {norm} at step {step}; the last good checkpoint is "
                f"{out / CHECKPOINT}. Try a lower rate (--lr), in another folder."
            )
        optimizer.step()
        mean.update(step)
        smooth = loss if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            seconds = time.monotonic() - started
            facts |= {"steps": step + 1, "seconds": round(seconds, 1), "device": str(device), "loss": round(smooth, 4)}
            _save(model, optimizer, mean, facts, out)
            with mean.shown():
                export(facts)
            append_json(out / LOG, {key: facts[key] for key in ("steps", "seconds", "loss")})
            say(f"step {step + 1} of {plan.steps}: loss {smooth:.4f}, {(step + 1) * plan.batch / seconds:.0f} items/s")
    return facts


def _backward(loss_of: Callable[[Random], Tensor | Iterable[Tensor]], rng: Random, precision: torch.autocast) -> float:
    """The gradients of a step, part by part; returns its loss."""
    total = 0.0
    with precision:
        losses = loss_of(rng)
        parts = iter([losses] if isinstance(losses, Tensor) else losses)
        loss = next(parts, None)
    while loss is not None:
        loss.backward()
        total += loss.item()
        with precision:
            loss = next(parts, None)
    return total


class Mean:
    """A running mean of a model's weights, what is exported of a generator (Karras et al., CVPR 2024, section 3)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: own.detach().clone() for name, own in model.named_parameters()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, own in self.model.named_parameters() if self.weights else ():
            self.weights[name].lerp_(own, 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model has the mean weights within."""
        own = {name: self.model.get_parameter(name).detach().clone() for name in self.weights}
        self.model.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            self.model.load_state_dict(own, strict=False)


def _save(model: nn.Module, optimizer: torch.optim.Optimizer, mean: Mean, facts: Mapping[str, Any], out: Path) -> None:
    buffer = io.BytesIO()
    weights = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "mean": mean.weights}
    torch.save({**weights, "facts": dict(facts)}, buffer)
    make_folder(out)
    write_bytes(out / CHECKPOINT, buffer.getvalue())


def _resume(
    model: nn.Module, optimizer: torch.optim.Optimizer, mean: Mean, settings: Mapping[str, Any], out: Path
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
    for name, own in saved["mean"].items():
        mean.weights[name].copy_(own)
    if facts["steps"] < settings["plan"]["steps"]:
        say(f"continuing after step {facts['steps']}")
    return facts["steps"], facts["seconds"]
