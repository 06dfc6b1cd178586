"""How `cig serve` bears load: many clients with text queries over an index of random rows, on this machine.

    python benchmarks/serve_load.py build/serve-load --vectors 100000 --clients 50 --requests 20000 --most-seconds 300

Each client sends its next query when it has the answer to the last one; every query is a new text. The encoder is the
shipped icons' CLIP, which needs no download. The client shares the machine's cores with the service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cig.pipelines.open import make_index
from cig.retrieval.index import IndexEntry, Row
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute

METHOD, CHUNK = "sum/icons", 5000
WORDS = ("small", "large", "red", "green", "blue", "gold", "round", "square", "bell", "house", "cloud", "lock", "badge")
TOKENS = {"write": "w" * 24, "read": "r" * 24}


def make(home: Path, vectors: int) -> Path:
    """Make an index of one drawn picture and random rows, or take the one that is there."""
    from PIL import Image

    index_folder = home / f"index-{vectors}"
    if (index_folder / "done").exists():
        return index_folder
    shutil.rmtree(index_folder, ignore_errors=True)
    gallery = home / "gallery"
    gallery.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), "red").save(gallery / "red.png")
    searching = OwnSearching(method=METHOD, feature_cache=home / "cache")
    index = make_index(gallery, index_folder, searching, compute=Compute(device="cpu"))
    assert index.engine
    rng = np.random.default_rng(0)
    for start in range(1, vectors, CHUNK):
        size = min(CHUNK, vectors - start)
        rows = rng.standard_normal((size, int(index.facts["dimensions"])), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        numbers = range(start, start + size)
        entries = [IndexEntry(f"{i // 1000:04}/{i:07}.png", f"{i:064}", "", "", {"price": i % 100}) for i in numbers]
        index.engine.put([Row(entry, row) for entry, row in zip(entries, rows, strict=True)])
    index.close()
    (index_folder / "done").touch()
    return index_folder


@dataclass
class Load:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0
    until: float = 0.0
    memory: list[tuple[int, float]] = field(default_factory=list)  # answers so far, MB of the service


async def client(port: int, load: Load, rng: random.Random) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while load.left > 0 and time.monotonic() < load.until:
        load.left -= 1
        text = " ".join(rng.choices(WORDS, k=5)) + f" {rng.randrange(10**6)}"
        body = json.dumps({"text": text, "k": 10}).encode()
        head = f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKENS['read']}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        started = time.perf_counter()
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", answer)
        content = await reader.readexactly(int(length[1]) if length else 0)
        status = int(answer[9:12])
        load.statuses[status] += 1
        if status == 200:
            load.seconds.append(time.perf_counter() - started)
            assert len(json.loads(content)["hits"]) == 10
        else:
            await asyncio.sleep(0.1)
    writer.close()


async def watch(port: int, load: Load, every: int) -> None:
    """Note the service's memory whenever so many more answers have come."""
    following = 0
    while True:
        if len(load.seconds) >= following:
            load.memory.append((len(load.seconds), memory_of(await asyncio.to_thread(metrics, port))))
            following += every
        await asyncio.sleep(0.2)


def metrics(port: int) -> str:
    address = f"http://127.0.0.1:{port}/metrics"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {TOKENS['read']}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def memory_of(text: str) -> float:
    match = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
    return float(match[1]) / 2**20 if match else 0.0


async def run(port: int, load: Load, clients: int, every: int) -> float:
    watching = asyncio.create_task(watch(port, load, every))
    started = time.monotonic()
    await asyncio.gather(*(client(port, load, random.Random(i)) for i in range(clients)))
    spent = time.monotonic() - started
    watching.cancel()
    return spent


def start(home: Path, index_folder: Path, flags: list[str]) -> tuple[subprocess.Popen, int, float]:
    """Start the service; return it, its port, and the seconds until it is ready."""
    for name, token in TOKENS.items():
        (home / name).write_text(token)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tokens = [f"--write-token-file={home / 'write'}", f"--read-token-file={home / 'read'}"]
    line = [sys.executable, "-m", "cig", "serve", f"{index_folder}", "--port", f"{port}", "--device", "cpu", *tokens]
    started = time.monotonic()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*line, f"--feature-cache={home / 'cache'}", *flags], stderr=log)
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return process, port, time.monotonic() - started
        except OSError:
            time.sleep(0.1)
    raise SystemExit((home / "log").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--most-seconds", type=float, default=300)
    parser.add_argument("flags", nargs="*", help="of cig serve, after --")
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    process, port, ready = start(given.home, make(given.home, given.vectors), given.flags)
    try:
        load = Load(left=200, until=time.monotonic() + 60)
        asyncio.run(run(port, load, given.clients, 10**9))  # warms up what is measured
        load = Load(left=given.requests, until=time.monotonic() + given.most_seconds)
        spent = asyncio.run(run(port, load, given.clients, max(given.requests // 10, 1)))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    print(f"{platform.machine()}, {os.cpu_count()} cores; {given.vectors} vectors, {given.clients} clients, {METHOD}")
    print(f"ready after {ready:.1f} s; {sum(load.statuses.values())} requests in {spent:.0f} s; stopped with {code}")
    print("statuses:", ", ".join(f"{status}: {count}" for status, count in sorted(load.statuses.items())))
    p50, p95, p99 = (np.percentile(load.seconds, q) * 1000 for q in (50, 95, 99))
    print(f"answers: {len(load.seconds) / spent:.0f} a second; p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    print("memory, MB:", ", ".join(f"{count}: {size:.0f}" for count, size in load.memory))


if __name__ == "__main__":
    main()
