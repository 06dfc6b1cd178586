"""The loop that all objectives share: steps, checkpoints, validation and logs, in one process or several."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from cig.errors import CigError, some
from cig.io.json_files import append_json, write_json
from cig.io.locks import hold
from cig.runtime import Interrupted, finished_before_a_stop, number, progress, say
from cig.training import processes
from cig.training.checkpoint import CHECKPOINT, Groups, TrainingState, new_state, resume, save
from cig.training.plan import Plan
from cig.training.step import Step
from cig.training.tensorboard import open_tracker

LOG = "log.jsonl"


class DivergedError(CigError):
    """The loss is not finite any more; the last good checkpoint is kept."""


Loss = Callable[[Step], Tensor | Iterable[Tensor]]
Validate = Callable[[], Mapping[str, float]]
Export = Callable[[Mapping[str, Any]], None]


def train(
    model: nn.Module,
    loss_of: Loss,
    plan: Plan,
    *,
    out: Path,
    export: Export,
    inputs: Mapping[str, Any],
    groups: Groups | None = None,
    validate: Validate | None = None,
    tensorboard: Path | None = None,
) -> Mapping[str, Any]:
    """Train to the plan's end, from the last checkpoint if there is one.

    Args:
        loss_of: the loss of a step. A loss in parts is an iterable of them; each part is computed after the gradients
            of the part before. With several processes it is each one's share: their gradients are summed.
        out: gets checkpoint.pt and log.jsonl.
        export: writes the model for other programs; called with the facts of the run at every checkpoint. With
            `plan.ema` the model has its mean weights then. With `validate`, `facts["best"]` is a step and its scores;
            if that is this step, the model is the best so far.
        inputs: what the result depends on beside the plan ("about" in the files); other inputs refuse a checkpoint.
        groups: parameter groups; a group's "speed" multiplies the rate, "decays" says whether its weights decay.
        validate: returns the model's scores at every checkpoint; a higher first score is better.
        tensorboard: a folder for event files.

    Returns:
        The facts: plan, about, steps, seconds (of training, over all calls), device, last loss, and, with `validate`,
        scores and best.

    Raises:
        MismatchError: the checkpoint is of another plan or data.
        UsageError: another training writes to the folder.
        DivergedError: the loss or a gradient is not finite; the step is not taken, its ids are in diverged.json.
    """
    settings = {"plan": asdict(plan), "about": dict(inputs)}
    state, tracker = new_state(model, plan, groups), open_tracker(tensorboard)
    with hold(out, "training") if processes.rank() == 0 else nullcontext():
        facts = {**settings, "steps": 0, "seconds": 0.0, **resume(state, settings, out)}
        # A stop can fall between the checkpoint and its model, which are several files: then the log lacks its line.
        if processes.rank() == 0 and _last_logged_step(out) < facts["steps"]:
            _write_model(state, facts, out=out, export=export)
        started = time.monotonic() - facts["seconds"]
        steps = range(facts["steps"], plan.steps)
        model.train()
        for number in progress(steps, len(steps), "training", unit="step", finish=False):
            with _told_where(number, facts["steps"]):
                loss = _take_step(state, loss_of, plan, number=number, out=out)
            if tracker:
                tracker.log({"loss": loss, "rate": plan.rate(number)}, step=number + 1)
            facts["loss"] = 0.95 * facts.get("loss", loss) + 0.05 * loss
            if (number + 1) % plan.save_every == 0 or number + 1 == plan.steps:
                facts |= {"steps": number + 1, "seconds": time.monotonic() - started, "device": str(state.device)}
                with finished_before_a_stop(f"the checkpoint of step {number + 1}"):
                    _checkpoint(state, facts, plan, out=out, export=export, validate=validate)
                if tracker:
                    tracker.log(facts.get("scores", {}), step=number + 1)
        if tracker:
            tracker.finish()
        return facts


@contextmanager
def _told_where(number: int, saved: int) -> Iterator[None]:
    """Say where a stop within a step, counted from 0, finds the training."""
    try:
        yield
    except KeyboardInterrupt as stop:
        checkpoint = f"the last checkpoint is of step {saved}" if saved else "there is no checkpoint yet"
        raise Interrupted(f"training stopped in step {number + 1}; {checkpoint}") from stop


def _take_step(state: TrainingState, loss_of: Loss, plan: Plan, *, number: int, out: Path) -> float:
    """Take one step of the optimizer and return its loss."""
    # All randomness of a step comes from (seed, step): the data's order, what the objective draws, dropout. So weights,
    # optimizer and step number are the whole state, and a resumed run ends with the same bits as an unbroken one (on a
    # CPU, with the same number of threads).
    for group in state.optimizer.param_groups:
        group["lr"] = plan.rate(number) * group["speed"]
    step = Step(number, Random(f"{plan.seed}/{number}"), plan.accumulate, seed=plan.seed)
    torch.manual_seed(step.rng.getrandbits(62))
    state.optimizer.zero_grad()
    loss = _backward(loss_of, step, state.scaler, precision=_precision(plan, state.device))
    loss = processes.summed(loss, state.device)
    processes.sum_gradients(state.model.parameters())
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), plan.clip_norm or math.inf).item()
    # An infinite gradient in float16 may be an overflow: the scaler skips that step and halves its scale. Once it
    # cannot scale down, or if the loss itself is not finite, the weights would be lost, so training stops.
    if not math.isfinite(loss) or not (math.isfinite(norm) or state.can_scale_down()):
        raise _diverged(step, out, loss=loss, norm=norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.mean.update(number)
    return loss


def _backward(loss_of: Loss, step: Step, scaler: torch.amp.GradScaler, *, precision: torch.autocast) -> float:
    """Compute the gradients of a step, part by part, and return its loss."""
    total = 0.0
    with precision, _stoppable(precision.device):
        losses = loss_of(step)
        parts = iter([losses] if isinstance(losses, Tensor) else losses)
        loss = next(parts, None)
    while loss is not None:
        scaler.scale(loss).backward()
        total += loss.item()
        with precision, _stoppable(precision.device):
            loss = next(parts, None)
    return total


def _stoppable(device: str) -> AbstractContextManager[Any]:
    """Let Ctrl-C stop the computation of gradients on a CPU between two of its operations."""
    # A signal raises KeyboardInterrupt when the main thread next runs Python, and the backward pass of a large batch
    # runs none for minutes. These hooks are Python, called for each tensor that was kept, and change no number.
    return saved_tensors_hooks(Tensor.detach, lambda kept: kept) if device == "cpu" else nullcontext()


def _precision(plan: Plan, device: torch.device) -> torch.autocast:
    if plan.autocast == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, getattr(torch, plan.autocast))


def _diverged(step: Step, out: Path, *, loss: float, norm: float) -> DivergedError:
    where = out / ("diverged.json" if processes.world() == 1 else f"diverged-{processes.rank()}.json")
    write_json(where, {"step": step.number, "loss": str(loss), "gradient": str(norm), "ids": step.ids})
    saved = f"the last good checkpoint is {out / CHECKPOINT}" if (out / CHECKPOINT).exists() else "no checkpoint yet"
    return DivergedError(
        f"the loss is {loss} and its gradient's norm {norm} at step {step.number}, of {some(step.ids, 5)} "
        f"(all in {where}); {saved}. Try a lower rate (--lr), in another folder."
    )


def _checkpoint(
    state: TrainingState, facts: dict[str, Any], plan: Plan, *, out: Path, export: Export, validate: Validate | None
) -> None:
    """Validate the model in all processes; then the first process saves the state and writes the model."""
    if validate:
        with state.mean.applied(), _evaluation_mode(state.model):
            scores = facts["scores"] = dict(validate())
        measure = next(iter(scores))
        if "best" not in facts or scores[measure] > facts["best"][measure]:
            facts["best"] = {"steps": facts["steps"], **scores}
    if processes.rank() == 0:
        # The steps come first: writing a large model may fail, and a rerun then writes it from the checkpoint.
        save(state, facts, out)
        _write_model(state, facts, out=out, export=export)
        listed = "".join(f", {name} {score:.2f}" for name, score in facts.get("scores", {}).items())
        pace = facts["steps"] * plan.batch / facts["seconds"]
        say(f"step {facts['steps']} of {plan.steps}: loss {facts['loss']:.4f}{listed}, {number(pace)} items/s")
    processes.wait()


def _write_model(state: TrainingState, facts: Mapping[str, Any], *, out: Path, export: Export) -> None:
    """Write the model for other programs, then the line in the log that says so."""
    with state.mean.applied(), _evaluation_mode(state.model):
        export({**facts, **_rounded(facts)})
    append_json(out / LOG, _log_line(facts))


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off within the context."""
    model.eval()
    try:
        yield
    finally:
        model.train()


def _rounded(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"steps": facts["steps"], "seconds": round(facts["seconds"], 1), "loss": round(facts["loss"], 4)}


def _log_line(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {**_rounded(facts), **facts.get("scores", {})}


def _last_logged_step(out: Path) -> int:
    """Return the step of the log's last whole line; a kill can leave half a line."""
    steps = 0
    for line in (out / LOG).read_text().splitlines() if (out / LOG).exists() else ():
        with suppress(ValueError, KeyError):
            steps = json.loads(line)["steps"]
    return steps
