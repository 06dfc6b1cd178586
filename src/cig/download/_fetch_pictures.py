"""Pictures from strangers' servers: each address in turn until one gives a whole picture; patient, and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cig.download._hosts import LONGEST
from cig.download._ledger import FINAL, PRESENT, Try
from cig.download._picture_checks import Content, Refused, examine
from cig.io.http import Web, WebError, retried

Answer = tuple[Content | None, str, str]  # picture, outcome, why


@dataclass(frozen=True)
class Job:
    """A picture that is wanted, and where it may be had, in order."""

    id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Got:
    """What came of a job."""

    content: Content | None
    tries: tuple[Try, ...]

    @property
    def outcome(self) -> Try:
        """The try that counts: the one that gave the picture, else one that may go better another time."""
        if self.content:
            return self.tries[-1]
        return next((one for one in self.tries if one.outcome not in FINAL), self.tries[0])

    @property
    def final(self) -> tuple[str, ...]:
        return tuple(one.address for one in self.tries if one.outcome in FINAL)


class Getter:
    """For `Web.each`: an address that several jobs want is asked once, and each of them gets what came."""

    def __init__(self, web: Web, waits: Sequence[float], pool: ThreadPoolExecutor, jobs: Iterable[Job]) -> None:
        """Args: pool: where pictures are decoded. jobs: all that will be got."""
        self.web, self.waits, self.pool = web, waits, pool
        wanted = Counter(address for job in jobs for address in job.addresses)
        self.left = {address: jobs for address, jobs in wanted.items() if jobs > 1}  # those that may still want it
        self.asked: dict[str, asyncio.Task[Answer]] = {}

    async def get(self, job: Job) -> Got:
        try:
            return await self._get(job)
        finally:
            for address in job.addresses:
                self._let_go(address)

    async def _get(self, job: Job) -> Got:
        tries: list[Try] = []
        for address in job.addresses:
            started = time.monotonic()
            content, outcome, why = await self._answer(address)
            tries.append(Try(address, outcome, why, round(time.monotonic() - started, 3)))
            if content:
                return Got(content, tuple(tries))
        return Got(None, tuple(tries))

    async def _answer(self, address: str) -> Answer:
        if address not in self.left:
            return await self._ask(address)
        if address not in self.asked:
            self.asked[address] = asyncio.create_task(self._ask(address))
        return await self.asked[address]

    def _let_go(self, address: str) -> None:
        """What came is held as long as another job may want it."""
        if address in self.left:
            self.left[address] -= 1
            if not self.left[address]:
                self.asked.pop(address, None)

    async def _ask(self, address: str) -> Answer:
        try:
            data = await retried(lambda: self.web.body(address), self.waits, LONGEST)
            return await asyncio.get_running_loop().run_in_executor(self.pool, examine, data), PRESENT, ""
        except WebError as error:
            return None, error.kind, str(error)
        except Refused as error:
            return None, error.kind, f"{address}: {error}"


def side_by_side(jobs: Iterable[Job]) -> list[Job]:
    """In their order, but those that share an address follow each other, so that few answers are held at a time."""
    places: dict[str, int] = {}
    return sorted(jobs, key=lambda job: min(places.setdefault(own, len(places)) for own in job.addresses))
