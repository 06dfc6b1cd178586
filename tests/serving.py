"""A server of this machine's with files: by ranges or not, and in any of the moods that servers have."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@dataclass
class Files:
    """What it has, how it behaves, and what it was asked.

    Attributes:
        content: path -> bytes.
        ranges: whether it knows them; one that does not gives the whole.
        moods: what it does before it answers as it should, one a request: a status, "cut N" (a reset after N bytes),
            "short N" (a clean end after N bytes, with the full length stated), "drip", or "" for nothing.
        asked: (path, its Range header) of each request.
    """

    content: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    honest: bool = True  # answers If-Range as it should
    tag: str = '"one"'
    length: bool = True  # states it
    moods: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def bytes_asked(self) -> list[str]:
        return [asked for _, asked in self.asked]


@contextlib.contextmanager
def serve(files: Files, certificate: Path | None = None) -> Iterator[Files]:
    """Serve them, by https with a certificate."""

    class Handler(_Handler):
        own = files

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    files.url = f"http://127.0.0.1:{server.server_port}"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        files.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_certificate(folder: Path) -> Path:
    """A certificate of localhost's that nobody has signed, with its key."""
    path, subject = folder / "localhost.pem", ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    if not shutil.which("openssl"):
        pytest.skip("openssl is not at hand")
    made = ["-keyout", path, "-out", folder / "cert.pem", "-days", "2"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run(["openssl", "req", "-x509", *curve, *made, *subject], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (folder / "cert.pem").read_bytes())
    return path


class _Handler(BaseHTTPRequestHandler):
    own: Files

    def log_message(self, *_: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        """What a proxy is asked for https: it refuses, and has noted it."""
        self.own.asked.append((self.path, ""))
        self.send_error(403)

    def do_GET(self) -> None:
        files = self.own
        files.asked.append((self.path, self.headers.get("Range", "")))
        mood = files.moods.pop(0) if files.moods else ""
        if mood.isdecimal():
            self.send_response(int(mood))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = files.content.get(self.path.partition("?")[0])
        if content is None:
            self.send_error(404)
            return
        with contextlib.suppress(OSError):
            self._give(content, mood)

    def _give(self, content: bytes, mood: str) -> None:
        files = self.own
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = not files.honest or self.headers.get("If-Range", files.tag) == files.tag
        start = int(found[1]) if found and files.ranges and same else 0
        if found and files.ranges and same and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if files.length:
            self.send_header("Content-Length", str(len(content) - start))
        if files.tag:
            self.send_header("ETag", files.tag)
        self.end_headers()
        self._body(content[start:], mood)

    def _body(self, rest: bytes, mood: str) -> None:
        what, _, most = mood.partition(" ")
        for i in range(100 if what == "drip" else 0):
            self.wfile.write(rest[i : i + 1])
            time.sleep(0.05)
        self.wfile.write(rest[: int(most)] if most else rest)
        self.wfile.flush()
        self.close_connection = True
        if what == "cut":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
