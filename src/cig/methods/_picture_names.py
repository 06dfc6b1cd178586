"""Names of pictures in strangers' files: as benchmarks write them, as file names, COCO's with zeros in front or not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from cig.errors import InputError, some
from cig.io.dataset_paths import SUFFIXES

COCO = 12  # digits of its names; a pseudo-target of query 42, 00042.png, is no picture of COCO's


def plain_name(name: str) -> str:
    """ "dev-1-0-img0" from "dev-1-0-img0.png"; "42" from COCO's "000000000042"."""
    path = PurePosixPath(name)
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return (stem.lstrip("0") or "0") if len(stem) == COCO and stem.isdecimal() else stem


def placed_name(name: str) -> str:
    """As `plain_name`, with the folders that a name has: "n01/7" from "./n01/7.png"."""
    folders = PurePosixPath(os.path.normpath(name)).parts[:-1]
    return "/".join([*(own for own in folders if own not in ("/", "//", "..")), plain_name(name)])


def is_of(path: Path, name: str) -> bool:
    """Whether a name is of this file: with folders in it, in such folders alone."""
    return Names.of([name], path).row(path) is not None


@dataclass(frozen=True)
class Names:
    """Rows of a file by the names of pictures. A name with folders in it is of a file in such folders alone."""

    rows: Mapping[str, int]  # name, plain but for its folders -> row

    @staticmethod
    def of(names: Iterable[str], path: Path, repeats: bool = False) -> Names:
        """As `path` lists them.

        Args:
            repeats: a picture may be named again, and its first row counts.

        Raises:
            InputError: two rows claim one picture.
        """
        names = list(names)
        if (again := twice(names)) and not repeats:
            raise InputError(f"{path} has names that stand for one picture: {some(again, 5)}; keep one row for each")
        rows: dict[str, int] = {}
        for row, name in enumerate(names):
            rows.setdefault(placed_name(name), row)
        return Names(rows)

    def row(self, path: Path) -> int | None:
        """Of the longest name that the path ends with; of a bare name without a file, the one row that ends so."""
        parts = Path(os.path.abspath(path)).parts
        ends = (placed_name("/".join(parts[-depth:])) for depth in range(min(self._depth, len(parts)), 0, -1))
        found = next((self.rows[end] for end in ends if end in self.rows), None)
        if found is None and len(path.parts) == 1 and not os.path.lexists(path):
            return self._alone.get(plain_name(path.name))
        return found

    @cached_property
    def _depth(self) -> int:
        return max((name.count("/") + 1 for name in self.rows), default=0)

    @cached_property
    def _alone(self) -> dict[str, int]:
        """Rows by the last part of their name, where that is in no other."""
        last = Counter(name.rpartition("/")[2] for name in self.rows)
        return {end: row for name, row in self.rows.items() if last[end := name.rpartition("/")[2]] == 1}


def twice(names: Iterable[str]) -> list[str]:
    """Names that stand for a picture which an earlier one stands for."""
    rows: dict[str, int] = {}
    return [name for row, name in enumerate(names) if rows.setdefault(placed_name(name), row) != row]
