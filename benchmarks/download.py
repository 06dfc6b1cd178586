"""How fast `cig download fashioniq` is against a server of this machine's, and how much memory it takes.

    python benchmarks/download.py build/download --pictures 5000

The pictures are JPEGs of some 20 KB, each another; the server is a process of its own, and answers at once or after
--delay seconds. Each call is a process of its own: everything is asked for, then everything is there.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from multiprocessing import Process
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MEASURED = """
import json, resource, sys, time
from cig.cli.main import main
started = time.monotonic()
try:
    main(sys.argv[1:])
except SystemExit:
    pass
spent, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": round(spent, 1), "peak MB": peak // 1024}))
"""


def jpeg() -> bytes:
    """Of the size that the shop's pictures have."""
    pixels = np.random.default_rng(0).normal(128, 16, (445, 330, 3)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
    return buffer.getvalue()


def serve(port: int, names: list[str], delay: float) -> None:
    """Pictures that differ in a comment behind the end of each, and the annotations that name them."""
    picture = jpeg()
    captions = [{"candidate": a, "target": b, "captions": ["is red", "is long"]} for a, b in pairwise(names)]
    listed = "".join(f"{name} \t http://127.0.0.1:{port}/{name}.jpg\n" for name in names)
    files = {
        "/captions/cap.dress.val.json": json.dumps(captions).encode(),
        "/image_splits/split.dress.val.json": json.dumps(names).encode(),
        "/asin2url.dress.txt": listed.encode(),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            time.sleep(delay)
            body = files.get(self.path) or picture + self.path.encode()
            self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    Server(("127.0.0.1", port), Handler).serve_forever()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as own:
        return int(own.getsockname()[1])


def call(home: Path, port: int, more: list[str]) -> dict[str, float]:
    base = f"http://127.0.0.1:{port}"
    words = ["download", "fashioniq/val", "--dataset-path", str(home), "--categories", "dress", *more]
    words += ["--annotations-from", base, "--urls-from", base]
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("home", type=Path)
    arguments.add_argument("--pictures", type=int, default=5000)
    arguments.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    arguments.add_argument("--per-host", type=int, default=8)
    asked = arguments.parse_args()
    names = [f"B{i:09d}" for i in range(asked.pictures)]
    port = free_port()
    server = Process(target=serve, args=(port, names, asked.delay), daemon=True)
    server.start()
    shutil.rmtree(asked.home, ignore_errors=True)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {asked.pictures} pictures"
    )
    for what in ("everything is asked for", "everything is there"):
        measured = call(asked.home, port, ["--per-host", str(asked.per_host)])
        rate = asked.pictures / measured["seconds"]
        print(f"{what}: {measured}, {rate:.0f} pictures/s")
    server.terminate()


if __name__ == "__main__":
    main()
