"""The table of each picture's most similar names, written and read.

A row is a picture: `Image Name`, then its names by rank in the columns `1`, `2`... This is the published layout, in
CSV and in Parquet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cig.errors import InputError, UsageError
from cig.io.digests import file_digest
from cig.io.json_files import write_json
from cig.io.locks import hold_file
from cig.io.outputs import write_output
from cig.io.tables import Row, each_row
from cig.runtime import versions

PICTURE = "Image Name"
FORMS = (".csv", ".parquet")


@dataclass(frozen=True)
class Concepts:
    """The names that are most similar to each picture.

    Attributes:
        pictures: [N] names of the pictures that could be read.
        vocabulary: [V] names.
        ranked: [N, k] rows of the vocabulary, the most similar first, equal ones in its order.
        unreadable: picture -> why it has no names.
        inputs: what the result depends on: pictures, CLIP, preprocessing, vocabulary, templates.
    """

    pictures: tuple[str, ...]
    vocabulary: tuple[str, ...]
    ranked: NDArray[np.int32]
    unreadable: Mapping[str, str]
    inputs: Mapping[str, Any]

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        for picture, ranks in zip(self.pictures, self.ranked, strict=True):
            yield picture, [self.vocabulary[i] for i in ranks.tolist()]


def check_form(path: Path) -> None:
    """Raise UsageError for a suffix that no table is written as, before the work is done."""
    if path.suffix.lower() not in FORMS:
        raise UsageError(f"{path}: a table of concepts is written as {' or '.join(FORMS)}")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise UsageError("Parquet needs pyarrow: pip install 'cig[data]'; or write .csv") from error


def write_concepts(path: Path, concepts: Concepts) -> None:
    """Write the table, whole or not at all, and its card `{name}.json`; raises UsageError for another suffix."""
    check_form(path)
    with hold_file(path, "concepts"):  # the table and its card are of one process
        write_output(path, _parquet(concepts) if path.suffix.lower() == ".parquet" else _csv(concepts))
        counts = {"pictures": len(concepts.pictures), "unreadable": len(concepts.unreadable)}
        card = {
            **concepts.inputs,
            "counts": counts,
            "unreadable": dict(concepts.unreadable),
            "sha256": file_digest(path),
        }
        write_json(path.with_name(f"{path.name}.json"), {**card, "versions": versions()}, indent=2)


def _columns(concepts: Concepts) -> list[str]:
    return [PICTURE, *(str(rank) for rank in range(1, concepts.ranked.shape[1] + 1))]


def _csv(concepts: Concepts) -> bytes:
    buffer = io.BytesIO()
    text = io.TextIOWrapper(buffer, "utf-8", newline="")
    returns = any("\r" in name for name in (*concepts.vocabulary, *concepts.pictures))  # which csv leaves unquoted
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
    writer.writerow(_columns(concepts))
    writer.writerows([picture, *names] for picture, names in concepts.rows())
    text.flush()
    return buffer.getvalue()


def _parquet(concepts: Concepts) -> bytes:
    import pyarrow
    from pyarrow import parquet

    vocabulary = pyarrow.array(concepts.vocabulary)
    ranks = [pyarrow.DictionaryArray.from_arrays(pyarrow.array(rank), vocabulary) for rank in concepts.ranked.T]
    table = pyarrow.Table.from_arrays([pyarrow.array(concepts.pictures), *ranks], names=_columns(concepts))
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, store_schema=False)  # so that names are read as texts, which is faster
    return buffer.getvalue()


def read_concepts(path: Path) -> dict[str, tuple[str, ...]]:
    """Read each picture's names, the most similar first, from a CSV or Parquet file of ours or of SEARLE.

    Raises:
        NotFoundError: there is no such file.
        InputError: it is another table: another first column, a cell without a name, a picture twice.
    """
    concepts: dict[str, tuple[str, ...]] = {}
    interned: dict[str, str] = {}  # keep a name in memory once, however many pictures have it
    for row in each_row(path):
        picture, names = _checked(row, path)
        if picture in concepts:
            raise InputError(f"{path} has {picture} twice; a picture has one row")
        concepts[picture] = tuple(interned.setdefault(name, name) for name in names)
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
