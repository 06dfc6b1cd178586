"""Digests that identify files, settings and models by their content, whatever their names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cig.config import user_cache
from cig.errors import CigError, InputError
from cig.io import hub
from cig.io.files import stamp, stat_file, write_bytes

REMEMBERED = 2**26  # bytes: smaller files are read about as fast as a note of them
TICK = 2.0  # seconds: the coarsest clock of a file system
UNUSABLE = (CigError, OSError, ValueError, RuntimeError, KeyError, TypeError)  # no home, no cache, a damaged note
Hasher = Callable[[Path], str]  # path -> sha256


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Hash settings, whatever the order of their keys: 16 hex digits."""
    return digest(json.dumps(value, sort_keys=True).encode())[:16]


def set_digest(digests: Iterable[str]) -> str:
    """Hash a set of contents, whatever their names and order."""
    return digest("\n".join(sorted(digests)).encode())


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's content, which may be remembered for as long as its stamp stays the same.

    Raises:
        InputError: the file cannot be read.
    """
    # A run identifies the same weights several times (for its cache, its manifest, its report), and a checkpoint has
    # gigabytes, whose digest takes longer than loading it. So a large file is read once a process, and a very large one
    # once for all runs of a user.
    status = stat_file(path)
    return _digest_once(path, stamp(status)) if status.st_size > 2**20 else read_digest(path)


def read_digest(path: Path) -> str:
    """Return the sha256 of a file's content, read now: it shows damage that a stamp does not."""
    stat_file(path)  # a pipe or a device might never end
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=4096)
def _digest_once(path: Path, stamped: str) -> str:
    if stat_file(path).st_size < REMEMBERED:
        return read_digest(path)
    location = os.fsencode(path.absolute()).hex()
    note = Path("digests") / f"{digest(location.encode())[:32]}.json"
    with contextlib.suppress(*UNUSABLE):
        record = json.loads((user_cache() / note).read_bytes())
        if (record["path"], record["stamp"]) == (location, stamped) and len(record["sha256"]) == 64:
            return str(record["sha256"])
    since, content = time.time(), read_digest(path)
    status = stat_file(path)
    # A file that changed while it was read, or so shortly before that its stamp may not show a further change.
    if stamp(status) == stamped and max(status.st_mtime, status.st_ctime) < since - TICK:
        with contextlib.suppress(*UNUSABLE):
            write_bytes(
                user_cache() / note, json.dumps({"path": location, "stamp": stamped, "sha256": content}).encode()
            )
    return content


def folder_digest(folder: Path, hasher: Hasher = file_digest) -> str:
    """Hash a model's folder: its configuration and weight files, without the folders below it."""
    suffixes = {".json", ".safetensors", ".bin", ".txt"}
    files = sorted(path for path in folder.glob("*") if path.suffix in suffixes and path.is_file())
    lines = [f"{path.relative_to(folder)} {hasher(path)}" for path in files]
    return digest("\n".join(lines).encode())


def identity(
    source: str | Path, cache_dir: Path | None = None, config: str = "config.json", *, hasher: Hasher = file_digest
) -> dict[str, str]:
    """Identify a model by the content digest of its folder or file, or by a hub id's revision in the hub's cache.

    Args:
        config: the file whose cached copy gives the revision.
        hasher: path -> sha256; one that remembers digests need not read gigabytes again.
    """
    path = Path(source)
    if os.path.isdir(path):
        return {"source": str(source), "sha256": folder_digest(path, hasher)}
    if os.path.isfile(path):
        return {"source": str(source), "sha256": hasher(path)}
    from huggingface_hub import try_to_load_from_cache

    try:
        revision = hub.commit_of(source, cache_dir)
        cached = try_to_load_from_cache(str(source), config, cache_dir=cache_dir, revision=revision)
    except ValueError:  # not a hub id either; the loader raises the error that explains it
        cached = None
    return {"source": str(source), "revision": Path(cached).parent.name if isinstance(cached, str) else "unknown"}


def fingerprints(models: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Reduce model identities to what settings record: digests or revisions, without local paths."""
    return {name: model.get("sha256") or f"{model['source']}@{model['revision']}" for name, model in models.items()}
