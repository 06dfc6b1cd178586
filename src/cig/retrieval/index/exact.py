"""The embedded engine: a matrix on disk that only grows, and an SQLite file that says which of its rows count.

A write appends features to the matrix and syncs it, then commits the rows' slots in SQLite: a kill between the two
leaves bytes that no slot names, and the next write takes their place. Removing only forgets a slot; when half of the
matrix is forgotten, it is written anew under the next generation's name. A search reads SQLite's snapshot and the
matrix of that generation, so writers in other processes never show it half of a change.

Scores are products of the whole matrix in blocks: exact, and memory stays bounded however long the matrix is.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cig.errors import InputError, UsageError
from cig.io.files import make_folder, writing
from cig.retrieval.filters import cells
from cig.retrieval.index import EVERYTHING, IndexEntry, Row, Selection
from cig.retrieval.index._order import MARGIN, Candidate
from cig.retrieval.index._sql import EACH_COLUMN, TABLES, sql_of
from cig.runtime import batches

FILE = "rows.sqlite"
WAIT = 60.0  # seconds for another process to finish a write
BLOCK = 2**16  # rows of the matrix at once
QUERIES = 64  # queries at once
NAMES = 500  # values a statement
MOST_TIES = 2**16  # rows as near as the k-th that are ordered by name; more are taken in the order of their slots
COLUMNS = "name, content, stamp, file, metadata"


def open_engine(folder: Path, address: str, dimensions: int | None) -> Exact:
    if address:
        raise UsageError(f"--store exact:{address}: the exact index has no address; it lies in the index's folder")
    return Exact(folder, dimensions)


class Exact:
    """See Engine. One object may be used by several threads; several processes may use one folder."""

    def __init__(self, folder: Path, dimensions: int | None = None) -> None:
        """Raises InputError for a folder without an index where dimensions is None, or for a damaged one."""
        self.folder, self._path, self._lock = folder, folder / FILE, threading.RLock()
        if dimensions is None and not os.path.isfile(self._path):
            raise InputError(f"{folder} has no {FILE}: the index is not whole; make it again with `cig index build`")
        make_folder(folder)
        self._matrix, self._live, self._version = np.empty((0, 0), np.float32), np.empty(0, bool), -1
        with self._errors():
            self._db = sqlite3.connect(self._path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            # WAL lets searches go on while a write is under way; FULL makes each commit wait for the disk.
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.create_function("folded", 1, str.casefold, deterministic=True)
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'dead'").fetchone():
                self._db.executescript(TABLES)
        if dimensions is not None and not self._fact("dimensions"):
            with self._writes():
                self._set(dimensions=dimensions)
        self.dimensions = self._fact("dimensions")
        with self._reads():  # a matrix that is cut short is told now, not by the first search
            pass

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __len__(self) -> int:
        return int(self._all("SELECT count(*) FROM picture")[0][0])

    # Writing

    def put(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        features = np.stack([row.feature for row in rows]).astype(np.float32)
        if features.shape[1] != self.dimensions:
            raise UsageError(f"features of {features.shape[1]} values do not fit {self.folder}: {self.dimensions}")
        with self._writes():
            first = self._fact("slots")
            self._append(first, features)
            self._forget([row.entry.name for row in rows])
            for slot, row, feature in zip(count(first), rows, features, strict=False):
                self._insert(row.entry, slot, zlib.crc32(feature.tobytes()))
            self._set(slots=first + len(rows))
            self._compact()

    def describe(self, entries: Sequence[IndexEntry]) -> None:
        with self._writes():
            for entry in entries:
                statement = "SELECT id, slot, checksum FROM picture WHERE name = ?"
                row = self._db.execute(statement, (entry.name,)).fetchone()
                if row:
                    self._db.execute("DELETE FROM cell WHERE picture = ?", row[:1])
                    self._insert(entry, *row[1:])

    def remove(self, names: Sequence[str]) -> int:
        with self._writes():
            removed = self._forget(names)
            self._compact()
        return removed

    def _insert(self, entry: IndexEntry, slot: int, checksum: int) -> None:
        values = (entry.name, entry.content, entry.stamp, entry.file, json.dumps(dict(entry.metadata), default=str))
        statement = (
            f"INSERT OR REPLACE INTO picture ({COLUMNS}, slot, checksum) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id"
        )
        ((picture,),) = self._db.execute(statement, (*values, slot, checksum)).fetchall()
        rows = [(picture, column, text, number) for column, text, number in cells(entry.metadata)]
        self._db.executemany("INSERT INTO cell VALUES (?, ?, ?, ?)", rows)

    def _forget(self, names: Sequence[str]) -> int:
        rows = self._select("SELECT id, slot FROM picture WHERE name IN", names)
        for picture, slot in rows:
            self._db.execute("DELETE FROM picture WHERE id = ?", (picture,))
            self._db.execute("DELETE FROM cell WHERE picture = ?", (picture,))
            self._db.execute("INSERT INTO dead VALUES (?)", (slot,))
        return len(rows)

    def _matrix_path(self, generation: int) -> Path:
        return self.folder / f"features-{generation}.f32"

    def _append(self, first: int, features: NDArray[np.float32]) -> None:
        path = self._matrix_path(self._fact("generation"))
        with writing(path), path.open("r+b" if os.path.exists(path) else "w+b") as file:
            file.seek(first * features.shape[1] * 4)
            file.write(features.tobytes())
            file.truncate()  # what a killed write left behind
            file.flush()
            os.fsync(file.fileno())

    def _compact(self) -> None:
        """Write the matrix without its forgotten rows, where they are half of it."""
        generation, slots = self._fact("generation"), self._fact("slots")
        ((dead,),) = self._db.execute("SELECT count(*) FROM dead").fetchall()
        if dead < max(1024, slots // 2):
            return
        kept = np.array([slot for (slot,) in self._db.execute("SELECT slot FROM picture ORDER BY slot")], np.int64)
        old, path = self._map(generation, slots), self._matrix_path(generation + 1)
        with writing(path), path.open("wb") as file:
            for start in range(0, len(kept), BLOCK):
                file.write(np.ascontiguousarray(old[kept[start : start + BLOCK]]).tobytes())
            file.flush()
            os.fsync(file.fileno())
        # In ascending order no slot is taken by a row that has not moved yet.
        moves = [(new, int(slot)) for new, slot in enumerate(kept) if new != slot]
        self._db.executemany("UPDATE picture SET slot = ? WHERE slot = ?", moves)
        self._db.execute("DELETE FROM dead")
        self._set(generation=generation + 1, slots=len(kept))

    def _remove_other_matrices(self) -> None:
        """Remove what compactions, and kills within them, left behind; call it within a write, which no other is."""
        current = self._matrix_path(self._fact("generation"))
        for path in self.folder.glob("features-*.f32"):
            if path != current:
                with contextlib.suppress(OSError):  # some systems keep a file that another process has mapped
                    path.unlink()

    # Reading

    def entries(
        self, select: Selection = EVERYTHING, *, after: str = "", limit: int | None = None
    ) -> Iterator[IndexEntry]:
        condition, values = sql_of(select)
        statement = f"SELECT {COLUMNS} FROM picture WHERE name > ? AND {condition} ORDER BY name LIMIT ?"
        while limit is None or limit > 0:
            size = min(limit or NAMES, NAMES)
            rows = self._all(statement, (after, *values, size))
            yield from (_entry(row) for row in rows)
            if len(rows) < size:
                return
            after, limit = rows[-1][0], limit and limit - size

    def get(self, names: Sequence[str]) -> dict[str, Row]:
        with self._reads():
            rows = self._select(f"SELECT {COLUMNS}, slot, checksum FROM picture WHERE name IN", names)
            return {row[0]: Row(_entry(row), self._feature(*row[-2:])) for row in rows}

    def features(self, contents: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        with self._reads():
            rows = self._select("SELECT content, slot, checksum FROM picture WHERE content IN", contents)
            return {content: self._feature(slot, checksum) for content, slot, checksum in rows}

    def count(self, select: Selection) -> int:
        condition, values = sql_of(select)
        return int(self._all(f"SELECT count(*) FROM picture WHERE {condition}", values)[0][0])

    def columns(self) -> list[str]:
        return [column for (column,) in self._all(EACH_COLUMN)]

    def nearest(self, queries: NDArray[np.float32], k: int, select: Selection = EVERYTHING) -> list[list[Candidate]]:
        with self._reads():
            allowed = self._allowed(select)
            k = min(k, int(allowed.sum()))
            chunks = [queries[start : start + QUERIES] for start in range(0, len(queries), QUERIES)]
            return [self._named(slots) for chunk in chunks for slots in self._best(chunk, k, allowed)]

    def _allowed(self, select: Selection) -> NDArray[np.bool_]:
        """Return [slots], true for those that count and are selected."""
        if select == EVERYTHING:
            return self._live
        condition, values = sql_of(select)
        allowed = np.zeros_like(self._live)
        allowed[[slot for (slot,) in self._db.execute(f"SELECT slot FROM picture WHERE {condition}", values)]] = True
        return allowed

    def _best(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]) -> list[list[int]]:
        """Return, for each query, the slots of the k best and of those that are as good as the k-th."""
        if not k:
            return [[] for _ in queries]
        columns, nearest = torch.from_numpy(np.ascontiguousarray(queries, np.float32)), []
        scores, slots = self._top(columns, k + 16, allowed)
        if scores.isnan().any():
            raise self._damage()
        for query in range(len(queries)):
            size, enough = k + 16, scores[query, k - 1] - MARGIN
            best, rows = scores[query], slots[query]
            while best[-1] >= enough and size < min(MOST_TIES, int(allowed.sum())):
                size *= 8
                best, rows = (part[0] for part in self._top(columns[query : query + 1], size, allowed))
            nearest.append(rows[best >= enough].tolist())
        return nearest

    def _top(self, queries: torch.Tensor, size: int, allowed: NDArray[np.bool_]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and slots [Q, size or fewer] of the best allowed rows, best first, a block at a time."""
        best, slots = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.long)
        for start in range(0, len(self._matrix), BLOCK):
            rows, live = torch.from_numpy(self._matrix[start : start + BLOCK]), allowed[start : start + BLOCK]
            scores = (rows @ queries.T).T.contiguous()  # rows lie one after the other: read once, in order
            if not live.all():
                scores[:, torch.from_numpy(~live)] = -torch.inf
            scores, order = scores.topk(min(size, len(rows)))
            best, slots = torch.cat([best, scores], dim=1), torch.cat([slots, order + start], dim=1)
            best, order = best.topk(min(size, best.shape[1]))
            slots = slots.gather(1, order)
        return best, slots

    def _named(self, slots: Sequence[int]) -> list[Candidate]:
        rows = self._select("SELECT name, slot, checksum, file, metadata FROM picture WHERE slot IN", slots)
        return [Candidate(row[0], self._feature(*row[1:3]), row[3], json.loads(row[4])) for row in rows]

    def _feature(self, slot: int, checksum: int) -> NDArray[np.float32]:
        """Return a row of the matrix; raise InputError where its bytes are not those that were written."""
        feature = np.array(self._matrix[slot])
        if zlib.crc32(feature.tobytes()) != checksum:
            raise self._damage()
        return feature

    def _damage(self) -> InputError:
        return InputError(f"{self.folder} is damaged: its features are not as written; `cig index build` it anew")

    # The matrix as it is now

    def _refresh(self) -> None:
        """Map the matrix of the snapshot, and mark which of its slots count; nothing to do where nothing changed."""
        version = self._fact("version")
        if version == self._version:
            return
        slots = self._fact("slots")
        self._matrix, live = self._map(self._fact("generation"), slots), np.ones(slots, bool)
        live[[slot for (slot,) in self._db.execute("SELECT slot FROM dead")]] = False
        self._live, self._version = live, version

    def _map(self, generation: int, slots: int) -> NDArray[np.float32]:
        path, shape = self._matrix_path(generation), (slots, self._fact("dimensions"))
        if not slots:
            return np.empty(shape, np.float32)
        try:  # mode "c": torch wants memory that it may write to; nothing is written
            return np.memmap(path, np.float32, "c", shape=shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is not whole; make the index again with `cig index build`") from error

    # SQLite

    @contextlib.contextmanager
    def _writes(self) -> Iterator[None]:
        """One transaction: all that is written within it is durable at its end, or gone."""
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._remove_other_matrices()
                yield
                self._set(version=self._fact("version") + 1)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _reads(self) -> Iterator[None]:
        """One snapshot of rows and matrix."""
        with self._lock, self._errors():
            for attempt in range(3):
                self._db.execute("BEGIN")
                try:
                    self._refresh()
                except InputError:  # another process removed this generation's matrix before it was mapped
                    self._db.execute("ROLLBACK")
                    if attempt == 2:
                        raise
                else:
                    break
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    def _fact(self, key: str) -> int:
        rows = self._all("SELECT value FROM fact WHERE key = ?", (key,))
        return int(rows[0][0]) if rows else 0

    def _set(self, **facts: int) -> None:
        self._db.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", facts.items())

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._lock, self._errors():
            return self._db.execute(statement, values).fetchall()

    def _select(self, statement: str, values: Sequence[Any]) -> list[tuple]:
        """Run a statement that ends in IN for any number of values."""
        rows = []
        for chunk in batches(list(dict.fromkeys(values)), NAMES):
            rows += self._db.execute(f"{statement} ({','.join('?' * len(chunk))})", tuple(chunk)).fetchall()
        return rows

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"the index {self._path} cannot be used: {error}; free space, or make it again with `cig index build`"
            ) from error


def _entry(row: Sequence[Any]) -> IndexEntry:
    return IndexEntry(row[0], row[1], row[2], row[3], json.loads(row[4]))
