"""Hosts during a download: wait for one that asks for it, and give up one that only fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from cig.io.http import Kind, WebError

LOST = 20  # addresses in a row, each with all of its tries, after which a host is given up
LONGEST = 60.0  # seconds that a server may ask to wait
FAILURES = (
    "unreachable",
    "certificate",
    "slow",
    "failing",
    "busy",
)  # a host that answers anything else is up, and serves


class Hosts:
    """The hosts of one run; `guard` is for `Web`.

    Args:
        tries: requests that an address may take.

    Attributes:
        closed: host -> until when it asked to be left alone, if that is longer than we wait: then for the whole run.
        failures: host -> requests in a row that failed.
        spared: host -> addresses that were not requested, as it is closed or given up.
    """

    # Thousands of pictures come from a few hosts. Without this, a host that is down would cost the full patience and
    # all retries for each picture, and one that asks for a pause (Retry-After) would be asked again at once by the
    # other requests under way. A short pause is waited out by every request to the host; a longer one closes it.

    def __init__(self, tries: int = 1) -> None:
        self.most = LOST * tries
        self.closed: dict[str, datetime] = {}
        self.failures: dict[str, int] = defaultdict(int)
        self.spared: Counter[str] = Counter()
        self._quiet: dict[str, float] = {}  # host -> until when, by the monotonic clock
        self._last: dict[str, Kind] = {}  # host -> how it failed

    @contextlib.asynccontextmanager
    async def guard(self, host: str) -> AsyncIterator[None]:
        """Wait as long as the host asked for, and learn from the answer; raises WebError if the host is given up."""
        self._need_open(host)
        while (left := self._quiet.get(host, 0.0) - time.monotonic()) > 0:
            await asyncio.sleep(left)
            self._need_open(host)
        try:
            yield
        except WebError as error:
            self._record(host, error)
            raise
        self.failures[host] = 0

    def lines(self) -> list[str]:
        """Report the hosts that were left alone."""
        waiting = [
            f"{_pause(host, until)}: {self.spared[host]:,} addresses were not asked"
            for host, until in self.closed.items()
        ]
        lost = [host for host, failures in self.failures.items() if failures >= self.most and host not in self.closed]
        return [
            *(f"  {text}" for text in sorted(waiting)),
            *(f"  {host} failed many times in a row and was given up: is it still there?" for host in sorted(lost)),
        ]

    def _need_open(self, host: str) -> None:
        why = ""
        if host in self.closed:
            why = f"{_pause(host, self.closed[host])}; it was not asked any more"
        elif self.failures[host] >= self.most:
            why = f"{host} failed {self.most} times in a row and was not asked any more"
        if why:
            self.spared[host] += 1
            raise WebError(why, "busy" if host in self.closed else self._last[host])

    def _record(self, host: str, error: WebError) -> None:
        self.failures[host] = self.failures[host] + 1 if error.kind in FAILURES else 0
        self._last[host] = error.kind
        if error.again and error.after > LONGEST:
            until = datetime.now(UTC) + timedelta(seconds=error.after)
            self.closed[host] = max(until, self.closed.get(host, until))
        elif error.again:
            self._quiet[host] = max(self._quiet.get(host, 0.0), time.monotonic() + error.after)


def _pause(host: str, until: datetime) -> str:
    return f"{host} asks to wait until {until:%Y-%m-%d %H:%M} UTC, rerun then"
