"""The user's pictures with captions, or triplets: a table of either, or a folder of pictures with .txt files.

A table names pictures relative to its folder or to another one; a name that leads out of that folder is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cig.benchmarks import name_of
from cig.errors import InputError, NotFoundError, did_you_mean
from cig.io.dataset_paths import PassedOver, stays_below, walk_pictures
from cig.io.files import read_bytes, stat_file
from cig.io.tables import Row, read_rows
from cig.models.prompts import join_captions
from cig.runtime import say
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
LONGEST = 10_000  # characters of a caption; a text tower reads at most some 77 words


def of_table(path: Path, home: Path | None = None) -> list[Example]:
    """Read the examples of a table.

    Columns reference, caption, target hold triplets; columns picture, caption hold pictures, whose reference is an
    augmented view of themselves. A cell (JSON, Parquet) may hold several captions: a step draws one; those of a triplet
    are joined, in both orders. LaSCo's columns are read as well: query-image, query-text, target-image, where a picture
    is [id, path].

    Args:
        home: the folder that pictures are relative to; by default the table's.

    Raises:
        InputError: a column is missing, or a row is wrong; the message names it.
    """
    rows = [_renamed(row, path) for row in read_rows(path)]
    is_triplets = "target" in rows[0]
    for column in ("reference", "caption", "target") if is_triplets else ("picture", "caption"):
        if column not in rows[0]:
            raise InputError(f"{path} has no column {column}.{did_you_mean(column, rows[0])}")
    examples = []
    for number, row in enumerate(rows):
        try:
            examples.append(_example(row, home or path.parent, number))
        except InputError as error:
            raise InputError(f"{path}, row {number} (counting from 0): {error}") from error
    return examples


def _renamed(row: Row, path: Path) -> Row:
    """Rename other columns to ours, which take precedence; raises InputError if two others mean the same."""
    renamed = {str(key): cell for key, cell in row.items() if str(key) not in ALIASES}
    for key, cell in ((str(key), cell) for key, cell in row.items() if str(key) in ALIASES):
        if ALIASES[key] in row:
            continue
        if ALIASES[key] in renamed:
            raise InputError(f"{path}: {key} and another column both mean {ALIASES[key]}; call one of them that")
        renamed[ALIASES[key]] = cell
    return renamed


def _example(row: Row, home: Path, number: int) -> Example:
    if "target" not in row:
        name = _name(row.get("picture"), "picture")
        return Example(f"{number}: {name}", home / name, captions_of(row.get("caption")))
    reference, target = (_name(row.get(key), key) for key in ("reference", "target"))
    captions = join_captions(captions_of(row.get("caption")))
    return Example(f"{number}: {reference} -> {target}", home / target, captions, reference=home / reference)


def _name(value: Any, what: str) -> str:
    """Return a picture's path below the home; raises InputError for any other."""
    name = name_of(value[-1] if isinstance(value, list) and value else value, what)
    if not name or not stays_below(name):
        raise InputError(f"{what} {name!r} leads out of the folder of pictures; name it below that")
    return name


def captions_of(value: Any) -> tuple[str, ...]:
    """Return the captions of a cell: a text, several, or none.

    Raises:
        InputError: the cell holds something else, or a caption is too long.
    """
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in listed):
        raise InputError(f"the caption should be a text, or several, found {str(value)[:80]!r}")
    texts = tuple(stripped for text in listed if (stripped := text.strip()))
    if any(len(text) > LONGEST for text in texts):
        raise InputError(f"a caption of more than {LONGEST} characters")
    return texts


def of_folder(home: Path) -> list[Example]:
    """Return every picture below a folder, with the caption of the .txt file of its name if there is one.

    Raises:
        NotFoundError: the folder has no pictures.
    """
    passed = PassedOver()
    paths = [Path(entry.path) for entry in walk_pictures(home, passed)]
    if not paths:
        raise NotFoundError(f"{home} has no pictures{passed}")
    if passed.lines:
        say(f"{home}: {len(paths)} pictures{passed}")
    return [Example(path.relative_to(home).as_posix(), path, _text_file(path.with_suffix(".txt"))) for path in paths]


def _text_file(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    if stat_file(path).st_size > 4 * LONGEST:
        raise InputError(f"{path} has more than {4 * LONGEST} bytes; a caption is shorter")
    try:
        return captions_of(read_bytes(path).decode("utf-8-sig"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no caption: {error}") from error
