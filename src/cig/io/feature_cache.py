"""What a run remembers for the next: features by content, content digests by place, descriptions of models.

One SQLite file in a folder, which any number of processes may use at once and a kill does not hurt. Nothing in it is
believed by name alone: a picture is known by path, size and time of change, a model by the digests of its files.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cig.errors import InputError, NotFoundError
from cig.io.digests import digest_of, file_digest
from cig.io.files import make_folder
from cig.runtime import batches, versions

FILE = "features.sqlite"
INDEXES = "indexes"  # a folder beside it, with what galleries keep there
TABLES = """
CREATE TABLE IF NOT EXISTS feature (space TEXT, key TEXT, value BLOB, PRIMARY KEY (space, key));
CREATE TABLE IF NOT EXISTS space (id TEXT PRIMARY KEY, title TEXT);
CREATE TABLE IF NOT EXISTS file (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, digest TEXT);
CREATE TABLE IF NOT EXISTS description (key TEXT PRIMARY KEY, value TEXT);
"""
WAIT = 120.0  # seconds for another process to finish writing
CHUNK = 500  # keys a statement
UNKNOWN = '"revision": "unknown"'  # formats.identity, of a hub id that is not in the hub's cache


class FeatureCache:
    """Without a folder it lives in memory, for the length of a run."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises InputError if the folder cannot be written or holds something else."""
        self.path = make_folder(folder) / FILE if folder else None
        try:
            self._db = sqlite3.connect(self.path or ":memory:", timeout=WAIT)
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(TABLES)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def close(self) -> None:
        self._db.close()

    # Features: a space says what made them, a key what of

    def space(self, about: Mapping[str, Any], title: str) -> str:
        """The id of the space that is made so; its title is for people."""
        name = digest_of(about)
        self._write("INSERT OR IGNORE INTO space VALUES (?, ?)", [(name, title)])
        return name

    def read(self, space: str, keys: Iterable[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """(key, feature [d]) of those that are known, in any order."""
        yield from ((key, np.frombuffer(value, np.float32)) for key, value in self.read_bytes(space, keys))

    def write(self, space: str, features: Mapping[str, NDArray[np.float32]]) -> None:
        as_floats = (np.ascontiguousarray(row, np.float32) for row in features.values())
        self.write_bytes(space, {key: row.tobytes() for key, row in zip(features, as_floats, strict=True)})

    def read_bytes(self, space: str, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for chunk in batches(list(dict.fromkeys(keys)), CHUNK):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, value FROM feature WHERE space = ? AND key IN ({marks})"
            yield from self._read(query, (space, *chunk))

    def write_bytes(self, space: str, values: Mapping[str, bytes]) -> None:
        rows = [(space, key, value) for key, value in values.items()]
        self._write("INSERT OR REPLACE INTO feature VALUES (?, ?, ?)", rows)

    # Content digests of files

    def digests(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Of the files that have not changed since they were looked at, without opening one."""
        known: dict[Path, str] = {}
        for chunk in batches(paths, CHUNK):
            places = {os.fsencode(path.absolute()).hex(): path for path in chunk}
            query = f"SELECT path, size, mtime, digest FROM file WHERE path IN ({','.join('?' * len(places))})"
            for place, size, changed, content in self._read(query, tuple(places)):
                if _stamp(places[place]) == (size, changed):
                    known[places[place]] = content
        return known

    def remember(self, digests: Mapping[Path, str], since: float) -> None:
        """What was read after that time; a file that has changed meanwhile, or a moment ago, is left out."""
        rows = []
        for path, content in digests.items():
            stamp = _stamp(path)
            if stamp and not _just_now(stamp[1]) and not _changed(path, since):
                rows.append((os.fsencode(path.absolute()).hex(), *stamp, content))
        self._write("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", rows)

    def file_digest(self, path: Path) -> str:
        """sha256 of the content, from memory where the file has not changed."""
        known = self.digests([path]).get(path)
        if known is None:
            since = time.time()
            known = file_digest(path)
            self.remember({path: known}, since)
        return known

    # Descriptions of models

    def recall(
        self,
        made_of: Mapping[str, Any],
        load: Callable[[], Any],
        describe: Callable[[Any], dict[str, Any]],
        restore: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
    ) -> Any:
        """The loaded thing; or, where one made of the same was described before, a stand-in that loads when it must.

        Args:
            made_of: digests of its files and every option: what tells it from all others.
            describe: thing -> the attributes that are asked for before any work is, as JSON takes them.
            restore: that again -> the attributes.
        """
        if UNKNOWN in json.dumps(made_of):
            return load()
        key = digest_of({**made_of, "versions": versions()})
        known = self._read("SELECT value FROM description WHERE key = ?", (key,))
        if known:
            return Deferred(restore(json.loads(known[0][0])), load)
        thing = load()
        self._write("INSERT OR REPLACE INTO description VALUES (?, ?)", [(key, json.dumps(describe(thing)))])
        return thing

    # For people

    def spaces(self) -> list[tuple[str, int, int]]:
        """(title, features, bytes) of each space, the largest first."""
        query = """SELECT coalesce(title, feature.space), count(*), sum(length(value)) FROM feature
                   LEFT JOIN space ON id = feature.space GROUP BY feature.space ORDER BY 3 DESC"""
        return [(str(title), int(count), int(size)) for title, count, size in self._read(query, ())]

    def clear(self) -> None:
        """Forgets everything; safe while others use it."""
        for table in ("feature", "space", "file", "description"):
            self._write(f"DELETE FROM {table}", [()])
        for path in (self.path.parent / INDEXES).glob("*/*") if self.path else ():
            if path.name == "index.json" or path.suffix == ".npy":
                with contextlib.suppress(OSError):
                    path.unlink()
        with contextlib.suppress(sqlite3.OperationalError):  # in use elsewhere: its room is used again later
            self._db.execute("VACUUM")

    # SQLite

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        try:
            with self._db:
                self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> InputError:
        return InputError(
            f"the feature cache {self.path} cannot be used: {error}; free space, choose another folder with "
            f"--feature-cache, or remove that file: it holds nothing that cannot be computed again"
        )


class Deferred:
    """Stands for a thing whose description is known; whatever else is asked of it loads it first."""

    def __init__(self, known: Mapping[str, Any], load: Callable[[], Any]) -> None:
        self._known, self._load, self._thing = known, load, None

    def __getattr__(self, name: str) -> Any:
        return self._known[name] if name in self._known else getattr(self._loaded(), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._loaded()(*args, **options)

    def _loaded(self) -> Any:
        if self._thing is None:
            self._thing = self._load()
        return self._thing


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _changed(path: Path, since: float) -> bool:
    """Whether its content is another since then, or another file was moved to its place, or it went."""
    try:
        status = path.stat()
    except OSError:
        return True
    return max(status.st_mtime, status.st_ctime) > since


def _just_now(changed: int) -> bool:
    """Whether the file could change again within the same tick of its clock, and nobody would see.

    Most clocks tick every few milliseconds, those of some network drives every second or two.
    """
    tick = 2.0 if changed % 10**9 == 0 else 0.05
    return time.time() - changed / 1e9 <= tick


def summary(folder: Path) -> str:
    """What a cache holds, a line for each space."""
    if not os.path.isfile(folder / FILE):
        raise NotFoundError(f"{folder} has no feature cache ({FILE}); evaluate with --feature-cache {folder} makes one")
    spaces = FeatureCache(folder).spaces()
    lines = [f"{size / 2**20:8.1f} MB  {count:8d} features  {title}" for title, count, size in spaces]
    total = sum(size for _, _, size in spaces) / 2**20
    return "\n".join([*lines, f"{total:8.1f} MB  {sum(count for _, count, _ in spaces):8d} features in {folder}"])
