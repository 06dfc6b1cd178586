"""Read users' tables (CSV, JSON, JSONL, Parquet) as rows; errors name the line where that is possible."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from cig.errors import InputError, UsageError, reason
from cig.io.files import read_bytes, stat_file
from cig.io.json_files import read_json

FORMS = ("csv", "tsv", "json", "jsonl", "parquet")
LONGEST = 2**20  # characters of a cell
BATCH = 2**10  # rows of a Parquet file at once
_LIMIT = threading.Lock()
Row = dict[str, Any]  # column -> value, which is always a str in CSV


def read_rows(path: Path) -> list[Row]:
    """Read all rows of a file, whose suffix states its format.

    Raises:
        InputError: the file has another format, or no rows.
        UsageError: another suffix; Parquet without pyarrow.
    """
    rows = list(each_row(path))
    if not rows:
        raise InputError(f"{path} has no rows")
    return rows


def each_row(path: Path) -> Iterator[Row]:
    """Yield the rows of a file one at a time, for large tables; the file may have none."""
    form = path.suffix.lower().removeprefix(".")
    readers = {"csv": _csv, "tsv": _csv, "json": _json, "jsonl": _jsonl, "parquet": _parquet}
    if form not in readers:
        raise UsageError(f"{path}: a table comes as {', '.join(FORMS)}")
    yield from readers[form](path)


def _csv(path: Path) -> Iterator[Row]:
    """Read comma, semicolon or tab separated rows, by the separator that is most frequent in the first line."""
    try:
        with _opened(path, newline="") as file:
            delimiter = max(",;\t", key=file.readline(LONGEST).count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = _next(reader) or []
            if twice := [name for name in header if name and header.count(name) > 1]:
                raise InputError(f"{path}: several columns are called {twice[0]}; give each a name of its own")
            while (cells := _next(reader)) is not None:
                if cells and len(cells) != len(header):
                    row = str(dict(zip(header, cells, strict=False)))
                    raise InputError(f"{path}: a row has another number of cells than the header: {row[:120]}")
                if cells:
                    yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: not CSV: {error}") from error


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """Read a row whose cells have at most LONGEST characters; None at the end."""
    # The limit is the process's: it is set for this row alone, since other readers, of ours or not, have theirs.
    with _LIMIT:
        before = csv.field_size_limit(LONGEST)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(before)


def _json(path: Path) -> Iterator[Row]:
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{path}: expected a list of objects")
    yield from value


def _jsonl(path: Path) -> Iterator[Row]:
    with _opened(path, newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: not JSON: {reason(error)}") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: expected an object")
            yield row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow: pip install 'cig[data]'") from error
    try:
        for batch in parquet.ParquetFile(io.BytesIO(read_bytes(path))).iter_batches(BATCH):
            yield from batch.to_pylist()
    except (OSError, ValueError, TypeError, ArithmeticError, NotImplementedError) as error:
        raise InputError(f"{path}: not Parquet: {reason(error)}") from error


def each_line(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, without their line ends."""
    with _opened(path, newline=None) as file:
        for line in file:
            yield line.removesuffix("\n")


@contextlib.contextmanager
def _opened(path: Path, newline: str | None) -> Iterator[TextIO]:
    stat_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
