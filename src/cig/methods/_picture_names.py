"""Names of pictures in other programs' files: as benchmarks write them, as file names, COCO's with or without zeros."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from cig.errors import InputError, some
from cig.io.dataset_paths import SUFFIXES

COCO = 12  # digits of its names; a pseudo-target of query 42, 00042.png, is no picture of COCO's


def plain_name(name: str) -> str:
    """Cut suffix and folders, and the zeros of COCO: "img0" from "dev/img0.png"; "42" from "000000000042"."""
    path = PurePosixPath(_plain_text(name))
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return (stem.lstrip("0") or "0") if len(stem) == COCO and stem.isdecimal() else stem


def placed_name(name: str) -> str:
    """Keep the folders of a name before its `plain_name`: "n01/7" from "./n01/7.png"."""
    folders = PurePosixPath(os.path.normpath(_plain_text(name))).parts[:-1]
    return "/".join([*(folder for folder in folders if folder not in ("/", "//", "..")), plain_name(name)])


def _plain_text(name: str) -> str:
    """Return the name in one Unicode form, with slashes: other systems write "Café" and "a\\b" otherwise."""
    return unicodedata.normalize("NFC", name).replace("\\", "/")


def is_of(path: Path, name: str) -> bool:
    """Tell whether a name means this file; a name with folders means files in such folders only."""
    return Names.of([name], path).row(path) is not None


@dataclass(frozen=True)
class Names:
    """The rows of a file by picture. A name with folders means files in such folders only."""

    rows: Mapping[str, int]  # placed_name -> row

    @staticmethod
    def of(names: Iterable[str], path: Path, repeats: bool = False) -> Names:
        """Index the names that a file, `path`, lists.

        Args:
            repeats: a picture may be named again; its first row counts.

        Raises:
            InputError: two rows name one picture.
        """
        names = list(names)
        if (repeated := repeated_names(names)) and not repeats:
            raise InputError(f"{path} has names that stand for one picture: {some(repeated, 5)}; keep one row for each")
        rows: dict[str, int] = {}
        for row, name in enumerate(names):
            rows.setdefault(placed_name(name), row)
        return Names(rows)

    def without(self, names: Iterable[str]) -> Names:
        """Leave out rows: those of names that may mean another picture, too."""
        dropped = {placed_name(name) for name in names}
        return Names({name: row for name, row in self.rows.items() if name not in dropped})

    def row(self, path: Path, *, bare: bool = True) -> int | None:
        """Return the row of the longest name that the path ends with; None if there is none.

        Args:
            bare: a name without folders counts, too.
        """
        # A path without a folder that does not exist is a bare name, as benchmarks write it: if only one of the rows
        # ends with it, whatever the folders in that row, that row is meant.
        parts = Path(os.path.abspath(path)).parts
        depths = range(min(self._depth, len(parts)), 0 if bare else 1, -1)
        ends = (placed_name("/".join(parts[-depth:])) for depth in depths)
        row = next((self.rows[end] for end in ends if end in self.rows), None)
        if bare and row is None and len(path.parts) == 1 and not os.path.lexists(path):
            return self._unique_ends.get(plain_name(path.name))
        return row

    def lacking(self, paths: Iterable[Path], what: str, source: Path) -> dict[Path, str]:
        """Return the pictures without a row, and why: "no caption of a in captions.csv"."""
        return {path: f"no {what} of {path.stem} in {source}" for path in paths if self.row(path) is None}

    def lacking_own(
        self, paths: Iterable[Path], gallery: Iterable[Path], what: str, *, source: Path, bare: bool
    ) -> dict[Path, str]:
        """Return the pictures from outside of the gallery that have no row of their own, and why.

        Args:
            gallery: a row that one of these pictures may have is not another's.
            bare: a name without folders may be a picture's from outside; never a pseudo-target's, which its query's id
                names.
        """
        paths = list(dict.fromkeys(paths))
        names = {plain_name(path.name) for path in paths}
        taken = {self.row(path) for path in gallery if plain_name(path.name) in names}
        rows = {path: self.row(path, bare=bare) for path in paths}
        return {
            path: f"no {what} of its own in {source}: name it {path.parent.name}/{path.stem} there"
            for path, row in rows.items()
            if row is None or row in taken
        }

    def rows_of(self, paths: Sequence[Path], what: str, source: Path, *, hint: str) -> list[int]:
        """Return the rows of pictures; raises InputError that names every picture without one."""
        if lacking := self.lacking(paths, what, source):
            names = some(path.stem for path in lacking)
            raise InputError(f"{source} has no {what} of {len(lacking)} pictures: {names}; {hint}")
        return [row for row in map(self.row, paths) if row is not None]

    @cached_property
    def _depth(self) -> int:
        return max((name.count("/") + 1 for name in self.rows), default=0)

    @cached_property
    def _unique_ends(self) -> dict[str, int]:
        """Rows by the last part of their name, if no other name ends with it."""
        counts = Counter(name.rpartition("/")[2] for name in self.rows)
        return {end: row for name, row in self.rows.items() if counts[end := name.rpartition("/")[2]] == 1}


def repeated_names(names: Iterable[str]) -> list[str]:
    """List the names of pictures that an earlier name means, too."""
    rows: dict[str, int] = {}
    return [name for row, name in enumerate(names) if rows.setdefault(placed_name(name), row) != row]
