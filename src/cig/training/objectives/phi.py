"""Trains a phi (textual inversion) for a frozen CLIP; what it learns from is the objective's, each in its own file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cig.errors import CigError, some
from cig.io.digests import identity
from cig.models.clip import Clip
from cig.models.phi import Im2Text, Phi, checkpoint_kind, need_fit, read_phi
from cig.runtime import say
from cig.training.data.decoding import facts_of_unreadable
from cig.training.loop import train
from cig.training.model_card import scores_text, write_card
from cig.training.phi_files import Layout, Network, file_names, write_phi
from cig.training.plan import Plan
from cig.training.step import Step
from cig.training.validation import Validation, validator

RISE = 100  # steps, at most, where the rate is constant


@dataclass(frozen=True)
class Pace:
    """How an objective is trained as published; LinCIR's, where nothing else is said.

    Attributes:
        passes: over the data, which say how many steps there are; 0: `steps` does.
    """

    steps: int = 20_000
    batch: int = 512
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: int = 1
    schedule: str = "constant"
    dropout: float = 0.5
    passes: int = 0

    def given(self, per_pass: int, **asked: Any) -> dict[str, Any]:
        """What was asked for, by `Plan`'s flags, and for None what is published.

        The rate rises over a tenth of the steps at most, or over 100 where it is constant: a short run with the
        published rise would never reach it. (A constant run of fewer does not, either: give the warmup.)

        Args:
            per_pass: items of the data; 0: it has no end.
        """
        own = {key: value for key, value in asked.items() if value is not None}
        batch = own.get("batch_size", self.batch)
        by_passes = -(-self.passes * per_pass // max(batch, 1))
        steps = own.get("steps", by_passes or self.steps)
        goes_on = own.get("schedule", self.schedule) == "constant"  # with more steps than now, whose tenth is another
        warmup = max(1, min(self.warmup, RISE if goes_on else steps // 10))
        pace = {"lr": self.lr, "warmup": warmup, "schedule": self.schedule, "weight_decay": self.weight_decay}
        return {"steps": steps, "batch_size": batch, **pace, **own}


class Objective(Protocol):
    """What a phi learns from."""

    name: str  # that of the method which searches by it
    network: type[Phi] | type[Im2Text]  # each paper's own
    pace: Pace  # as published

    @property
    def about(self) -> Mapping[str, Any]:
        """What the result depends on: data and constants."""

    @property
    def per_pass(self) -> int:
        """Items of the data; 0 where it has no end."""

    def hidden(self, width: int) -> int:
        """The network's inner width, for a CLIP's features of this width."""

    def check(self, plan: Plan) -> None:
        """Raises UsageError for a plan that the loss cannot be computed by."""

    def loss(self, clip: Clip, phi: Network, size: int, step: Step) -> Iterable[Tensor]:
        """This process's parts of a step's loss of `size` items."""


def train_phi(
    clip: Clip,
    objective: Objective,
    plan: Plan,
    out: Path,
    dropout: float | None = None,
    tensorboard: Path | None = None,
    start: Path | None = None,
    layout: Layout = "safetensors",
    validation: Validation | None = None,
) -> Mapping[str, Any]:
    """Writes a phi and its card to `out` at every checkpoint; returns the loop's facts.

    Args:
        dropout: between the layers; by default as published.
        start: a phi to begin with, of either kind and in any layout.
        layout: see `layouts.py`.
        validation: asked at every checkpoint; the best phi is kept beside the last.

    Raises:
        MismatchError: `start` does not fit the CLIP.
    """
    objective.check(plan)
    torch.manual_seed(plan.seed)
    dropout = objective.pace.dropout if dropout is None else dropout
    phi = begun(clip, objective, dropout, start).to(clip.device)
    about = {"objective": objective.name, "dropout": dropout, "clip": dict(clip.identity), **objective.about}
    about |= {"layout": layout, **({"start": identity(start)} if start else {})}
    about |= {"validate": validation.identity} if validation else {}

    def loss_of(step: Step) -> Iterable[Tensor]:
        return objective.loss(clip, phi, plan.batch, step)

    def export(facts: Mapping[str, Any]) -> None:
        write_phi(phi, out, layout, facts=facts, items_per_pass=objective.per_pass)
        write_card(out, f"a phi by {objective.name}", {**facts, **facts_of_unreadable(out)})

    scores = validator(validation, objective.name, clip, phi=phi) if validation else None
    facts = train(phi, loss_of, plan, out=out, export=export, inputs=about, validate=scores, tensorboard=tensorboard)
    _, last, best = file_names(layout, facts)
    if gone := [name for name in dict.fromkeys((last, best) if validation else (last,)) if not (out / name).is_file()]:
        raise CigError(f"{out} was trained to the end, but {some(gone)} is gone; train it again, in another --out")
    if validation:
        say(f"{scores_text(facts)}; the best is {out / best}, the last {out / last}")
    return facts


def begun(clip: Clip, objective: Objective, dropout: float, start: Path | None = None) -> Network:
    """A new network, or one that was trained before."""
    if not start:
        width = clip.feature_width
        return objective.network(width, objective.hidden(width), clip.token_width, dropout=dropout)
    kind = checkpoint_kind(start)
    weights, (width, hidden, words) = read_phi(start, kind)
    need_fit(start, (width, words), clip.identity["source"], widths=(clip.feature_width, clip.token_width))
    phi = kind.network(width, hidden, words, dropout=dropout)
    phi.load_state_dict(weights)
    return phi
