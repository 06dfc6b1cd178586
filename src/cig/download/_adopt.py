"""Pictures that the user has: found by their names below a folder, checked, copied or linked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from cig.download._pictures import Content, Refused, examine_files
from cig.download._shelf import Shelf
from cig.errors import some
from cig.layout import walk_pictures
from cig.runtime import progress


def candidates(folder: Path, names: Collection[str]) -> Iterator[tuple[str, Path]]:
    """(name, picture) of every file below a folder that is called by one of the names."""
    for entry in walk_pictures(folder):
        path = Path(entry.path)
        if path.stem in names:
            yield path.stem, path


def adopt(shelf: Shelf, folder: Path, ids: Collection[str], most: int, link: bool) -> list[str]:
    """What the shelf lacks and the folder has; returns what is to be said of files that are no whole pictures."""
    wanted = {path: name for name, path in candidates(folder, ids) if shelf.lacking(name)}
    refused: list[str] = []
    taken = 0
    for path, content in progress(examine_files(wanted, most), len(wanted), f"adopt from {folder}", "picture"):
        if isinstance(content, Refused):
            refused.append(f"{content.kind}: {path.name}")
        elif isinstance(content, Content) and shelf.lacking(wanted[path]):
            shelf.put(wanted[path], content, str(path), link=path if link else None)
            taken += 1
    said = [f"  taken from {folder}: {taken:,} pictures"]
    return said + ([f"  not taken from {folder}: {len(refused):,} files ({some(refused, 5)})"] if refused else [])
