"""A hub of this machine's: the tree and the files of repositories, as huggingface_hub asks for them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Hub:
    """Repositories at one commit each.

    Attributes:
        repos: id -> (commit, {file: content}).
        moods: file -> bytes after which its next answer breaks off.
        asked: (method, path) of each request.
        down: it answers 503 to all of them.
        gated: ids that it gives only to those who accepted their terms.
    """

    repos: dict[str, tuple[str, dict[str, bytes]]] = field(default_factory=dict)
    moods: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    down: bool = False
    gated: set[str] = field(default_factory=set)

    def add(self, name: str, commit: str, folder: Path, rename: str = "") -> None:
        """All files of a folder; `rename` gives model.safetensors another name."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        if rename:
            files = {rename if name == "model.safetensors" else name: own for name, own in files.items()}
        self.repos[name] = commit, files

    @property
    def fetched(self) -> list[str]:
        """Names of the files whose content was given."""
        return [path.rpartition("/")[2] for method, path in self.asked if method == "GET" and "/resolve/" in path]


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(_Handler):
        own = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    own: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.own.asked.append((self.command, self.path))
        if self.own.down:
            self.answer(503, b"")
            return
        path = self.path.partition("?")[0]
        found = re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+)/(tree|revision|resolve)/([^/]+)/?(.*)", path)
        if not found or found[1] not in self.own.repos:
            self.answer(404, b"", X_Error_Code="RepoNotFound")
            return
        name, what, revision, file = found.groups()
        if name in self.own.gated:
            self.answer(403 if self.headers.get("Authorization") else 401, b"", X_Error_Code="GatedRepo")
            return
        commit, files = self.own.repos[name]
        if revision not in ("main", commit):
            self.answer(404, b"", X_Error_Code="RevisionNotFound")
        elif what == "revision":
            self.answer(200, json.dumps({"id": name, "sha": commit, "siblings": []}).encode())
        elif what == "tree":
            self.answer(200, json.dumps([_entry(own, content) for own, content in files.items()]).encode())
        elif file in files:
            self.give(file, files[file], commit)
        else:
            self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)

    def give(self, file: str, content: bytes, commit: str) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        cut = self.own.moods.pop(file, None) if self.command == "GET" else None
        more = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        tag = {"X_Repo_Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"', **more}
        self.answer(206 if start else 200, content[start:], cut, **tag)

    def answer(self, status: int, body: bytes, cut: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), "Content_Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(OSError):
                self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = self.close_connection or cut is not None


def _entry(name: str, content: bytes) -> dict[str, object]:
    """As the hub lists a file; weights are kept apart (LFS), by their sha256."""
    sha256 = hashlib.sha256(content).hexdigest()
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": sha256[:40]}
    if name.endswith((".safetensors", ".bin")):
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return entry
