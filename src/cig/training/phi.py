"""Trains a phi (textual inversion) for a frozen CLIP; what it learns from is the objective's, each in its own file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cig.encoders import Clip
from cig.formats import write_bytes
from cig.inversion import Im2Text, Phi
from cig.training.card import write_card
from cig.training.loop import train
from cig.training.plan import Plan
from cig.training.step import Step

Network = Phi | Im2Text
PHI = "phi.safetensors"


class Objective(Protocol):
    """What a phi learns from."""

    name: str
    network: type[Phi] | type[Im2Text]  # each paper's own

    @property
    def about(self) -> Mapping[str, Any]:
        """What the result depends on: data and constants."""

    def check(self, plan: Plan) -> None:
        """Raises UsageError for a plan that the loss cannot be computed by."""

    def loss(self, clip: Clip, phi: Network, size: int, step: Step) -> Iterable[Tensor]:
        """This process's parts of a step's loss of `size` items."""


def train_phi(
    clip: Clip,
    objective: Objective,
    plan: Plan,
    out: Path,
    dropout: float = 0.5,
    tensorboard: Path | None = None,
) -> None:
    """Writes `out/phi.safetensors` (fp16) and its card at every checkpoint."""
    objective.check(plan)
    torch.manual_seed(plan.seed)
    widths = (clip.feature_width, 4 * clip.feature_width, clip.token_width)
    phi = objective.network(*widths, dropout).to(clip.device)

    def loss_of(step: Step) -> Iterable[Tensor]:
        return objective.loss(clip, phi, plan.batch, step)

    def export(facts: Mapping[str, Any]) -> None:
        save(phi, out / PHI)
        write_card(out, f"a phi by {objective.name}", facts)

    models = {"objective": objective.name, "dropout": dropout, "clip": dict(clip.identity)}
    train(phi, loss_of, plan, out, export, {**models, **objective.about}, tensorboard=tensorboard)


def save(phi: Network, path: Path) -> None:
    """fp16; layers.{0,3,6} as LinCIR's checkpoints have them, or layers.{0,1}.0 and fc_out as Pic2Word's."""
    import safetensors.torch

    weights = {name: own.detach().half().cpu().contiguous() for name, own in phi.state_dict().items()}
    write_bytes(path, safetensors.torch.save(weights))
