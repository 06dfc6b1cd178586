"""What an objective is given of a step: randomness that is known from the step alone, and which items are its own."""

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
    """What an objective is given of a step; all processes draw the same items, and each computes some of them.

    Attributes:
        number: from 0.
        rng: its own source of randomness, alike in all processes; torch's is seeded, too.
        parts: that each process computes its items in.
        seed: of the dropout of parts and processes, which is each one's own.
        ids: what the objective has looked at; it appends to them, and they are told where the loss is no number.
    """

    number: int
    rng: Random
    parts: int = 1
    seed: int = 0
    ids: list[str] = field(default_factory=list)

    def shares(self, count: int) -> Iterator[tuple[list[int], float]]:
        """Of `count` items: the places of each of this process's parts, and their share of the whole.

        A loss that is a mean over items is the sum of `share * loss(part)` over the parts of all processes.
        """
        chunks = torch.arange(count).chunk(self.parts * processes.world())
        for number, chunk in list(enumerate(chunks))[processes.rank() :: processes.world()]:
            if len(chunks) > 1:
                self._seed(number)
            yield chunk.tolist(), len(chunk) / count

    def own(self, count: int) -> slice:
        """Of `count` items that are contrasted with each other: this process's (see `processes.gathered`)."""
        each = count // processes.world()
        if processes.world() > 1:
            self._seed(processes.rank())
        return slice(processes.rank() * each, (processes.rank() + 1) * each)

    def _seed(self, part: int) -> None:
        """What is drawn from here on is drawn for one part; all that is drawn for the whole step was drawn before."""
        torch.manual_seed(Random(f"{self.seed}/{self.number}/{part}").getrandbits(62))


def need_whole(plan: Plan, loss: str) -> None:
    """Raises UsageError where a loss that contrasts all items of a step could not see them at once."""
    if plan.accumulate > 1:
        raise UsageError(
            f"{loss} contrasts all items of a step with each other, so it cannot be computed in {plan.accumulate} "
            f"parts: --accumulate 1, with as large a --batch-size as memory holds, or with more processes"
        )
    if plan.batch % processes.world():
        raise UsageError(f"--batch-size {plan.batch} is not a multiple of the {processes.world()} processes")


class Order:
    """Items in an order that is drawn anew for each pass over them, known from the step alone."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._drawn: tuple[int, list[int]] = (-1, [])

    def places(self, step: int, batch: int) -> list[int]:
        """The `batch` items of a step, counted from 0."""
        return [
            self._pass(place // self.count)[place % self.count] for place in range(step * batch, (step + 1) * batch)
        ]

    def _pass(self, number: int) -> list[int]:
        if self._drawn[0] != number:
            self._drawn = number, Random(f"{self.seed}/pass/{number}").sample(range(self.count), self.count)
        return self._drawn[1]
