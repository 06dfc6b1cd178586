"""Several processes that train one model, one for each GPU: their ranks, and the exchange of numbers and gradients.

`accelerate launch` or `torchrun` starts them. All of them draw the same step, and each computes its share of the items.
The exchange is accelerate's. Its `Accelerator` is not used: it holds one precision for the whole process, where several
trainings may run one after the other; its `backward` divides by the number of parts, where ours have shares of their
own; its `save_state` writes several files, some of them pickles, where a kill must leave one whole checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from cig.errors import UsageError

# Torch gives up after ten minutes by default. One process may encode a cache of latents or decode a million pictures
# for hours while the others wait at the barrier.
TIMEOUT = timedelta(days=1)


def world() -> int:
    """Return the number of processes; 1 unless a launcher started several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number, from 0; process 0 writes files."""
    return int(os.environ.get("RANK", "0"))


def join(device: torch.device) -> torch.device:
    """Join the other processes, by the library that suits the device; return the device of this process."""
    if world() == 1:
        return device
    from accelerate import PartialState

    state: Any = PartialState(cpu=device.type == "cpu", timeout=TIMEOUT)
    assigned: torch.device = state.device
    return assigned


def need_one(what: str, instead: str) -> None:
    """Raise UsageError if several processes were started for work that is not divided among them."""
    if world() > 1:
        raise UsageError(f"{what} was started in {world()} processes, and each would do all of it; {instead}")


def wait() -> None:
    """Wait until all processes arrive here."""
    if world() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def summed(value: float, device: torch.device) -> float:
    """Return the sum of the processes' values."""
    if world() == 1:
        return value
    from accelerate.utils import reduce

    part = torch.tensor(value, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
    return float(reduce(part, "sum").item())


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the processes' gradients; a process without items contributes zeros."""
    if world() == 1:
        return
    from accelerate.utils import reduce

    for parameter in parameters:
        if parameter.requires_grad:
            part = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = reduce(part, "sum")


def gathered(rows: Tensor) -> Tensor:
    """Return the rows of all processes in order of rank, as many from each; gradients flow to every process's rows.

    A loss of gathered rows is computed by every process alike: divide it by `world()`, since gradients are summed.
    """
    if world() == 1:
        return rows
    every: Tensor = _Gathered.apply(rows)  # type: ignore[no-untyped-call]
    return every


class _Gathered(torch.autograd.Function):
    """`accelerate`'s gathering cuts the graph. Here a row's gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.count = len(rows)
        every = [torch.empty_like(rows) for _ in range(world())]
        torch.distributed.all_gather(every, rows.contiguous())
        return torch.cat(every)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        return total[rank() * context.count : (rank() + 1) * context.count]


def gathered_indices(indices: Sequence[int]) -> list[int]:
    """Return the indices of all processes, in order of rank."""
    if world() == 1:
        return list(indices)
    from accelerate.utils import gather_object

    every: list[int] = gather_object(list(indices))
    return every
