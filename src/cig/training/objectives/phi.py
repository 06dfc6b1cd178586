"""Train a phi (textual inversion) for a frozen CLIP by one of the objectives, each in its own file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cig.errors import CigError, some
from cig.io.digests import identity
from cig.io.files import phi_in
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

RISE = 100  # warmup steps, at most, of a constant rate


@dataclass(frozen=True)
class TrainingDefaults:
    """The published settings of an objective's training; the defaults here are LinCIR's.

    Attributes:
        passes: over the data, which determine the steps; 0: `steps` counts.
    """

    steps: int = 20_000
    batch: int = 512
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: int = 1
    schedule: str = "constant"
    dropout: float = 0.5
    passes: int = 0
    beta2: float = 0.999
    eps: float = 1e-8
    decay_biases: bool = True

    def flags(self, per_pass: int, **given: Any) -> dict[str, Any]:
        """Return the flags of a plan: those that are given, and the published settings for None.

        Args:
            per_pass: items of the data; 0: it has no end.
        """
        # With the published warmup a short run would never reach the rate, so it is a tenth of the steps at most. A run
        # at a constant rate can be continued with more steps, which must not change its warmup: there, it is 100 steps
        # at most. (A constant run of fewer steps does not reach the rate, either; then --warmup has to be given.)
        flags = {key: value for key, value in given.items() if value is not None}
        batch = flags.get("batch_size", self.batch)
        by_passes = -(-self.passes * per_pass // max(batch, 1))
        steps = flags.get("steps", by_passes or self.steps)
        constant = flags.get("schedule", self.schedule) == "constant"
        warmup = max(1, min(self.warmup, RISE if constant else steps // 10))
        published = {"lr": self.lr, "warmup": warmup, "schedule": self.schedule, "weight_decay": self.weight_decay}
        adamw = {"beta2": self.beta2, "eps": self.eps, "decay_biases": self.decay_biases}
        return {"steps": steps, "batch_size": batch, **published, **adamw, **flags}


class Objective(Protocol):
    """The data and the loss that train a phi."""

    name: str  # of the family of methods that searches with the phi
    network: type[Phi] | type[Im2Text]  # the paper's
    defaults: TrainingDefaults

    @property
    def inputs(self) -> Mapping[str, Any]:
        """All that the result depends on: data and constants."""

    @property
    def per_pass(self) -> int:
        """Items of the data; 0 if it has no end."""

    def hidden(self, width: int) -> int:
        """Return the network's inner width, for a CLIP's features of this width."""

    def check(self, plan: Plan) -> None:
        """Raise UsageError for a plan by which the loss cannot be computed."""

    def loss(self, clip: Clip, phi: Network, size: int, *, step: Step) -> Iterable[Tensor]:
        """Return this process's parts of the loss of a step of `size` items."""


def train_phi(
    clip: Clip,
    objective: Objective,
    plan: Plan,
    *,
    out: Path,
    dropout: float | None = None,
    tensorboard: Path | None = None,
    start: Path | None = None,
    layout: Layout = "safetensors",
    validation: Validation | None = None,
) -> Mapping[str, Any]:
    """Write a phi and its card to `out` at every checkpoint; return the loop's facts.

    Args:
        dropout: between the layers; by default as published.
        start: a phi to start from, of either kind and in any layout.
        layout: see `phi_files.py`.
        validation: scores every checkpoint; the best phi is kept beside the last.

    Raises:
        MismatchError: `start` does not fit the CLIP.
    """
    objective.check(plan)
    torch.manual_seed(plan.seed)
    dropout = objective.defaults.dropout if dropout is None else dropout
    phi = start_phi(clip, objective, dropout=dropout, start=start).to(clip.device)
    inputs = {"objective": objective.name, "dropout": dropout, "clip": dict(clip.identity), **objective.inputs}
    inputs |= {"layout": layout, **({"start": identity(start)} if start else {})}
    inputs |= {"validate": validation.identity} if validation else {}

    def loss_of(step: Step) -> Iterable[Tensor]:
        return objective.loss(clip, phi, plan.batch, step=step)

    def export(facts: Mapping[str, Any]) -> None:
        write_phi(phi, out, layout, facts=facts, clip=clip, items_per_pass=objective.per_pass)
        write_card(out, f"a phi by {objective.name}", {**facts, **facts_of_unreadable(out)})

    scores = validator(validation, objective.name, clip, phi=phi) if validation else None
    facts = train(phi, loss_of, plan, out=out, export=export, inputs=inputs, validate=scores, tensorboard=tensorboard)
    _, last, best = file_names(layout, facts)
    expected = dict.fromkeys((last, best) if validation else (last,))
    if gone := [name for name in expected if not (out / name).is_file()]:
        raise CigError(f"{out} was trained to the end, but {some(gone)} is gone; train it again, in another --out")
    if validation:
        say(f"{scores_text(facts)}; the best is {out / best}, the last {out / last}")
    return facts


def start_phi(clip: Clip, objective: Objective, *, dropout: float, start: Path | None = None) -> Network:
    """Return a network with random weights, or with those of `start`; raises MismatchError."""
    if not start:
        width = clip.feature_width
        return objective.network(width, objective.hidden(width), clip.token_width, dropout=dropout)
    start = phi_in(start)
    kind = checkpoint_kind(start)
    weights, (width, hidden, words) = read_phi(start, kind)
    need_fit(start, (width, words), clip.identity["source"], widths=(clip.feature_width, clip.token_width))
    phi = kind.network(width, hidden, words, dropout=dropout)
    phi.load_state_dict(weights)
    return phi
