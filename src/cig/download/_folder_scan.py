"""Scan a folder of the user's for pictures, by the names of its files; links to folders are named, not followed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cig.errors import some
from cig.io.dataset_paths import SUFFIXES, is_file, walk_files

NameOf = Callable[[str], str]  # a file's name without suffix -> the picture's name
Files = dict[str, list[str]]  # a picture's name -> its files


@dataclass(frozen=True)
class FolderScan:
    """Attributes:
    pictures: files with a wanted name and the suffix of a picture.
    others: files with a wanted name and any other suffix, or none: some may be pictures.
    foreign: files with the suffix of a picture and another name.
    links: to folders.
    unreadable: folders that cannot be listed, such as lost+found.
    """

    pictures: Files = field(default_factory=dict)
    others: Files = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def best(self) -> Files:
        """Return for each name its files with the suffix of a picture, else the others."""
        return {**self.others, **self.pictures}


def scan_folder(folder: Path, names: Collection[str], name_of: NameOf = str) -> FolderScan:
    """Sort the files below a folder by their names; open none, and skip hidden ones."""
    scan = FolderScan()
    for entry in walk_files(folder, scan.unreadable):
        stem, suffix = os.path.splitext(entry.name)
        name, is_picture = name_of(stem), suffix.lower() in SUFFIXES
        if entry.is_symlink() and os.path.isdir(entry.path):
            scan.links.append(entry.path)
        elif name in names and (is_file(entry) or not os.path.exists(entry.path)):  # a dead link is reported later
            (scan.pictures if is_picture else scan.others).setdefault(name, []).append(entry.path)
        elif is_picture and is_file(entry):
            scan.foreign.append(entry.path)
    return scan


def skipped_lines(foreign: Collection[str], links: Collection[str], unreadable: Collection[str]) -> Iterator[str]:
    """Report the files, links and folders that were left alone."""
    if foreign:
        yield f"    of other names, left alone: {len(foreign):,} ({some(map(ascii, foreign), 3)})"
    if links:
        named = some(map(ascii, links), 3)
        yield f"    links to folders, not followed: {len(links):,} ({named}): give what they lead to by --from-dir"
    if unreadable:
        yield f"    folders that cannot be listed, left out: {len(unreadable):,} ({some(map(ascii, unreadable), 3)})"


def link_file(source: Path, target: Path) -> bool:
    """Make a hard link, to the file itself if the source is a symbolic link; False where the disk does not allow it."""
    with contextlib.suppress(OSError):
        os.link(os.path.realpath(source), target)
        return True
    return False
