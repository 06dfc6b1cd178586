"""Pictures with captions of one's own, and triplets: a table of either, or a folder of pictures with .txt beside them.

A table names pictures relative to its own folder, or to another; none leads out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cig.benchmarks import name_of
from cig.errors import InputError, NotFoundError, did_you_mean
from cig.io.dataset_paths import stays_below, walk_pictures
from cig.io.files import read_bytes, stat_file
from cig.io.tables import Row, read_rows
from cig.models.prompts import join_captions
from cig.training.data.scenes import Example

ALIASES = {
    "image": "picture",
    "file_name": "picture",
    "text": "caption",
    "captions": "caption",
    "query-image": "reference",
    "query-text": "caption",
    "target-image": "target",  # LaSCo's (Levy et al., 2024)
}
LONGEST = 10_000  # characters of a caption; a text tower reads some 77 words of it


def of_table(path: Path, home: Path | None = None) -> list[Example]:
    """Columns reference, caption, target are triplets; picture, caption are pictures to be asked for from themselves.

    Several captions in a cell (JSON, Parquet) are ways to say it, one a step; a triplet's are joined, in both orders.
    LaSCo's columns are known, too: query-image, query-text, target-image, of which the pictures are [id, path].

    Args:
        home: what pictures are relative to; the table's own folder by default.

    Raises:
        InputError: a column is not there, or a row is wrong; it is named.
    """
    rows = [_renamed(row, path) for row in read_rows(path)]
    triplets = "target" in rows[0]
    for column in ("reference", "caption", "target") if triplets else ("picture", "caption"):
        if column not in rows[0]:
            raise InputError(f"{path} has no column {column}.{did_you_mean(column, rows[0])}")
    read = _triplet if triplets else _captioned
    return list(_examples(rows, read, path, home or path.parent))


def _renamed(row: Row, path: Path) -> Row:
    """With our names of columns; raises InputError where two others mean one of them."""
    renamed = {str(key): own for key, own in row.items() if str(key) not in ALIASES}
    for key, own in ((str(key), own) for key, own in row.items() if str(key) in ALIASES):
        if ALIASES[key] in row:
            continue  # our own name goes first
        if ALIASES[key] in renamed:
            raise InputError(f"{path}: {key} and another column both mean {ALIASES[key]}; call one of them that")
        renamed[ALIASES[key]] = own
    return renamed


def _examples(rows: Sequence[Row], read: Any, path: Path, home: Path) -> Iterator[Example]:
    for number, row in enumerate(rows):
        try:
            yield read(row, home, number)
        except InputError as error:
            raise InputError(f"{path}, row {number} (counting from 0): {error}") from error


def _captioned(row: Row, home: Path, number: int) -> Example:
    name = _name(row.get("picture"), "picture")
    return Example(f"{number}: {name}", home / name, captions_of(row.get("caption")))


def _triplet(row: Row, home: Path, number: int) -> Example:
    reference, target = (_name(row.get(key), key) for key in ("reference", "target"))
    captions = join_captions(captions_of(row.get("caption")))
    return Example(f"{number}: {reference} -> {target}", home / target, captions, home / reference)


def _name(value: Any, what: str) -> str:
    """A picture's path below the home."""
    name = name_of(value[-1] if isinstance(value, list) and value else value, what)
    if not name or not stays_below(name):
        raise InputError(f"{what} {name!r} leads out of the folder of pictures; name it below that")
    return name


def captions_of(value: Any) -> tuple[str, ...]:
    """A text, several, or none.

    Raises:
        InputError: something else, or one too long.
    """
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in listed):
        raise InputError(f"the caption should be a text, or several, found {str(value)[:80]!r}")
    texts = tuple(stripped for text in listed if (stripped := text.strip()))
    if any(len(text) > LONGEST for text in texts):
        raise InputError(f"a caption of more than {LONGEST} characters")
    return texts


def of_folder(home: Path) -> list[Example]:
    """Every picture below a folder, with the caption of the .txt file of its name, where there is one.

    Raises:
        NotFoundError: it has no pictures.
    """
    paths = [Path(entry.path) for entry in walk_pictures(home)]
    if not paths:
        raise NotFoundError(f"{home} has no pictures (.jpg, .jpeg, .png, .webp)")
    return [Example(path.relative_to(home).as_posix(), path, _beside(path.with_suffix(".txt"))) for path in paths]


def _beside(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    if stat_file(path).st_size > 4 * LONGEST:
        raise InputError(f"{path} has more than {4 * LONGEST} bytes; a caption is shorter")
    try:
        return captions_of(read_bytes(path).decode("utf-8-sig"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no caption: {error}") from error
