"""Tables that people bring: CSV, JSON, JSONL or Parquet -> rows; what cannot be read is told by its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cig.errors import InputError, UsageError, reason
from cig.formats import read_bytes, read_json

FORMS = ("csv", "tsv", "json", "jsonl", "parquet")
LONGEST = 2**20  # characters of a cell
Row = dict[str, Any]  # column -> value: always a text in CSV


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, in the form that its suffix says.

    Raises:
        InputError: it is not of that form, or holds no row.
        UsageError: another suffix; Parquet without pyarrow.
    """
    form = path.suffix.lower().removeprefix(".")
    readers = {"csv": _csv, "tsv": _csv, "json": _json, "jsonl": _jsonl, "parquet": _parquet}
    if form not in readers:
        raise UsageError(f"{path}: a table comes as {', '.join(FORMS)}")
    rows = list(readers[form](path))
    if not rows:
        raise InputError(f"{path} has no rows")
    return rows


def _csv(path: Path) -> Iterator[Row]:
    """Comma, semicolon or tab, as the first line has it."""
    text = _text(path)
    first = text.partition("\n")[0]
    mark = max(",;\t", key=first.count)
    before = csv.field_size_limit(LONGEST)
    try:
        for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=mark, strict=True):
            if None in row or None in row.values():
                raise InputError(f"{path}: a row has another number of cells than the header: {str(row)[:120]}")
            yield dict(row)
    except csv.Error as error:
        raise InputError(f"{path}: not CSV: {error}") from error
    finally:
        csv.field_size_limit(before)


def _json(path: Path) -> Iterator[Row]:
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{path}: expected a list of objects")
    yield from value


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_text(path).split("\n"), 1):
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
        yield from parquet.read_table(io.BytesIO(read_bytes(path))).to_pylist()
    except (OSError, ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"{path}: not Parquet: {reason(error)}") from error


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from error
