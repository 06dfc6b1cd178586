"""Filters of a gallery: by picture names, and by the columns of a table about the pictures."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from cig.errors import InputError, UsageError, did_you_mean, some
from cig.io.files import stamp, stat_file
from cig.io.spellings import loose
from cig.io.tables import read_rows

CONDITION = re.compile(r"\s*(.+?)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*", re.DOTALL)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NAMES = ("name", "file", "filename", "image", "path")  # columns that may name a row's picture


@dataclass(frozen=True)
class Condition:
    """`price<50`, `colour=red`, `title~summer` (contains, in any case)."""

    column: str
    sign: str
    value: str

    @staticmethod
    def parse(text: str) -> Condition:
        """Read COLUMN SIGN VALUE; raise UsageError for other text."""
        match = CONDITION.fullmatch(text)
        if not match:
            raise UsageError(
                f'--where {text!r}: write COLUMN SIGN VALUE, such as "price<50"; signs are = != < <= > >= ~'
            )
        return Condition(*match.groups())

    @property
    def number(self) -> float | None:
        """The value as a number, or None."""
        return number_of(self.value)

    def holds(self, cell: Any) -> bool:
        """Compare a cell with the value.

        Two numbers are compared as numbers; of a number and a text, neither is less. An empty cell fulfils only !=.
        """
        text = text_of(cell)
        if self.sign == "~":
            return bool(text) and self.value.casefold() in text.casefold()
        if not text:
            return self.sign == "!="
        one, other = number_of(text), self.number
        if one is not None and other is not None:
            return COMPARE[self.sign](one, other)
        if one is None and other is None:
            return COMPARE[self.sign](text, text_of(self.value))
        return self.sign == "!="


def text_of(cell: Any) -> str:
    """Return a cell as the text that conditions compare: true and false in lower case, as JSON writes them."""
    text = "" if cell is None else str(cell)
    return text.lower() if text.lower() in ("true", "false") else text


def number_of(text: str) -> float | None:
    """Return the number that a text states, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if number != number else number


def cells(row: Mapping[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    """Yield (column, text, number) of the cells that are not empty: what an index needs to test conditions."""
    for column, cell in row.items():
        if text := text_of(cell):
            yield str(column), text, number_of(text)


class Metadata:
    """A table whose rows describe pictures."""

    def __init__(self, path: Path) -> None:
        """Read the table; raise InputError where a row's picture is not clear."""
        self.path, self.rows = path, read_rows(path)
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        if not self.columns:
            raise InputError(f"{path} has no columns")
        self.key = next((column for column in self.columns if column.strip().lower() in NAMES), self.columns[0])
        named = [str(row.get(self.key) or "") for row in self.rows]
        if not any(named):
            raise InputError(f"{path}: the column {self.key} should name the pictures, and is empty")
        twice = [name for name, rows in Counter(named).items() if name and rows > 1]
        if twice:
            raise InputError(f"{path} has several rows about {some(twice, 3)}; give each picture one")
        self.by_name = dict(zip(named, self.rows, strict=True))
        spellings = Counter(map(loose, self.by_name))  # one that two rows share is neither's
        self.by_spelling = {loose(name): row for name, row in self.by_name.items() if spellings[loose(name)] == 1}

    def row(self, name: str) -> dict[str, Any]:
        """Return a picture's row, by its name with or without suffix; an empty one where there is none."""
        for rows, spelling in ((self.by_name, name), (self.by_spelling, loose(name))):
            if row := rows.get(spelling) or rows.get(str(PurePosixPath(spelling).with_suffix(""))):
                return row
        return {}

    def unused(self, names: Sequence[str]) -> int:
        """Count the rows that name none of these pictures."""
        spellings = set(map(loose, names))
        spellings |= {str(PurePosixPath(name).with_suffix("")) for name in spellings}
        return sum(loose(name) not in spellings for name in self.by_name)


def unchanged_table(path: Path) -> Metadata:
    """Read a table, or return it as it was read before where its file has not changed since."""
    return _table_of(path, stamp(stat_file(path)))


@lru_cache(2)
def _table_of(path: Path, _: str) -> Metadata:
    return Metadata(path)


def need_columns(wanted: Iterable[str], columns: Sequence[str]) -> None:
    """Raise UsageError for a column that the pictures' metadata lack."""
    for column in wanted:
        if column not in columns:
            hint = did_you_mean(column, columns) if columns else " Give a table about the pictures with --metadata FILE"
            raise UsageError(f'the pictures have no column "{column}".{hint}')
