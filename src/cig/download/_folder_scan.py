"""What lies below a folder of the user's, by the names of its files; links to other folders are named, not followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cig.errors import some
from cig.io.dataset_paths import SUFFIXES, is_file, walk_files

NameOf = Callable[[str], str]  # a file's name without suffix -> the picture's name
Files = dict[str, list[str]]  # name -> the files that are called by it


@dataclass(frozen=True)
class Below:
    """Attributes:
    pictures: files that are called by a name that is wanted, with the suffix of a picture.
    others: the same with any other suffix, or none: some may be pictures.
    foreign: files with the suffix of a picture that are called by no such name.
    links: to folders.
    """

    pictures: Files = field(default_factory=dict)
    others: Files = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def best(self) -> Files:
        """Of each name those with the suffix of a picture, else the others."""
        return {**self.others, **self.pictures}


def look_below(folder: Path, names: Collection[str], name_of: NameOf = str) -> Below:
    """No file is opened; hidden ones are left out."""
    below = Below()
    for entry in walk_files(folder):
        stem, suffix = os.path.splitext(entry.name)
        name, is_picture = name_of(stem), suffix.lower() in SUFFIXES
        if entry.is_symlink() and os.path.isdir(entry.path):
            below.links.append(entry.path)
        elif name in names and (is_file(entry) or not os.path.exists(entry.path)):  # that leads nowhere, which is told
            (below.pictures if is_picture else below.others).setdefault(name, []).append(entry.path)
        elif is_picture and is_file(entry):
            below.foreign.append(entry.path)
    return below


def left_alone(foreign: Collection[str], links: Collection[str]) -> Iterator[str]:
    """What of a folder of the user's was not looked at."""
    if foreign:
        yield f"    of other names, left alone: {len(foreign):,} ({some(map(ascii, foreign), 3)})"
    if links:
        named = some(map(ascii, links), 3)
        yield f"    links to folders, not followed: {len(links):,} ({named}): give what they lead to by --from-dir"
