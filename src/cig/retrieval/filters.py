"""Filters of a gallery: by picture names, and by the columns of a table about the pictures."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cig.errors import InputError, UsageError, did_you_mean, some
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

    def holds(self, cell: Any) -> bool:
        """Compare a cell with the value.

        Two numbers are compared as numbers; of a number and a text, neither is less. An empty cell fulfils only !=.
        """
        text = "" if cell is None else str(cell)
        if self.sign == "~":
            return self.value.casefold() in text.casefold()
        if not text and self.sign != "!=":
            return False
        try:
            return COMPARE[self.sign](float(text), float(self.value))
        except ValueError:
            numeric = _is_number(text) or _is_number(self.value)
            if self.sign in ("<", "<=", ">", ">=") and numeric:
                return False
        if isinstance(cell, bool):
            return COMPARE[self.sign](text.lower(), self.value.lower())
        return COMPARE[self.sign](text, self.value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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


def need_columns(where: Sequence[Condition], metadata: Metadata | None) -> None:
    """Raise UsageError for conditions without a table, or on a column that it lacks."""
    if where and metadata is None:
        raise UsageError("--where looks at the columns of a table: give it with --metadata FILE.csv")
    for column in [condition.column for condition in where]:
        if metadata and column not in metadata.columns:
            raise UsageError(f'{metadata.path} has no column "{column}".{did_you_mean(column, metadata.columns)}')


def allowed(
    names: Sequence[str],
    patterns: Sequence[str] = (),
    metadata: Metadata | None = None,
    *,
    where: Sequence[Condition] = (),
) -> NDArray[np.bool_]:
    """Return [N], true for names that match any of the patterns (`dresses/*`) and whose row fulfils all conditions.

    Raises:
        UsageError: conditions without a table, or on a column that it lacks.
    """
    need_columns(where, metadata)
    keep = np.ones(len(names), dtype=bool)
    if patterns:
        tests = [re.compile(fnmatch.translate(pattern)) for pattern in patterns]
        keep &= [any(test.match(name) for test in tests) for name in names]
    if where and metadata is not None:
        rows = [metadata.row(name) for name in names]
        keep &= [bool(row) and all(condition.holds(row.get(condition.column)) for condition in where) for row in rows]
    return keep
