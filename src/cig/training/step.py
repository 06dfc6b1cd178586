"""A step of a training, as an objective receives it: random numbers, and the items that this process computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import torch

from cig.errors import UsageError
from cig.training import processes
from cig.training.plan import Plan


@dataclass
class Step:
    """A step. All processes draw the same items, and each computes some of them.

    Attributes:
        number: counted from 0.
        rng: random numbers of the step, the same in all processes; torch's generator is seeded as well.
        parts: each process computes its items in so many parts.
        seed: seeds the dropout, which differs between parts and processes.
        ids: the objective appends the items that it reads; a diverging loss is reported with them.
    """

    number: int
    rng: Random
    parts: int = 1
    seed: int = 0
    ids: list[str] = field(default_factory=list)

    def shares(self, count: int) -> Iterator[tuple[list[int], float]]:
        """Yield the indices of each of this process's parts of `count` items, and the part's share of the whole.

        A loss that is a mean over items is the sum of `share * loss(part)` over the parts of all processes.
        """
        chunks = torch.arange(count).chunk(self.parts * processes.world())
        for number, chunk in list(enumerate(chunks))[processes.rank() :: processes.world()]:
            if len(chunks) > 1:
                self._seed(number)
            yield chunk.tolist(), len(chunk) / count

    def rank_slice(self, count: int) -> slice:
        """Return this process's slice of `count` items that are contrasted with each other (`processes.gathered`)."""
        each = count // processes.world()
        if processes.world() > 1:
            self._seed(processes.rank())
        return slice(processes.rank() * each, (processes.rank() + 1) * each)

    def _seed(self, part: int) -> None:
        """Seed torch for the dropout of one part."""
        # A part's dropout depends on its number, not on the process that computes it. What concerns the whole step
        # (items, noise) is drawn before, from the state that all processes share.
        torch.manual_seed(Random(f"{self.seed}/{self.number}/{part}").getrandbits(62))


def need_whole(plan: Plan, loss: str) -> None:
    """Raise UsageError if a loss that contrasts all items of a step could not see them at once."""
    if plan.accumulate > 1:
        raise UsageError(
            f"{loss} contrasts all items of a step with each other, so it cannot be computed in {plan.accumulate} "
            f"parts: --accumulate 1, with as large a --batch-size as memory holds, or with more processes"
        )
    if plan.batch % processes.world():
        raise UsageError(f"--batch-size {plan.batch} is not a multiple of the {processes.world()} processes")


class Order:
    """An order of items that is shuffled anew for each pass over them and depends on seed and step alone."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._shuffled: tuple[int, list[int]] = (-1, [])  # the last pass that was asked for

    def indices(self, step: int, batch: int) -> list[int]:
        """Return the `batch` items of a step, counted from 0; a batch may end one pass and begin the next."""
        return [self._pass(i // self.count)[i % self.count] for i in range(step * batch, (step + 1) * batch)]

    def _pass(self, number: int) -> list[int]:
        if self._shuffled[0] != number:
            self._shuffled = number, Random(f"{self.seed}/pass/{number}").sample(range(self.count), self.count)
        return self._shuffled[1]
