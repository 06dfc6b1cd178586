"""Bring an index up to date with its folder: read what is new or changed, move what was renamed, drop what is gone."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cig.errors import CigError, NotFoundError, UsageError, some
from cig.io.dataset_paths import HEIC, SUFFIXES, PassedOver, walk_pictures
from cig.io.digests import file_digest
from cig.io.feature_cache import FeatureCache
from cig.io.files import stamp
from cig.io.images import reads_heic
from cig.retrieval.features import embed_pictures
from cig.retrieval.filters import Metadata
from cig.retrieval.index import Engine, IndexEntry, Row
from cig.runtime import batches, progress
from cig.types import Method

CHUNK = 512  # pictures between two writes of the index


@dataclass(frozen=True)
class Listed:
    """A picture of the folder, as it is now."""

    name: str
    path: Path
    stamp: str


@dataclass
class Changes:
    """What a build did."""

    added: int = 0
    replaced: int = 0
    removed: int = 0
    unchanged: int = 0
    reused: int = 0  # of those added or replaced: with a feature that was there, since the content was known
    unreadable: dict[str, str] = field(default_factory=dict)  # name -> why it is not searched
    passed: PassedOver = field(default_factory=PassedOver)  # files of the folder that are not taken as pictures

    @property
    def changed(self) -> int:
        return self.added + self.replaced + self.removed

    def __str__(self) -> str:
        parts = [f"{self.added} added", f"{self.replaced} replaced", f"{self.removed} removed"]
        text = f"{', '.join(parts)}, {self.unchanged} as before"
        if self.reused:
            text += f"; {self.reused} were known by their content and not embedded again"
        if self.unreadable:
            text += f"; cannot be read, and are not searched: {len(self.unreadable)} ({some(self.unreadable, 5)})"
        return f"{text}{self.passed}"


def list_folder(home: Path, passed: PassedOver | None = None) -> list[Listed]:
    """List the pictures below a folder, and note what is passed over; raise NotFoundError where there are none."""
    if not os.path.isdir(home):
        raise NotFoundError(f"{home} is not a folder; give that of your pictures")
    passed = PassedOver() if passed is None else passed
    listed, start = [], len(os.path.join(home, ""))
    suffixes = (*SUFFIXES, *HEIC) if reads_heic() else SUFFIXES
    for entry in walk_pictures(home, passed, suffixes):
        with contextlib.suppress(OSError):  # removed meanwhile
            name = entry.path[start:].replace(os.sep, "/")
            listed.append(Listed(name, Path(entry.path), stamp(entry.stat())))
    if not listed:
        raise NotFoundError(f"{home} has no pictures; give another folder{passed}")
    return listed


class Builder:
    """Writes pictures of one method into an engine, a chunk at a time: a rerun after a kill goes on from there."""

    def __init__(
        self,
        method: Method,
        cache: FeatureCache,
        *,
        batch_size: int,
        workers: int,
        metadata: Metadata | None,
        engine: Engine | None,
        make_engine: Callable[[int], Engine],
    ) -> None:
        """Args:
        engine: the index's; None where it is made, with `make_engine`, once the width of a feature is known.
        """
        self.method, self.cache, self.batch_size, self.workers = method, cache, batch_size, workers
        self.metadata, self.engine, self._make_engine = metadata, engine, make_engine
        self.changes = Changes()

    def update(self, listed: Sequence[Listed]) -> Changes:
        """Make the index hold these pictures, and those from outside of the folder that were added one by one."""
        before = {entry.name: entry for entry in self.engine.entries()} if self.engine is not None else {}
        todo: list[tuple[Listed, IndexEntry | None]] = []
        described: list[IndexEntry] = []
        for picture in listed:
            old = before.pop(picture.name, None)
            if old and old.file and not os.path.isabs(old.file):  # a service was given another picture of this name
                self.changes.unchanged += 1
                continue
            if old is None or old.stamp != picture.stamp or old.file:
                todo.append((picture, old))
                continue
            self.changes.unchanged += 1
            if self.metadata and (row := self.metadata.row(picture.name)) != old.metadata:
                described.append(replace(old, metadata=row))
        for chunk in _shown(todo):
            self.write([picture for picture, _ in chunk], {picture.name for picture, old in chunk if old})
        gone = [entry.name for entry in before.values() if not entry.file]
        if self.engine is not None:
            for entries in batches(described, CHUNK):
                self.engine.describe(entries)
            self.changes.removed += self.engine.remove(gone) if gone else 0
        return self.changes

    def write(
        self,
        pictures: Sequence[Listed],
        replaced: set[str],
        *,
        files: Mapping[str, str] | None = None,
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Embed pictures whose content is new, and write all of them.

        Args:
            replaced: names that the index has.
            files: name -> IndexEntry.file, of pictures outside of the folder.
            metadata: name -> row; default: the table's.
        """
        contents, failed = self._digests(pictures)
        features = self._features({contents[p.name]: p.path for p in pictures if p.name in contents}, failed)
        rows = []
        for picture in pictures:
            content = contents.get(picture.name, "")
            if content not in features:
                self.changes.unreadable[picture.name] = failed.get(str(picture.path), "it cannot be read")
                continue
            row = (metadata or {}).get(picture.name)
            if row is None:
                row = self.metadata.row(picture.name) if self.metadata else {}
            entry = IndexEntry(picture.name, content, picture.stamp, (files or {}).get(picture.name, ""), row)
            rows.append(Row(entry, features[content]))
        lost = [name for name in replaced if name in self.changes.unreadable]
        if rows and self.engine is None:
            self.engine = self._make_engine(len(rows[0].feature))
        if self.engine is not None:
            self.engine.put(rows)
            self.changes.removed += self.engine.remove(lost) if lost else 0
        new = sum(row.entry.name not in replaced for row in rows)
        self.changes.added += new
        self.changes.replaced += len(rows) - new

    def _digests(self, pictures: Sequence[Listed]) -> tuple[dict[str, str], dict[str, str]]:
        """Return name -> sha256 of the file, and path -> why it cannot be read."""
        stored, since = self.cache.read_digests([picture.path for picture in pictures]), time.time()
        contents: dict[str, str] = {}
        fresh: dict[Path, str] = {}
        failed: dict[str, str] = {}
        for picture in pictures:
            try:
                picture.name.encode()
                contents[picture.name] = stored.get(picture.path) or file_digest(picture.path)
            except UnicodeEncodeError:
                failed[str(picture.path)] = "its name is not UTF-8; rename it"
                continue
            except CigError as error:
                failed[str(picture.path)] = str(error)
                continue
            if picture.path not in stored:
                fresh[picture.path] = contents[picture.name]
        self.cache.write_digests(fresh, since)
        return contents, failed

    def _features(self, paths: Mapping[str, Path], failed: dict[str, str]) -> dict[str, NDArray[np.float32]]:
        """Return content -> unit feature [d], from the index where it has the content."""
        features = self.engine.features(list(paths)) if self.engine is not None else {}
        self.changes.reused += len(features)
        missing = {content: path for content, path in paths.items() if content not in features}
        embedded = embed_pictures(
            self.method, list(missing.values()), self.batch_size, workers=self.workers, cache=self.cache
        )
        failed |= {str(path): why for path, why in embedded.failed.items()}
        for content, path in missing.items():
            if embedded.have(path):
                row = embedded.of([path])[0].numpy().astype(np.float32)
                features[content] = row / max(float(np.linalg.norm(row)), 1e-12)
        return features


def _shown(todo: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield chunks; show the progress over chunks where there are several."""
    chunks = list(batches(todo, CHUNK))
    return iter(chunks) if len(chunks) < 2 else progress(chunks, len(chunks), "index", unit="chunk")


def verify(engine: Engine, path_of: Callable[[IndexEntry], Path]) -> Iterator[str]:
    """Yield what is wrong with an index: files that are gone or changed, features that are no unit rows."""
    for chunk in _chunks(engine.entries()):
        rows = engine.get([entry.name for entry in chunk])
        for entry in chunk:
            trouble = _trouble(entry, rows.get(entry.name), path_of(entry))
            if trouble:
                yield f"{entry.name}: {trouble}"


def _trouble(entry: IndexEntry, row: Row | None, path: Path) -> str:
    if row is None or not np.isfinite(row.feature).all() or abs(float(np.linalg.norm(row.feature)) - 1) > 1e-3:
        return "its feature is damaged"
    try:
        return "" if file_digest(path) == entry.content else "its file has changed"
    except CigError:
        return "its file is gone"


def _chunks(entries: Iterator[IndexEntry]) -> Iterator[list[IndexEntry]]:
    chunk = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def below(home: Path, path: Path) -> str | None:
    """Return the name of a file below a folder, in POSIX form, whether it is given as a link or as its target."""
    for resolve in (os.path.abspath, os.path.realpath):
        inside = os.path.join(resolve(home), "")
        if resolve(path).startswith(inside):
            return resolve(path).removeprefix(inside).replace(os.sep, "/")
    return None


def need_names(names: Sequence[str], indexed: Mapping[str, Any]) -> None:
    """Raise UsageError for names that an index lacks."""
    if missing := [name for name in names if name not in indexed]:
        raise UsageError(f"the index has no {some(missing, 3)}; `cig index info` says what it holds")
