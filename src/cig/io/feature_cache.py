"""The cache between runs: features by content, content digests by path, descriptions of models.

The cache is one SQLite file, which many processes may use at once and which survives a kill. It trusts no name alone:
it identifies a picture by path and stamp (size, times, inode), and a model by the digests of its files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cig.errors import InputError, NotFoundError, some
from cig.io.digests import digest_of, file_digest
from cig.io.files import make_folder, stamp
from cig.runtime import batches, versions

FILE = "features.sqlite"
INDEXES = "indexes"  # the folder beside it, with the indexes of galleries
TABLES = """
CREATE TABLE IF NOT EXISTS feature (space TEXT, key TEXT, value BLOB, PRIMARY KEY (space, key));
CREATE TABLE IF NOT EXISTS space (id TEXT PRIMARY KEY, title TEXT);
CREATE TABLE IF NOT EXISTS stamp (path TEXT PRIMARY KEY, stamp TEXT, digest TEXT);
CREATE TABLE IF NOT EXISTS description (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS checksum (space TEXT, key TEXT, crc INTEGER, PRIMARY KEY (space, key));
"""
# Caches of earlier versions have no checksums: they get those of what they hold.
ADD_CHECKSUMS = """
INSERT OR IGNORE INTO checksum SELECT space, key, crc32(value) FROM feature;
PRAGMA user_version = 1;
"""
DESCRIPTIONS = "description"  # the space of their checksums

WAIT = 120.0  # seconds for another process to finish writing
CHUNK = 500  # keys a statement
UNKNOWN = '"revision": "unknown"'  # from digests.identity, for a hub id that is not in the hub's cache


class FeatureCache:
    """A cache in a folder or, without one, in memory for the length of a run."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open or create the cache; raises InputError if its file cannot be used."""
        self.path = make_folder(folder) / FILE if folder else None
        self._lock = threading.RLock()  # a service reads and writes from several threads
        # Each read and each write is a transaction of its own, so processes wait for each other only for moments (at
        # most WAIT seconds), and a kill loses at most the statement under way. NORMAL skips some syncs: a power
        # failure may lose the last rows, which the next run computes again.
        try:
            self._db = sqlite3.connect(self.path or ":memory:", timeout=WAIT, check_same_thread=False)
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(TABLES)
            self._db.create_function("crc32", 1, _crc32, deterministic=True)
            if not self._db.execute("PRAGMA user_version").fetchone()[0]:
                self._db.executescript(ADD_CHECKSUMS)
        except sqlite3.Error as error:
            raise self.error(error) from error

    def close(self) -> None:
        self._db.close()

    # Features: the space identifies the model and its settings, the key identifies the content. SQLite does not notice
    # numbers that a disk or another program changed, so each value has a checksum; a value without it, or with another
    # one, counts as absent, and is computed again.

    def space(self, settings: Mapping[str, Any], title: str) -> str:
        """Return the id of the space of features computed with these settings; people read the title."""
        name = digest_of(settings)
        printed = title.encode("utf-8", "replace").decode()
        self._write("INSERT OR IGNORE INTO space VALUES (?, ?)", [(name, printed)])
        return name

    def read(self, space: str, keys: Iterable[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield (key, feature [d]) for the keys in the cache, in any order; values that are not finite are left out."""
        for key, value in self.read_bytes(space, keys):
            row = np.frombuffer(value[: len(value) // 4 * 4], np.float32)
            if row.nbytes == len(value) and row.size and np.isfinite(row).all():
                yield key, row

    def stack(self, rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Stack features as a table [N, d]; raises InputError if they are of several widths."""
        if len(widths := {row.size for row in rows}) > 1:
            raise self.error(f"features of one model have the widths {some(map(str, sorted(widths)))}")
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)

    def write(self, space: str, features: Mapping[str, NDArray[np.float32]]) -> None:
        as_floats = (np.ascontiguousarray(row, np.float32) for row in features.values())
        self.write_bytes(space, {key: row.tobytes() for key, row in zip(features, as_floats, strict=True)})

    def read_bytes(self, space: str, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for chunk in batches(list(dict.fromkeys(keys)), CHUNK):
            marks = ",".join("?" * len(chunk))
            query = f"""SELECT key, value FROM feature JOIN checksum USING (space, key)
                        WHERE space = ? AND key IN ({marks}) AND typeof(value) = 'blob' AND crc = crc32(value)"""
            yield from self._read(query, (space, *chunk))

    def write_bytes(self, space: str, values: Mapping[str, bytes]) -> None:
        rows = [(space, key, value) for key, value in values.items()]
        self._write("INSERT OR REPLACE INTO feature VALUES (?, ?, ?)", rows, space)

    # Content digests of files

    # A file is read once and then recognised by path and stamp, because 100,000 pictures take minutes
    # to read and a second to stat. Two guards keep a wrong digest out: a file that changed or was replaced while it
    # was read is not stored, and neither is one so new that a second change within the same tick of the file system's
    # clock would leave its stamp as it is. Such files are read again by the next run. Paths are stored as hex, because
    # a file name may be any bytes.

    def read_digests(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Return the stored digests of the files that have not changed since, without opening a file."""
        digests: dict[Path, str] = {}
        for chunk in batches(paths, CHUNK):
            by_key = {os.fsencode(path.absolute()).hex(): path for path in chunk}
            query = f"SELECT path, stamp, digest FROM stamp WHERE path IN ({','.join('?' * len(by_key))})"
            for key, seen, content in self._read(query, tuple(by_key)):
                status = _stat(by_key[key])
                if isinstance(content, str) and status and stamp(status) == seen:
                    digests[by_key[key]] = content
        return digests

    def write_digests(self, digests: Mapping[Path, str], since: float) -> None:
        """Store digests of files read after that time; skip a file that changed meanwhile, or a moment ago."""
        rows = []
        for path, content in digests.items():
            status = _stat(path)
            if status and not _just_now(status.st_mtime_ns) and max(status.st_mtime, status.st_ctime) <= since:
                rows.append((os.fsencode(path.absolute()).hex(), stamp(status), content))
        self._write("INSERT OR REPLACE INTO stamp VALUES (?, ?, ?)", rows)

    def file_digest(self, path: Path) -> str:
        """Return the sha256 of a file's content, from the cache if the file has not changed."""
        content = self.read_digests([path]).get(path)
        if content is None:
            since = time.time()
            content = file_digest(path)
            self.write_digests({path: content}, since)
        return content

    # Descriptions of models

    def load_lazily(
        self,
        made_of: Mapping[str, Any],
        load: Callable[[], Any],
        describe: Callable[[Any], dict[str, Any]],
        *,
        restore: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
    ) -> Any:
        """Load a model or, if the cache has its description, return a stand-in that loads it on first use.

        Args:
            made_of: digests of its files and every option, which together identify it.
            describe: model -> the attributes that callers read before any work is due, as JSON.
            restore: that JSON -> the attributes.
        """
        # Where every feature is in the cache a run needs a model's attributes, never its weights: the description
        # saves loading gigabytes. It holds for these files, options and library versions only, and a model whose
        # revision is unknown cannot be identified, so it is always loaded.
        if UNKNOWN in json.dumps(made_of):
            return load()
        key = digest_of({**made_of, "versions": versions()})
        query = """SELECT value FROM description JOIN checksum USING (key)
                   WHERE space = ? AND key = ? AND typeof(value) = 'text' AND crc = crc32(value)"""
        rows = self._read(query, (DESCRIPTIONS, key))
        if rows:
            return Deferred(restore(json.loads(rows[0][0])), load)
        model = load()
        row = key, json.dumps(describe(model))
        self._write("INSERT OR REPLACE INTO description VALUES (?, ?)", [row], DESCRIPTIONS)
        return model

    # Inspection

    def spaces(self) -> list[tuple[str, int, int]]:
        """Return (title, features, bytes) of each space, the largest first."""
        query = """SELECT coalesce(title, feature.space), count(*), coalesce(sum(length(value)), 0) FROM feature
                   LEFT JOIN space ON id = feature.space GROUP BY feature.space ORDER BY 3 DESC"""
        return [(str(title), int(count), int(size)) for title, count, size in self._read(query, ())]

    def clear(self) -> None:
        """Delete all rows and indexes; safe while other processes use the cache."""
        for table in ("feature", "space", "stamp", "description", "checksum"):
            self._write(f"DELETE FROM {table}", [()])
        self._write("DROP TABLE IF EXISTS file", [()])  # of older versions, whose stamps had size and time alone
        if self.path:
            shutil.rmtree(self.path.parent / INDEXES, ignore_errors=True)
        with contextlib.suppress(sqlite3.OperationalError):  # in use elsewhere: later rows fill the free space
            self._db.execute("VACUUM")

    # SQLite

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self.error(error) from error

    def _write(self, statement: str, rows: Sequence[Sequence[Any]], checked: str = "") -> None:
        """Write rows.

        Args:
            checked: the space of their checksums; empty for rows that have none.
        """
        checksums = [(checked, row[-2], _crc32(row[-1])) for row in rows] if checked else []
        try:
            with self._lock, self._db:
                self._db.executemany(statement, rows)
                self._db.executemany("INSERT OR REPLACE INTO checksum VALUES (?, ?, ?)", checksums)
        except sqlite3.Error as error:
            raise self.error(error) from error

    def error(self, error: object) -> InputError:
        """Return the error for a cache that cannot be used."""
        return InputError(
            f"the feature cache {self.path} cannot be used: {error}; free space, choose another folder with "
            f"--feature-cache, or remove that file: it holds nothing that cannot be computed again"
        )


def _crc32(value: Any) -> int:
    """Return the checksum of a value, whatever another program put in its place."""
    return zlib.crc32(value if isinstance(value, bytes) else str(value).encode())


class Deferred:
    """A stand-in for a model: it has the described attributes, and loads the model for any other."""

    def __init__(self, attributes: Mapping[str, Any], load: Callable[[], Any]) -> None:
        self._attributes, self._load, self._model = attributes, load, None

    def __getattr__(self, name: str) -> Any:
        return self._attributes[name] if name in self._attributes else getattr(self._loaded(), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._loaded()(*args, **options)

    @property
    def loaded(self) -> Any:
        """The model, or None where nothing has needed it yet."""
        return self._model

    def _loaded(self) -> Any:
        if self._model is None:
            self._model = self._load()
        return self._model


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _just_now(changed: int) -> bool:
    """Tell whether a file could change again within the same tick of its clock, unnoticed.

    Most clocks tick every few milliseconds, those of some network drives every second or two.
    """
    tick = 2.0 if changed % 10**9 == 0 else 0.05
    return time.time() - changed / 1e9 <= tick


def summary(folder: Path) -> str:
    """List the spaces of a cache, one a line, with their sizes."""
    if not os.path.isfile(folder / FILE):
        raise NotFoundError(f"{folder} has no feature cache ({FILE}); evaluate with --feature-cache {folder} makes one")
    spaces = FeatureCache(folder).spaces()
    lines = [f"{size / 2**20:8.1f} MB  {count:8d} features  {title}" for title, count, size in spaces]
    total = sum(size for _, _, size in spaces) / 2**20
    return "\n".join([*lines, f"{total:8.1f} MB  {sum(count for _, count, _ in spaces):8d} features in {folder}"])
