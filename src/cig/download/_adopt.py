"""Pictures that the user has: found by their names below a folder, checked, copied or linked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cig.download._pictures import Refused, examine_files
from cig.download._shelf import Shelf
from cig.layout import walk_pictures
from cig.runtime import progress


def candidates(folder: Path, names: Collection[str]) -> Iterator[tuple[str, Path]]:
    """(name, picture) of every file below a folder that is called by one of the names."""
    for entry in walk_pictures(folder):
        path = Path(entry.path)
        if path.stem in names:
            yield path.stem, path


@dataclass(frozen=True)
class Adopted:
    """Attributes: taken: how many pictures. refused: file -> what is wrong with it."""

    folder: Path
    taken: int
    refused: Mapping[Path, str]


def adopt(shelf: Shelf, folder: Path, ids: Collection[str], most: int, link: bool) -> Adopted:
    """What the shelf lacks and the folder has."""
    wanted = {path: name for name, path in candidates(folder, ids) if shelf.lacking(name)}
    refused: dict[Path, str] = {}
    taken = 0
    for path, content in progress(examine_files(wanted, most), len(wanted), f"adopt from {folder}", "picture"):
        if isinstance(content, Refused):
            refused[path] = content.kind
        elif shelf.lacking(wanted[path]):
            shelf.put(wanted[path], content, str(path), link=path if link else None)
            taken += 1
        elif shelf.ledger.lines[wanted[path]].digest != content.digest:
            refused[path] = "another file of its id was taken"
    return Adopted(folder, taken, refused)
