"""The loop that every objective shares: steps, checkpoints, validation, logs, by one process or several.

A step's randomness comes from (seed, step) alone, so a resumed run needs no more than weights, optimizer and step, and
ends with the same bits as an unbroken one (on a CPU, at one number of threads).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from cig.errors import CigError, some
from cig.io.files import make_folder
from cig.io.json_files import append_json, write_json
from cig.runtime import progress, say
from cig.training import processes
from cig.training.checkpoint import CHECKPOINT, Groups, State, begin, resume, save
from cig.training.plan import Plan
from cig.training.step import Step
from cig.training.tensorboard import Board

LOG = "log.jsonl"


class DivergedError(CigError):
    """The loss is no number any more; the last good checkpoint is kept."""


Loss = Callable[[Step], Tensor | Iterable[Tensor]]
Validate = Callable[[], Mapping[str, float]]
Export = Callable[[Mapping[str, Any]], None]


def train(
    model: nn.Module,
    loss_of: Loss,
    plan: Plan,
    out: Path,
    export: Export,
    about: Mapping[str, Any],
    groups: Groups | None = None,
    validate: Validate | None = None,
    tensorboard: Path | None = None,
) -> Mapping[str, Any]:
    """Trains to the plan's end, from the last checkpoint where there is one.

    Args:
        loss_of: the loss of a step. A loss in parts is an iterable of them; each part is made after the last one's
            gradients are in. With several processes it is each one's share: what they make is added up.
        out: gets checkpoint.pt and log.jsonl.
        export: writes the model as others read it; called with the facts of the run, at every checkpoint. With
            `plan.ema` the model holds its mean weights then. With `validate`, `facts["best"]` is a step and its scores;
            where that is this step, the model is the best so far.
        about: what the result depends on beside the plan; a checkpoint of something else is refused.
        groups: parameter groups; a group's "speed" multiplies the rate, "decays" says whether its weights decay.
        validate: scores of the model, asked for at every checkpoint; more of the first one is better.
        tensorboard: a folder for its event files.

    Returns:
        The facts: plan, about, steps, seconds (of training, of all calls), device, last loss, and, with `validate`,
        scores and best.

    Raises:
        MismatchError: the checkpoint is of another plan or data.
        DivergedError: the loss or a gradient is not finite; the step is not taken, its ids are in diverged.json.
    """
    settings = {"plan": asdict(plan), "about": dict(about)}
    state, board = begin(model, plan, groups), Board(tensorboard)
    make_folder(out)
    facts = {**settings, "steps": 0, "seconds": 0.0, **resume(state, settings, out)}
    if facts["steps"] and processes.rank() == 0 and _last_logged(out) < facts["steps"]:
        append_json(out / LOG, _line(facts))  # which a kill after the checkpoint had lost
    started = time.monotonic() - facts["seconds"]
    steps = range(facts["steps"], plan.steps)
    model.train()
    for number in progress(steps, len(steps), "training", "step"):
        loss = _step(state, loss_of, plan, number, out)
        board.put(number + 1, {"loss": loss, "rate": plan.rate(number)})
        facts["loss"] = 0.95 * facts.get("loss", loss) + 0.05 * loss
        if (number + 1) % plan.save_every == 0 or number + 1 == plan.steps:
            facts |= {"steps": number + 1, "seconds": time.monotonic() - started, "device": str(state.device)}
            _keep(state, facts, plan, out, export, validate)
            board.put(number + 1, facts.get("scores", {}))
    board.close()
    return facts


def _step(state: State, loss_of: Loss, plan: Plan, number: int, out: Path) -> float:
    """One step of the optimizer; returns its loss."""
    for group in state.optimizer.param_groups:
        group["lr"] = plan.rate(number) * group["speed"]
    step = Step(number, Random(f"{plan.seed}/{number}"), plan.accumulate, plan.seed)
    torch.manual_seed(step.rng.getrandbits(62))
    state.optimizer.zero_grad()
    loss = processes.summed(_backward(loss_of, step, state.scaler, _precision(plan, state.device)), state.device)
    processes.sum_gradients(state.model.parameters())
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), 1.0).item()
    if not math.isfinite(loss) or not (math.isfinite(norm) or state.can_scale_down()):
        raise _diverged(loss, norm, step, out)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.mean.update(number)
    return loss


def _keep(
    state: State, facts: dict[str, Any], plan: Plan, out: Path, export: Export, validate: Validate | None
) -> None:
    """A checkpoint, by the first process; the model is exported before, so that what is kept can be used."""
    with state.mean.shown(), _resting(state.model):
        if validate:
            _note(facts, validate())
        if processes.rank() == 0:
            export({**facts, **_rounded(facts)})
    if processes.rank() == 0:
        save(state, facts, out)
        append_json(out / LOG, _line(facts))
        say(_told(facts, plan))
    processes.wait()


def _rounded(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"steps": facts["steps"], "seconds": round(facts["seconds"], 1), "loss": round(facts["loss"], 4)}


def _line(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's, in the log."""
    return {**_rounded(facts), **facts.get("scores", {})}


def _last_logged(out: Path) -> int:
    """The steps of the log's last whole line."""
    steps = 0
    for line in (out / LOG).read_text().splitlines() if (out / LOG).exists() else ():
        with suppress(ValueError, KeyError):  # a line that a kill tore
            steps = json.loads(line)["steps"]
    return steps


def _diverged(loss: float, norm: float, step: Step, out: Path) -> DivergedError:
    where = out / ("diverged.json" if processes.world() == 1 else f"diverged-{processes.rank()}.json")
    write_json(where, {"step": step.number, "loss": str(loss), "gradient": str(norm), "ids": step.ids})
    saved = f"the last good checkpoint is {out / CHECKPOINT}" if (out / CHECKPOINT).exists() else "no checkpoint yet"
    return DivergedError(
        f"the loss is {loss} and its gradient's norm {norm} at step {step.number}, of {some(step.ids, 5)} "
        f"(all in {where}); {saved}. Try a lower rate (--lr), in another folder."
    )


def _backward(loss_of: Loss, step: Step, scaler: torch.amp.GradScaler, precision: torch.autocast) -> float:
    """The gradients of a step, part by part; returns its loss."""
    total = 0.0
    with precision:
        losses = loss_of(step)
        parts = iter([losses] if isinstance(losses, Tensor) else losses)
        loss = next(parts, None)
    while loss is not None:
        scaler.scale(loss).backward()
        total += loss.item()
        with precision:
            loss = next(parts, None)
    return total


def _note(facts: dict[str, Any], scores: Mapping[str, float]) -> None:
    """Notes the scores, and whether they are the best so far."""
    facts["scores"] = dict(scores)
    name = next(iter(scores))
    if "best" not in facts or scores[name] > facts["best"][name]:
        facts["best"] = {"steps": facts["steps"], **scores}


def _told(facts: Mapping[str, Any], plan: Plan) -> str:
    scores = "".join(f", {name} {score:.2f}" for name, score in facts.get("scores", {}).items())
    pace = facts["steps"] * plan.batch / facts["seconds"]
    return f"step {facts['steps']} of {plan.steps}: loss {facts['loss']:.4f}{scores}, {pace:.0f} items/s"


@contextmanager
def _resting(model: nn.Module) -> Iterator[None]:
    """Without dropout, and as before afterwards."""
    model.eval()
    try:
        yield
    finally:
        model.train()


def _precision(plan: Plan, device: torch.device) -> torch.autocast:
    if plan.autocast == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, getattr(torch, plan.autocast))
