"""What hosts say, and what is done about it: one that asks to wait is left alone, one that only fails is given up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from cig.io.http import Kind, WebError

LOST = 20  # addresses in a row, each with all of its tries, after which a host is not asked any more
LONGEST = 60.0  # seconds that a server may ask to wait
FAILURES = ("unreachable", "slow", "failing", "busy")  # a host that answers anything else is there, and serves


class Hosts:
    """Of one run; `mind` is for `Web`.

    Attributes:
        closed: host -> until when it wants to be left alone: longer than is waited, so it is, for all of the run.
        failures: host -> requests in a row that failed.
        spared: host -> addresses that were not asked, as it is closed or given up.
    """

    def __init__(self, tries: int = 1) -> None:
        """Args: tries: requests that an address may take."""
        self.most = LOST * tries
        self.closed: dict[str, datetime] = {}
        self.failures: dict[str, int] = defaultdict(int)
        self.spared: Counter[str] = Counter()
        self._quiet: dict[str, float] = {}  # host -> until when, by the monotonic clock
        self._last: dict[str, Kind] = {}  # host -> how it failed

    @contextlib.asynccontextmanager
    async def mind(self, host: str) -> AsyncIterator[None]:
        """Waits as long as the host asked for; raises WebError where it is not asked any more."""
        await self._turn(host)
        try:
            yield
        except WebError as error:
            self._hear(host, error)
            raise
        self.failures[host] = 0

    def told(self) -> list[str]:
        """What is to be said of hosts that were left alone."""
        waiting = [
            f"{_wish(host, until)}: {self.spared[host]:,} addresses were not asked"
            for host, until in self.closed.items()
        ]
        lost = [host for host, failures in self.failures.items() if failures >= self.most and host not in self.closed]
        return [
            *(f"  {text}" for text in sorted(waiting)),
            *(f"  {host} failed many times in a row and was given up: is it still there?" for host in sorted(lost)),
        ]

    async def _turn(self, host: str) -> None:
        self._need_open(host)
        while (left := self._quiet.get(host, 0.0) - time.monotonic()) > 0:
            await asyncio.sleep(left)
            self._need_open(host)

    def _need_open(self, host: str) -> None:
        why = ""
        if host in self.closed:
            why = f"{_wish(host, self.closed[host])}; it was not asked any more"
        elif self.failures[host] >= self.most:
            why = f"{host} failed {self.most} times in a row and was not asked any more"
        if why:
            self.spared[host] += 1
            raise WebError(why, "busy" if host in self.closed else self._last[host])

    def _hear(self, host: str, error: WebError) -> None:
        self.failures[host] = self.failures[host] + 1 if error.kind in FAILURES else 0
        self._last[host] = error.kind
        if error.again and error.after > LONGEST:
            until = datetime.now(UTC) + timedelta(seconds=error.after)
            self.closed[host] = max(until, self.closed.get(host, until))
        elif error.again:
            self._quiet[host] = max(self._quiet.get(host, 0.0), time.monotonic() + error.after)


def _wish(host: str, until: datetime) -> str:
    return f"{host} asks to wait until {until:%Y-%m-%d %H:%M} UTC, rerun then"
