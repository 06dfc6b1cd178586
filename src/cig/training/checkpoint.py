"""The state of a training between steps: how checkpoint.pt holds it, and how a rerun takes it up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cig.errors import InputError, MismatchError, UsageError
from cig.io.tensors import map_checkpoint
from cig.io.weight_files import write_pt
from cig.runtime import say
from cig.training.plan import Plan, differences

CHECKPOINT = "checkpoint.pt"
Groups = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class TrainingState:
    """Everything that a step changes; the order of data, dropout and noise follow from the step's number."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    mean: WeightMean
    scaler: torch.amp.GradScaler

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def can_scale_down(self) -> bool:
        """Tell whether an infinite gradient may be an overflow of float16, which a smaller scale avoids."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def to_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: no frozen weights, which a rerun loads from where they came from."""
        frozen = self._frozen()
        return {
            "model": {name: weight for name, weight in self.model.state_dict().items() if name not in frozen},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "mean": self.mean.weights,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        self.model.load_state_dict({**self._frozen(), **saved["model"]})
        self.optimizer.load_state_dict(saved["optimizer"])
        for moments in self.optimizer.state.values():  # what stays on the CPU is the mapped file's memory
            tensors = {name: value for name, value in moments.items() if isinstance(value, Tensor) and value.is_cpu}
            moments |= {name: value.clone() for name, value in tensors.items()}
        self.scaler.load_state_dict(saved["scaler"])
        for name, weight in saved["mean"].items():
            self.mean.weights[name].copy_(weight)

    def _frozen(self) -> dict[str, nn.Parameter]:
        named = self.model.named_parameters(remove_duplicate=False)
        return {name: weight for name, weight in named if not weight.requires_grad}


class WeightMean:
    """A running mean of the trained weights, for export (Karras et al., CVPR 2024, section 3)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the model's weights; a decay of 0 keeps no mean."""
        self.model, self.decay = model, decay
        self.weights = {name: weight.detach().clone() for name, weight in trainable(model)} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the weights after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, weight in trainable(self.model) if self.weights else ():
            self.weights[name].lerp_(weight, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the mean weights within the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the model's weights and their means, one by one: a copy of all would take as much memory again."""
        for name, mean in self.weights.items():
            weight = self.model.get_parameter(name)
            last = weight.clone()
            weight.copy_(mean)
            mean.copy_(last)


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the name and value of each weight that is not frozen."""
    yield from ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def new_state(model: nn.Module, plan: Plan, groups: Groups | None = None) -> TrainingState:
    """Return the state before the first step.

    Raises:
        UsageError: the optimizer needs a library that is not installed.
    """
    optimizer = _optimizer(plan)(groups or _groups(model, plan), lr=plan.lr, betas=(0.9, plan.beta2), eps=plan.eps)
    for group in optimizer.param_groups:
        group.setdefault("speed", 1.0)
        group["weight_decay"] = plan.weight_decay if group.get("decays", True) else 0.0
    device = next(model.parameters()).device.type
    scaler = torch.amp.GradScaler(device, enabled=plan.autocast == "float16")
    return TrainingState(model, optimizer, mean=WeightMean(model, plan.ema), scaler=scaler)


def _groups(model: nn.Module, plan: Plan) -> Groups:
    weights = [weight for _, weight in trainable(model)]
    if plan.decay_biases:
        return [{"params": weights}]
    vectors, matrices = ([weight for weight in weights if (weight.ndim > 1) == wide] for wide in (False, True))
    return [{"params": vectors, "decays": False}, {"params": matrices}]


def save(state: TrainingState, facts: Mapping[str, Any], out: Path) -> None:
    """Write the checkpoint, whole or not at all."""
    write_pt(out / CHECKPOINT, {**state.to_dict(), "facts": dict(facts)})


def resume(state: TrainingState, settings: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Load the checkpoint in `out` into the state and return its facts; without a checkpoint, return none.

    Raises:
        MismatchError: the checkpoint belongs to another training.
        InputError: the file is something else.
    """
    if not (out / CHECKPOINT).exists():
        return {}
    saved = map_checkpoint(out / CHECKPOINT)
    facts: dict[str, Any] = saved.get("facts", {})
    if not {"plan", "about", "steps"} <= set(facts):
        raise InputError(f"{out / CHECKPOINT} is no checkpoint of a training here; give another --out")
    # A resumed run must end with the bits of an unbroken one. So every setting that moves a weight has to be the same:
    # the plan, and what the caller lists beside it (data, models, sizes). Only the pace of checkpoints may change, and
    # the number of steps where the rate does not depend on it (Plan.binding).
    now, then = ({**part, "plan": Plan.binding(part["plan"])} for part in (settings, facts))
    if different := [line for part in now for line in differences(then[part], now[part])]:
        raise MismatchError(
            f"{out} holds a checkpoint of another training ({'; '.join(different)}); "
            f"give another --out, or the same flags"
        )
    state.load(saved)
    left = settings["plan"]["steps"] - facts["steps"]
    done = f"{out}: {facts['steps']} steps, all of them, are done"
    say(f"continuing after step {facts['steps']}" if left > 0 else done)
    return {**facts, **settings}


def _optimizer(plan: Plan) -> Any:
    if plan.optimizer == "adamw":
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UsageError("adamw8bit needs bitsandbytes: pip install bitsandbytes, or --optimizer adamw") from error
    return AdamW8bit
