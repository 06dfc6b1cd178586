"""A service that runs: what it has opened, and how much it takes at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from PIL import Image

from cig.errors import UsageError
from cig.io.files import write_png
from cig.pipelines._follow import IndexFollower
from cig.pipelines.index import Index
from cig.retrieval.finder import ComposedQuery, Wanted
from cig.service.imagining import Imagine, ImaginedSearch, ImaginingQueue, no_search
from cig.service.metrics import Metrics
from cig.service.pictures import IndexPictures
from cig.service.problems import Problem, too_many
from cig.service.queries import Queries
from cig.service.searches import SearchFields, Uploads, composed, shown, temporary_folder
from cig.service.settings import MOST_HELD, Serving
from cig.service.uploads import most_bytes_of, wrong

T = TypeVar("T")


class WorkerPool:
    """Threads, and a bound on what waits for them."""

    def __init__(self, threads: int, most: int) -> None:
        self._threads, self._most, self._inside = ThreadPoolExecutor(threads), most, 0

    async def run(self, act: Callable[..., T], *values: Any) -> T:
        if self._inside >= self._most:
            raise too_many(f"{self._most} requests of this kind wait; try again")
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, act, *values)
        finally:
            self._inside -= 1

    def close(self) -> None:
        self._threads.shutdown()


def warm_up(index: Index) -> None:
    """Load the models before the first query: that of a picture and that of a text, where the method has them."""
    with temporary_folder() as folder:
        path = Path(folder) / "0.png"
        write_png(path, Image.new("RGB", (64, 64), "white"))
        for query in (ComposedQuery(text="a picture"), ComposedQuery(images=(path,))):
            with suppress(UsageError):
                index.find([(query, Wanted(k=1))], keep=False)


class OpenedIndex:
    """An index that is open, and what answers from it."""

    def __init__(self, index: Index, serving: Serving, metrics: Metrics, *, imagine: Imagine | None) -> None:
        self.index, self.pictures, self.follower = index, IndexPictures(index), IndexFollower(index)
        self.queries = Queries(index, serving.queue, metrics)
        self.imagining = ImaginingQueue(self.queries, imagine, metrics) if imagine else None
        metrics.watch(metrics.pictures, lambda: len(index))

    def need_imagining(self) -> ImaginingQueue:
        if self.imagining is None:
            raise wrong("imagine: this service does not; it is started with cig serve PLACE --imagine")
        return self.imagining

    def imagined(self, key: str) -> ImaginedSearch:
        """Return a search in two phases; raise a Problem where there is none."""
        if self.imagining is None:
            raise no_search()
        return self.imagining.get(key)

    async def search(self, fields: SearchFields) -> dict[str, Any]:
        """Answer a search; with imagine, its first phase."""
        started = time.perf_counter()
        if fields.imagine:
            self.need_imagining().check()
        uploads, kept = Uploads(), False
        try:
            images = await uploads.write(fields.images)
            query, wanted = await asyncio.to_thread(composed, fields, self.index, images)
            hits, searched = await self.queries.find(query, wanted, pixels=uploads.pixels)
            answer = {"id": "", "hits": shown(hits), "searched": searched}
            answer |= {"took_ms": round((time.perf_counter() - started) * 1000, 3), "imagined": None}
            search = ImaginedSearch(query, wanted, uploads, answer)
            if not fields.imagine:
                return {**answer, "id": search.id}
            self.need_imagining().add(search)
            kept = True
            return search.shown()
        finally:
            if not kept:
                uploads.cleanup()

    def close(self) -> None:
        if self.imagining:
            self.imagining.close()
        self.queries.close()
        self.index.close()


@dataclass
class Running:
    """A service: not ready before its index is open."""

    serving: Serving
    metrics: Metrics = field(default_factory=Metrics)
    opened: OpenedIndex | None = None
    _inside: int = 0
    _held: int = 0  # bytes

    def __post_init__(self) -> None:
        self._pictures, self._writing = WorkerPool(2, 1000), WorkerPool(1, self.serving.queue)

    def open(self, index: Index, imagine: Imagine | None = None) -> None:
        warm_up(index)
        self.opened = OpenedIndex(index, self.serving, self.metrics, imagine=imagine)

    def need_open(self) -> OpenedIndex:
        if self.opened is None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the index is being opened", {"Retry-After": "2"})
        self.opened.follower.check()
        return self.opened

    @contextmanager
    def admitted(self, request: Request, most_files: int) -> Iterator[None]:
        """Count a request that holds pictures in memory; refuse it where too many do, or too large ones."""
        size = most_bytes_of(request, self.serving.max_upload, most_files=most_files)
        if self._inside >= self.serving.queue or (self._inside and self._held + size > MOST_HELD):
            raise too_many(f"{self._inside} requests of {self._held} bytes are being answered; try again")
        self._inside, self._held = self._inside + 1, self._held + size
        try:
            yield
        finally:
            self._inside, self._held = self._inside - 1, self._held - size

    async def in_writing(self, act: Callable[..., T], *values: Any) -> T:
        return await self._writing.run(act, *values)

    async def in_pictures(self, act: Callable[..., T], *values: Any) -> T:
        return await self._pictures.run(act, *values)

    def close(self) -> None:
        for pool in (self._pictures, self._writing):
            pool.close()
        if self.opened:
            self.opened.close()
