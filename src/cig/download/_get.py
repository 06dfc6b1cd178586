"""Pictures from strangers' servers: each address in turn until one gives a whole picture; patient, and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from cig.download._ledger import FINAL, PRESENT, Try
from cig.download._pictures import Content, Refused, examine
from cig.web import Web, WebError, retried

LOST = 20  # failures in a row after which a host is not asked any more
LONGEST = 60.0  # seconds that a server may ask to wait


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
    """For `Web.each`; minds what hosts say: one that asks to wait is left alone, one that is not there is given up."""

    def __init__(self, web: Web, waits: Sequence[float], pool: ThreadPoolExecutor) -> None:
        """Args: pool: where pictures are decoded."""
        self.web, self.waits, self.pool = web, waits, pool
        self.failures: dict[str, int] = defaultdict(int)  # host -> in a row
        self.quiet: dict[str, float] = {}  # host -> until when

    @property
    def lost(self) -> list[str]:
        """Hosts that were given up."""
        return sorted(host for host, failures in self.failures.items() if failures >= LOST)

    async def get(self, job: Job) -> Got:
        tries: list[Try] = []
        for address in job.addresses:
            started = time.monotonic()
            content, outcome, why = await self._ask(address)
            tries.append(Try(address, outcome, why, round(time.monotonic() - started, 3)))
            if content:
                return Got(content, tuple(tries))
        return Got(None, tuple(tries))

    async def _ask(self, address: str) -> tuple[Content | None, str, str]:
        """(picture, outcome, why) of one address."""
        host = _host(address)
        if self.failures[host] >= LOST:
            return None, "unreachable", f"{host} failed {LOST} times in a row and was not asked any more"
        try:
            data = await retried(lambda: self._body(address, host), self.waits, LONGEST)
            self.failures[host] = 0
            return await asyncio.get_running_loop().run_in_executor(self.pool, examine, data), PRESENT, ""
        except WebError as error:
            self.failures[host] = self.failures[host] + 1 if error.kind in ("unreachable", "slow") else 0
            return None, error.kind, str(error)
        except Refused as error:
            return None, error.kind, f"{address}: {error}"

    async def _body(self, address: str, host: str) -> bytes:
        await asyncio.sleep(max(self.quiet.get(host, 0.0) - time.monotonic(), 0.0))
        try:
            return await self.web.body(address)
        except WebError as error:
            if error.kind == "busy" and error.after <= LONGEST:
                self.quiet[host] = max(self.quiet.get(host, 0.0), time.monotonic() + error.after)
            raise


def _host(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""
