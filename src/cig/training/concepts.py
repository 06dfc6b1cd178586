"""Each picture's most similar names (SEARLE's concept association): the table that is written, and read again.

A row is a picture: `Image Name`, then its names by rank in the columns `1`, `2`...: the published layout, in CSV as in
Parquet.
"""

from __future__ import annotations

from pathlib import Path

from cig.errors import InputError
from cig.tables import Row, each_row

PICTURE = "Image Name"


def read_concepts(path: Path) -> dict[str, tuple[str, ...]]:
    """Picture name -> its names, the most similar first, from CSV or Parquet, ours or as SEARLE writes it.

    Raises:
        NotFoundError: it is not there.
        InputError: it is no such table: another first column, a cell without a name, a picture twice.
    """
    concepts: dict[str, tuple[str, ...]] = {}
    known: dict[str, str] = {}  # a name is in memory once, however many pictures have it
    for row in each_row(path):
        picture, names = _checked(row, path)
        if picture in concepts:
            raise InputError(f"{path} has {picture} twice; a picture has one row")
        concepts[picture] = tuple(known.setdefault(name, name) for name in names)
    if not concepts:
        raise InputError(f"{path} has no rows")
    return concepts


def _checked(row: Row, path: Path) -> tuple[str, list[str]]:
    column = next(iter(row), None)
    if column != PICTURE or len(row) < 2:
        raise InputError(
            f'{path} is no table of concepts: its first column is "{column}", not "{PICTURE}", with names after it; '
            f"cig train concepts writes one"
        )
    picture, *names = row.values()
    if not all(isinstance(cell, str) and cell for cell in (picture, *names)):
        raise InputError(f"{path}: the row of {picture} has a cell without a name")
    return picture, names
