"""Captions to learn from: a file of one's own, a line or a row each, or those of a benchmark with pairs."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

from cig.errors import InputError, NotFoundError, UsageError, did_you_mean, some
from cig.io.json_files import read_json
from cig.io.tables import FORMS, Row, each_line, each_row
from cig.training.data import load_pairs
from cig.training.step import Order, Step
from cig.types import Pairs

COLUMNS = ("caption", "text")  # that a table's captions are looked for in
TEXT_FORMS = ("txt", *FORMS)


class Captions(Protocol):
    """What a phi learns from that is taught by texts."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Source, count, digest, and what was left out."""

    @property
    def per_pass(self) -> int:
        """How many there are; 0 where they have no end."""

    def of(self, step: Step, count: int) -> list[str]:
        """The captions of a step, the same in all processes."""


@dataclass(frozen=True)
class DrawnCaptions:
    """Of a benchmark whose captions are made anew at every step."""

    pairs: Pairs
    per_pass = 0

    @property
    def identity(self) -> Mapping[str, str]:
        return self.pairs.identity

    def of(self, step: Step, count: int) -> list[str]:
        return self.pairs.captions(count, step.rng)


@dataclass(frozen=True)
class ListedCaptions:
    """Of a file: each once a pass, in an order that is drawn anew for it."""

    texts: Sequence[str]
    identity: Mapping[str, str]
    order: Order

    @property
    def per_pass(self) -> int:
        return len(self.texts)

    def of(self, step: Step, count: int) -> list[str]:
        return [self.texts[place] for place in self.order.places(step.number, count)]


class Packed(Sequence[str]):
    """Texts in one block of memory: as objects, millions of short ones would take several times as much."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.letters, self.ends = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        self.letters += text.encode("utf-8", "replace")
        self.ends.append(len(self.letters))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self.letters[self.ends[place] : self.ends[place + 1]].decode()

    @property
    def digest(self) -> str:
        content = hashlib.sha256(self.letters)
        content.update(self.ends)
        return content.hexdigest()


def load_captions(source: str, column: str | None = None, seed: int = 0) -> Captions:
    """The captions of a file, or of a benchmark with pairs by NAME/SPLIT: icons/train.

    A text file has one a line; CSV, TSV, JSON, JSONL and Parquet have them in a column, whose cells may hold several.

    Args:
        column: of a table; by default caption, or else text.
        seed: of the order in which a file's are read.

    Raises:
        NotFoundError: no such file.
        UsageError: the table has no such column; the message says which there are.
        InputError: it cannot be read, or holds no caption.
    """
    form = Path(source).suffix.lower().removeprefix(".")
    if not os.path.isfile(source):
        if form in TEXT_FORMS or os.path.isdir(source):
            raise NotFoundError(f"{source} is not a file; captions come as {', '.join(TEXT_FORMS)}, or a benchmark's")
        return DrawnCaptions(load_pairs(source))
    empty: list[int] = []
    texts = Packed(_said(_cells(Path(source), form, column), empty))
    if not texts:
        raise InputError(f"{source} holds no caption")
    left_out = {"left out": f"{len(empty)} without a text: {some(map(str, empty), 5)} (from 1)"} if empty else {}
    identity = {"data": source, "captions": f"{len(texts)}", "digest": texts.digest, **left_out}
    return ListedCaptions(texts, identity, Order(len(texts), seed))


def sampled(texts: Sequence[str], count: int, rng: Random) -> list[str]:
    """Some of them, or all where there are fewer."""
    return [texts[place] for place in rng.sample(range(len(texts)), min(count, len(texts)))]


def column_of(rows: Iterator[Row], path: Path, asked: str | None, usual: Sequence[str]) -> tuple[str, Iterator[Row]]:
    """The column that is asked for, or the first usual one, and all the rows.

    Raises:
        InputError: there is no row.
        UsageError: there is no such column.
    """
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path} has no rows")
    name = asked or next((own for own in usual if own in first), None)
    if name not in first:
        wanted = f"column {asked}" if asked else f"column {' or '.join(usual)}; say which it is with --column"
        raise UsageError(f"{path} has no {wanted}.{did_you_mean(asked or usual[0], map(str, first))}")
    return name, _again(first, rows)


def _again(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rows


def _cells(path: Path, form: str, column: str | None) -> Iterator[Any]:
    """What each line or row holds."""
    if form not in FORMS:
        if column:
            raise UsageError(f"--column {column}: {path} is read as a plain text; tables are {', '.join(FORMS)}")
        yield from each_line(path)
        return
    if form == "json" and isinstance(listed := read_json(path), list) and all(isinstance(own, str) for own in listed):
        yield from listed
        return
    name, rows = column_of(each_row(path), path, column, COLUMNS)
    for row in rows:
        yield row.get(name)


def _said(cells: Iterable[Any], empty: list[int]) -> Iterator[str]:
    """The texts of all cells; what holds none is noted by its number."""
    for number, cell in enumerate(cells, 1):
        texts = [own.strip() for own in (cell if isinstance(cell, list) else [cell]) if isinstance(own, str)]
        if not any(texts):
            empty.append(number)
        yield from filter(None, texts)
