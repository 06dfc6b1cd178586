"""The second phase of a search: pseudo-targets, made one after the other, and the hits that they bring."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cig.errors import CigError, plain
from cig.pipelines.index import Hits
from cig.retrieval.finder import ComposedQuery, Wanted
from cig.service.metrics import LOG, Metrics
from cig.service.problems import Problem, too_many
from cig.service.queries import Queries
from cig.service.searches import Uploads, shown

MOST_WAITING = 16  # searches whose pseudo-target is not made yet
MOST_KEPT = 200  # searches that can be asked for again

Imagine = Callable[[ComposedQuery], Path]


def no_search() -> Problem:
    return Problem(404, f"there is no such search; the last {MOST_KEPT} with imagine are kept")


@dataclass
class ImaginedSearch:
    """A search in two phases."""

    query: ComposedQuery
    wanted: Wanted
    uploads: Uploads
    answer: dict[str, Any]  # of the first phase
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    status: str = "pending"
    picture: Path | None = None
    hits: Hits | None = None
    detail: str = ""

    def shown(self) -> dict[str, Any]:
        imagined = {
            "status": self.status,
            "picture": f"/v1/search/{self.id}/imagined" if self.picture else None,
            "hits": shown(self.hits) if self.hits is not None else None,
        }
        return {**self.answer, "id": self.id, "imagined": imagined | ({"detail": self.detail} if self.detail else {})}


class ImaginingQueue:
    """The queue of pseudo-targets; one is made at a time."""

    def __init__(self, queries: Queries, imagine: Imagine, metrics: Metrics) -> None:
        self._queries, self._imagine = queries, imagine
        self._searches: OrderedDict[str, ImaginedSearch] = OrderedDict()
        self._queue: asyncio.Queue[ImaginedSearch] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        metrics.watch(metrics.imagining, lambda: self._pending)

    @property
    def _pending(self) -> int:
        return sum(search.status == "pending" for search in list(self._searches.values()))

    def check(self) -> None:
        """Raise a Problem where too many wait."""
        if max(self._pending, self._queue.qsize()) >= MOST_WAITING:  # cancelled ones hold their pictures meanwhile
            raise too_many(f"{MOST_WAITING} pseudo-targets wait; try again, or search without imagine", 30)

    def add(self, search: ImaginedSearch) -> None:
        self._searches[search.id] = search
        while len(self._searches) > MOST_KEPT:
            oldest = next(one for one in self._searches.values() if one.status != "pending")
            del self._searches[oldest.id]
        self._queue.put_nowait(search)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    def get(self, key: str) -> ImaginedSearch:
        if key not in self._searches:
            raise no_search()
        return self._searches[key]

    def cancel(self, search: ImaginedSearch) -> None:
        """Forget a search; a pseudo-target that is being made is made to its end, and dropped."""
        self._searches.pop(search.id, None)

    def close(self) -> None:
        if self._worker:
            self._worker.cancel()
        for search in self._searches.values():
            search.uploads.cleanup()

    async def _work(self) -> None:
        while True:
            search = await self._queue.get()
            try:
                if search.id in self._searches:
                    await self._make(search)
            finally:
                search.uploads.cleanup()

    async def _make(self, search: ImaginedSearch) -> None:
        try:
            picture = await asyncio.to_thread(self._imagine, search.query)
            imagined = replace(search.query, pseudo_target=picture)
            search.hits, _ = await self._queries.find(imagined, search.wanted)
            search.picture, search.status = picture, "done"
        except (CigError, Problem) as error:
            search.status, search.detail = "failed", plain(str(error), 500)
        except Exception:  # the next search has its turn
            search.status, search.detail = "failed", "the generator failed; the service's log says how"
            LOG.exception("a pseudo-target failed")
