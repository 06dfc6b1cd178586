"""Several processes that train one model, one for each GPU: who this one is, and what they tell each other.

Started by `accelerate launch` or `torchrun`; all of them draw the same step, and each computes its share of the items.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from cig.errors import UsageError

PATIENCE = timedelta(days=1)  # with each other: one may fill a shelf or look at a million pictures, while others wait


def world() -> int:
    """How many there are; 1 where nobody started several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This one's number, from 0; the first writes."""
    return int(os.environ.get("RANK", "0"))


def join(device: torch.device) -> torch.device:
    """Joins the others, by the library that suits the device; returns the device of this process."""
    if world() == 1:
        return device
    from accelerate import PartialState

    state: Any = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    own: torch.device = state.device
    return own


def need_one(what: str, instead: str) -> None:
    """Raises UsageError where several processes were started for what one does."""
    if world() > 1:
        raise UsageError(f"{what} was started in {world()} processes, and each would do all of it; {instead}")


def wait() -> None:
    """Until all are here."""
    if world() > 1:
        torch.distributed.barrier()


def summed(value: float, device: torch.device) -> float:
    """A number of each, added."""
    if world() == 1:
        return value
    own = torch.tensor(value, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
    torch.distributed.all_reduce(own)
    return own.item()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Adds up what each has learnt of its items; one without items has learnt zeros."""
    if world() == 1:
        return
    for own in parameters:
        if own.requires_grad:
            own.grad = torch.zeros_like(own) if own.grad is None else own.grad
            torch.distributed.all_reduce(own.grad)


def gathered(rows: Tensor) -> Tensor:
    """The rows of all, in order of rank, with gradients to each one's own; every process has as many.

    A loss of gathered rows is computed by every process alike: divide it by `world()`, since gradients are summed.
    """
    if world() == 1:
        return rows
    found: Tensor = _Gathered.apply(rows)  # type: ignore[no-untyped-call]
    return found


class _Gathered(torch.autograd.Function):
    """Each row's gradient is the sum of what all processes have of it."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.count = len(rows)
        found = [torch.empty_like(rows) for _ in range(world())]
        torch.distributed.all_gather(found, rows.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        return total[rank() * context.count : (rank() + 1) * context.count]


def everyones(places: Sequence[int]) -> list[int]:
    """The places of all, in order of rank."""
    if world() == 1:
        return list(places)
    found: list[list[int]] = [[] for _ in range(world())]
    torch.distributed.all_gather_object(found, list(places))
    return [place for own in found for place in own]
