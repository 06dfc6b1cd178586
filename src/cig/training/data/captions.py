"""Captions to learn from: the lines of a text file, the rows of a table, or a benchmark with pairs."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from cig.errors import InputError, NotFoundError, UsageError, did_you_mean, some
from cig.io.json_files import read_json
from cig.io.tables import FORMS, Row, each_line, each_row
from cig.training.data import load_pairs
from cig.training.step import Order, Step
from cig.types import Pairs

COLUMNS = ("caption", "text")  # of a table, which may hold the captions
TEXT_FORMS = ("txt", *FORMS)


class Captions(Protocol):
    """A source of captions for a phi."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Return source, count, digest, and the captions that were left out."""

    @property
    def per_pass(self) -> int:
        """Return the number of captions; 0 if they have no end."""

    def of(self, step: Step, count: int) -> list[str]:
        """Return the captions of a step, the same in all processes."""


@dataclass(frozen=True)
class DrawnCaptions:
    """The captions of a benchmark that makes new ones at every step."""

    pairs: Pairs
    per_pass = 0

    @property
    def identity(self) -> Mapping[str, str]:
        return self.pairs.identity

    def of(self, step: Step, count: int) -> list[str]:
        return self.pairs.captions(count, step.rng)


@dataclass(frozen=True)
class ListedCaptions:
    """The captions of a file: each once a pass, in an order that is shuffled anew for it."""

    texts: Sequence[str]
    identity: Mapping[str, str]
    order: Order

    @property
    def per_pass(self) -> int:
        return len(self.texts)

    def of(self, step: Step, count: int) -> list[str]:
        return [self.texts[index] for index in self.order.indices(step.number, count)]


class PackedTexts(Sequence[str]):
    """Texts in one block of memory: as Python objects, millions of short ones would take several times as much."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.letters, self.ends = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        self.letters += text.encode("utf-8", "replace")
        self.ends.append(len(self.letters))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.letters[self.ends[index] : self.ends[index + 1]].decode()

    @property
    def digest(self) -> str:
        content = hashlib.sha256(self.letters)
        content.update(self.ends)
        return content.hexdigest()


def load_captions(source: str, column: str | None = None, seed: int = 0) -> Captions:
    """Load the captions of a file, or of a benchmark with pairs by NAME/SPLIT: icons/train.

    A text file has a caption a line; CSV, TSV, JSON, JSONL and Parquet have a column, whose cells may hold several.

    Args:
        column: of a table; by default caption, or else text.
        seed: of the order in which a file's captions are read.

    Raises:
        NotFoundError: there is no such file.
        UsageError: the table has no such column; the message lists its columns.
        InputError: the file cannot be read, or holds no caption.
    """
    form = Path(source).suffix.lower().removeprefix(".")
    if not os.path.isfile(source):
        if form in TEXT_FORMS or os.path.isdir(source):
            raise NotFoundError(f"{source} is not a file; captions come as {', '.join(TEXT_FORMS)}, or a benchmark's")
        return DrawnCaptions(load_pairs(source))
    empty: list[int] = []
    texts = PackedTexts(_texts(_cells(Path(source), form, column), empty))
    if not texts:
        raise InputError(f"{source} holds no caption")
    left_out = {"left out": f"{len(empty)} without a text: {some(map(str, empty), 5)} (from 1)"} if empty else {}
    identity = {"data": source, "captions": f"{len(texts)}", "digest": texts.digest, **left_out}
    return ListedCaptions(texts, identity, Order(len(texts), seed))


def select_column(
    rows: Iterator[Row], path: Path, column: str | None, *, defaults: Sequence[str]
) -> tuple[str, Iterator[Row]]:
    """Return the column, by default the first of `defaults` that the table has, and all the rows.

    Raises:
        InputError: the table has no row.
        UsageError: the table has no such column.
    """
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path} has no rows")
    name = column or next((default for default in defaults if default in first), None)
    if name not in first:
        wanted = f"column {column}" if column else f"column {' or '.join(defaults)}; say which it is with --column"
        raise UsageError(f"{path} has no {wanted}.{did_you_mean(column or defaults[0], map(str, first))}")
    return name, chain([first], rows)


def _cells(path: Path, form: str, column: str | None) -> Iterator[Any]:
    """Yield the content of each line or row."""
    if form not in FORMS:
        if column:
            raise UsageError(f"--column {column}: {path} is read as a plain text; tables are {', '.join(FORMS)}")
        yield from each_line(path)
        return
    if form == "json" and isinstance(listed := read_json(path), list) and all(isinstance(text, str) for text in listed):
        yield from listed
        return
    name, rows = select_column(each_row(path), path, column, defaults=COLUMNS)
    for row in rows:
        yield row.get(name)


def _texts(cells: Iterable[Any], empty: list[int]) -> Iterator[str]:
    """Yield the texts of all cells; append the numbers of cells without a text to `empty`."""
    for number, cell in enumerate(cells, 1):
        texts = [text.strip() for text in (cell if isinstance(cell, list) else [cell]) if isinstance(text, str)]
        if not any(texts):
            empty.append(number)
        yield from filter(None, texts)
