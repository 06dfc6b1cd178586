"""Digests: what a file, a setting or a model is, whatever it is called."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cig.errors import InputError
from cig.io import hub
from cig.io.files import stat_file


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Of settings: the same whatever the order of their keys. 16 hex digits."""
    return digest(json.dumps(value, sort_keys=True).encode())[:16]


def set_digest(digests: Iterable[str]) -> str:
    """Of a set of contents, whatever their names and order."""
    return digest("\n".join(sorted(digests)).encode())


def file_digest(path: Path) -> str:
    """sha256 of the content; a large file is read once a process while it does not change."""
    status = stat_file(path)
    return _digest_once(path, status.st_size, status.st_mtime_ns) if status.st_size > 2**20 else _digest_file(path)


def _digest_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=4096)
def _digest_once(path: Path, size: int, changed: int) -> str:
    return _digest_file(path)


Hashed = Callable[[Path], str]


def folder_digest(folder: Path, hashed: Hashed = file_digest) -> str:
    """Of a model's folder: its configuration and weight files; what is kept in folders below is none of it."""
    suffixes = {".json", ".safetensors", ".bin", ".txt"}
    files = sorted(path for path in folder.glob("*") if path.suffix in suffixes and path.is_file())
    lines = [f"{path.relative_to(folder)} {hashed(path)}" for path in files]
    return digest("\n".join(lines).encode())


def identity(
    source: str | Path, cache_dir: Path | None = None, config: str = "config.json", hashed: Hashed = file_digest
) -> dict[str, str]:
    """What stands behind a folder, a file or a hub id: a content digest, or the revision in the hub's cache.

    Args:
        hashed: path -> sha256; one with a memory need not read gigabytes again.
    """
    path = Path(source)
    if os.path.isdir(path):
        return {"source": str(source), "sha256": folder_digest(path, hashed)}
    if os.path.isfile(path):
        return {"source": str(source), "sha256": hashed(path)}
    from huggingface_hub import try_to_load_from_cache

    try:
        revision = hub.commit_of(source, cache_dir)
        cached = try_to_load_from_cache(str(source), config, cache_dir=cache_dir, revision=revision)
    except ValueError:  # no hub id either, as whoever loads it will say
        cached = None
    return {"source": str(source), "revision": Path(cached).parent.name if isinstance(cached, str) else "unknown"}


def fingerprints(models: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What settings say of models: content digests or revisions, not the places they came from."""
    return {name: model.get("sha256") or f"{model['source']}@{model['revision']}" for name, model in models.items()}
