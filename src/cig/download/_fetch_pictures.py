"""Fetch pictures from strangers' servers: each address in turn, until one gives a whole picture."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cig.download._hosts import LONGEST
from cig.download._ledger import FINAL, PRESENT, AddressTry
from cig.download._picture_checks import Content, Refused, examine
from cig.io.http import Web, WebError, retried

AddressResult = tuple[Content | None, str, str]  # picture, outcome, why


@dataclass(frozen=True)
class PictureJob:
    """A picture to fetch, and its addresses in order."""

    id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class FetchResult:
    """The picture of a job, if any, and what each address answered."""

    content: Content | None
    tries: tuple[AddressTry, ...]

    @property
    def outcome(self) -> AddressTry:
        """The try that counts: the one that gave the picture, else the first that may succeed another time."""
        if self.content:
            return self.tries[-1]
        return next((one for one in self.tries if one.outcome not in FINAL), self.tries[0])

    @property
    def final(self) -> tuple[str, ...]:
        """Addresses that have nothing and need not be requested again."""
        return tuple(one.address for one in self.tries if one.outcome in FINAL)


class PictureFetcher:
    """Fetches jobs for `Web.each`; an address that several jobs want is requested once.

    Args:
        pool: where pictures are decoded.
        jobs: all that will be fetched.
    """

    # FashionIQ's lists give one address to several ids, and a mirror template may fill in to the same address twice.
    # The first job that needs a shared address starts its task and the others await it. Pictures are large, so a task
    # is dropped as soon as the last job that may want it is done: `remaining` counts these jobs by address.

    def __init__(
        self, web: Web, waits: Sequence[float], pool: ThreadPoolExecutor, *, jobs: Iterable[PictureJob]
    ) -> None:
        self.web, self.waits, self.pool = web, waits, pool
        wanted = Counter(address for job in jobs for address in job.addresses)
        self.remaining = {address: count for address, count in wanted.items() if count > 1}
        self.shared: dict[str, asyncio.Task[AddressResult]] = {}

    async def get(self, job: PictureJob) -> FetchResult:
        """Request the addresses of a job in order until one gives a picture."""
        tries: list[AddressTry] = []
        try:
            for address in job.addresses:
                started = time.monotonic()
                content, outcome, why = await self._result(address)
                tries.append(AddressTry(address, outcome, why=why, seconds=round(time.monotonic() - started, 3)))
                if content:
                    return FetchResult(content, tuple(tries))
            return FetchResult(None, tuple(tries))
        finally:
            for address in self.remaining.keys() & job.addresses:
                self.remaining[address] -= 1
                if not self.remaining[address]:
                    self.shared.pop(address, None)

    async def _result(self, address: str) -> AddressResult:
        if address not in self.remaining:
            return await self._request(address)
        if address not in self.shared:
            self.shared[address] = asyncio.create_task(self._request(address))
        return await self.shared[address]

    async def _request(self, address: str) -> AddressResult:
        try:
            data = await retried(lambda: self.web.body(address), self.waits, LONGEST)
            return await asyncio.get_running_loop().run_in_executor(self.pool, examine, data), PRESENT, ""
        except WebError as error:
            return None, error.kind, str(error)
        except Refused as error:
            return None, error.kind, f"{address}: {error}"


def group_shared(jobs: Iterable[PictureJob]) -> list[PictureJob]:
    """Keep the order of jobs, but put those that share an address together, so that few pictures are held at a time."""
    ranks: dict[str, int] = {}
    return sorted(jobs, key=lambda job: min(ranks.setdefault(address, len(ranks)) for address in job.addresses))
