"""Pictures that the user has: found by their names below a folder, checked, copied or linked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from cig.download._fashioniq_pictures import Shelf
from cig.download._folder_scan import Files, look_below
from cig.download._picture_checks import Refused, examine_files
from cig.runtime import progress


@dataclass(frozen=True)
class Adopted:
    """Attributes:
    taken: how many pictures.
    kept: names in the folder whose picture was there.
    refused: file -> what is wrong with it.
    foreign: pictures that are called by no id that is wanted.
    links: to folders, which are not followed.
    """

    folder: Path
    taken: int
    kept: Collection[str]
    refused: Mapping[Path, str]
    foreign: Collection[str]
    links: Collection[str]


def adopt(shelf: Shelf, folder: Path, ids: Collection[str], most: int, link: bool) -> Adopted:
    """What the shelf lacks and the folder has; files without the suffix of a picture are looked at after the others."""
    below = look_below(folder, ids)
    kept = [name for name in below.best() if shelf.has(name)]
    refused: dict[Path, str] = {}
    taken = sum(_take(shelf, files, folder, most, link, refused) for files in (below.pictures, below.others))
    return Adopted(folder, taken, kept, refused, below.foreign, below.links)


def _take(shelf: Shelf, files: Files, folder: Path, most: int, link: bool, refused: dict[Path, str]) -> int:
    """How many were taken; what was not is added to `refused`."""
    wanted = {Path(path): name for name, own in files.items() if shelf.lacking(name) for path in own}
    taken = 0
    for path, content in progress(examine_files(wanted, most), len(wanted), f"adopt from {folder}", "picture"):
        if isinstance(content, Refused):
            refused[path] = content.kind
        elif shelf.lacking(wanted[path]):
            shelf.put(wanted[path], content, str(path), link=path if link else None)
            taken += 1
        elif shelf.ledger.lines[wanted[path]].digest != content.digest:
            refused[path] = "another file of its id was taken"
    return taken
