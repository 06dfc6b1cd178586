"""What Prometheus reads, and a log line a request. Neither has texts, pictures or names, unless --log-queries asks."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("cig")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        one: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("cig_requests", "Requests", ["method", "route", "status"], **one)
        self.seconds = Histogram("cig_request_seconds", "Seconds to answer", ["route"], buckets=SECONDS, **one)
        self.batches = Histogram("cig_batch_queries", "Queries embedded at once", buckets=(1, 2, 4, 8, 16, 32), **one)
        self.waiting = Gauge("cig_waiting_queries", "Queries that wait", **one)
        self.imagining = Gauge("cig_imagining", "Pseudo-targets that wait or are made", **one)
        self.pictures = Gauge("cig_pictures", "Pictures in the index", **one)

    def watch(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Let a gauge ask for its value whenever it is read."""
        gauge.set_function(value)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Recorder:
    """The application, with every request counted, timed and logged."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), [500]
        note: dict[str, Any] = {}
        scope.setdefault("state", {})["log"] = note

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            self._record(scope, status[0], seconds=time.perf_counter() - started, note=note)

    def _record(self, scope: Scope, status: int, *, seconds: float, note: dict[str, Any]) -> None:
        route = note.pop("route", "refused")  # the route's pattern: paths have names of pictures in them
        method = scope["method"] if scope["method"] in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS") else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        if route in ("/healthz", "/readyz", "/metrics") and status == 200:
            return
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "method": method, "route": route}
        LOG.info("%s", json.dumps({**line, "status": status, "ms": round(seconds * 1000, 1), **note}))
