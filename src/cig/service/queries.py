"""Queries in batches: one thread has the model, and embeds together what came while it was at work."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from http import HTTPStatus

from cig.errors import CigError
from cig.io.images import most_pixels
from cig.pipelines.index import Hits, Index
from cig.retrieval.finder import ComposedQuery, Wanted
from cig.retrieval.index import Selection
from cig.service.metrics import Metrics
from cig.service.problems import Problem, too_many
from cig.service.settings import SECONDS_TO_ANSWER

SIZE = 32  # of a batch
WAIT = 0.004  # seconds that a query waits for others


Answer = tuple[Hits, int]  # the hits, and how many pictures pass the conditions


@dataclass
class _Task:
    query: ComposedQuery
    wanted: Wanted
    pixels: int = 0
    answer: Future[Answer] = field(default_factory=Future)
    until: float = field(default_factory=lambda: time.monotonic() + SECONDS_TO_ANSWER)


class Queries:
    """The queue of an index's queries."""

    def __init__(self, index: Index, most: int, metrics: Metrics) -> None:
        """most: queries that wait."""
        self.index, self._most, self._metrics = index, most, metrics
        self._queue: queue.Queue[_Task | None] = queue.Queue(most)
        self._left: _Task | None = None  # did not fit into the last batch
        metrics.watch(metrics.waiting, self._queue.qsize)
        self._thread = threading.Thread(target=self._work, name="queries", daemon=True)
        self._thread.start()

    async def find(self, query: ComposedQuery, wanted: Wanted, *, pixels: int = 0) -> Answer:
        """Answer a query; raises a Problem where too many wait, or it takes too long.

        Args:
            pixels: of its uploads; a batch decodes a bounded number.
        """
        task = _Task(query, wanted, pixels)
        try:
            self._queue.put_nowait(task)
        except queue.Full as error:
            raise too_many(f"{self._most} queries wait; try again") from error
        try:
            async with asyncio.timeout(SECONDS_TO_ANSWER):
                return await asyncio.wrap_future(task.answer)
        except TimeoutError as error:
            detail = f"no answer within {SECONDS_TO_ANSWER:.0f} s"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "5"}) from error

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(SECONDS_TO_ANSWER)

    def _work(self) -> None:
        while (first := self._left or self._queue.get()) is not None:
            tasks, ended = self._gather(first)
            tasks = [task for task in tasks if task.until > time.monotonic() and not task.answer.cancelled()]
            if tasks:
                self._metrics.batches.observe(len(tasks))
                self._answer(tasks)
            if ended:
                return

    def _gather(self, first: _Task) -> tuple[list[_Task], bool]:
        """Return the first query and those that come with it; and whether no more will."""
        tasks, until, pixels, self._left = [first], time.monotonic() + WAIT, first.pixels, None
        while len(tasks) < SIZE:
            try:
                task = self._queue.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                break
            if task is None:
                return tasks, True
            pixels += task.pixels
            if pixels > most_pixels():
                self._left = task
                break
            tasks.append(task)
        return tasks, False

    def _answer(self, tasks: list[_Task]) -> None:
        try:
            requests = [(task.query, task.wanted) for task in tasks]
            answers = self.index.find(requests, keep=False, keep_reference=True)
            counts = [self._count(task.wanted.select) for task in tasks]
        except Exception as error:
            if len(tasks) > 1 and isinstance(error, CigError):  # one of them; the others have their answers
                for task in tasks:
                    self._answer([task])
                return
            for task in tasks:
                _settle(task.answer, error)
            return
        for task, answer in zip(tasks, zip(answers, counts, strict=True), strict=True):
            _settle(task.answer, answer)

    def _count(self, select: Selection) -> int:
        return self.index.count(Selection(where=select.where)) if select.where else len(self.index)


def _settle(future: Future[Answer], result: Answer | Exception) -> None:
    """Give a result to whoever waits; nobody does after a time-out."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
