"""What a training holds between steps, how it is kept in checkpoint.pt, and taken up again."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cig.errors import InputError, MismatchError, UsageError
from cig.io.files import make_folder, write_bytes
from cig.io.tensors import read_tensors
from cig.runtime import say
from cig.training.plan import Plan

CHECKPOINT = "checkpoint.pt"
Groups = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class State:
    """All that a step changes; order of data, dropout and noise are known from the step's number."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    mean: Mean
    scaler: torch.amp.GradScaler

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def can_scale_down(self) -> bool:
        """Whether a gradient that is not finite is float16's fault, and the next step is scaled less."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def to_dict(self) -> dict[str, Any]:
        """What is frozen is not in it: whoever resumes has that already."""
        parts = {"optimizer": self.optimizer, "scaler": self.scaler}
        frozen = self._frozen()
        model = {name: own for name, own in self.model.state_dict().items() if name not in frozen}
        return {"model": model, **{name: own.state_dict() for name, own in parts.items()}, "mean": self.mean.weights}

    def load(self, saved: Mapping[str, Any]) -> None:
        self.model.load_state_dict({**self._frozen(), **saved["model"]})
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        for name, own in saved["mean"].items():
            self.mean.weights[name].copy_(own)

    def _frozen(self) -> dict[str, nn.Parameter]:
        named = self.model.named_parameters(remove_duplicate=False)
        return {name: own for name, own in named if not own.requires_grad}


class Mean:
    """A running mean of what is trained, exported of a generator (Karras et al., CVPR 2024, section 3)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: own.detach().clone() for name, own in trained(model)} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, own in trained(self.model) if self.weights else ():
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


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Weights that are not frozen, by name."""
    yield from ((name, own) for name, own in model.named_parameters() if own.requires_grad)


def begin(model: nn.Module, plan: Plan, groups: Groups | None = None) -> State:
    """Before the first step.

    Raises:
        UsageError: the optimizer needs a library that is not installed.
    """
    alone = [{"params": [own for _, own in trained(model)]}]
    optimizer = _optimizer(plan)(groups or alone, lr=plan.lr, betas=(0.9, 0.98))
    for group in optimizer.param_groups:
        group.setdefault("speed", 1.0)
        group["weight_decay"] = plan.weight_decay if group.get("decays", True) else 0.0
    device = next(model.parameters()).device.type
    scaler = torch.amp.GradScaler(device, enabled=plan.autocast == "float16")
    return State(model, optimizer, Mean(model, plan.ema), scaler)


def save(state: State, facts: Mapping[str, Any], out: Path) -> None:
    buffer = io.BytesIO()
    torch.save({**state.to_dict(), "facts": dict(facts)}, buffer)
    make_folder(out)
    write_bytes(out / CHECKPOINT, buffer.getvalue())


def resume(state: State, settings: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The facts of the checkpoint in `out`, whose state this one gets; none where there is no checkpoint.

    Raises:
        MismatchError: it is of another training.
        InputError: it is something else.
    """
    if not (out / CHECKPOINT).exists():
        return {}
    saved = read_tensors(out / CHECKPOINT)
    facts: dict[str, Any] = saved.get("facts", {})
    if not {"plan", "about", "steps"} <= set(facts):
        raise InputError(f"{out / CHECKPOINT} is no checkpoint of a training here; give another --out")
    now, there = ({**own, "plan": Plan.binding(own["plan"])} for own in (settings, facts))
    different = [
        f"{key}: {there[part].get(key)} there, {own.get(key)} now"
        for part, own in now.items()
        for key in {**own, **there[part]}
        if there[part].get(key) != own.get(key)
    ]
    if different:
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
