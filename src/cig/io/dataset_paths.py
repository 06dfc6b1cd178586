"""Where files lie: a dataset's home, the pictures in the folders that its releases use, the folders of its parts."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from cig.errors import InputError, NotFoundError
from cig.io.files import names_in
from cig.types import Benchmark

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def find_home(root: str | Path, name: str, markers: Iterable[str]) -> Path:
    """The folder that holds a dataset: root, or the child of root that bears the dataset's name in any case.

    Args:
        markers: paths, relative to the home, of which one must exist.

    Raises:
        NotFoundError: neither has the annotations; the message says which file was looked for.
    """
    root, markers = Path(root), list(markers)
    there = os.path.isdir(root)
    children = [root / child for child in names_in(root) if child.lower() == name] if there else []
    for home in (root, *children):
        if any(os.path.exists(home / marker) for marker in markers):
            return home
    state = f"has none of {', '.join(markers)}" if there else "is not a folder"
    raise NotFoundError(
        f"no {name} dataset: {root} {state}; give its folder or that folder's parent with --dataset-path"
    )


def list_pictures(folders: Iterable[Path]) -> dict[str, Path]:
    """Name without suffix -> picture, from folders that exist; earlier folders and suffixes win."""
    pictures: dict[str, Path] = {}
    for folder in dict.fromkeys(folders):
        if os.path.isdir(folder):
            entries = [os.path.splitext(name) for name in names_in(folder)]
            known = [(stem, suffix) for stem, suffix in entries if suffix.lower() in SUFFIXES]
            for stem, suffix in sorted(known, key=lambda entry: (SUFFIXES.index(entry[1].lower()), entry)):
                pictures.setdefault(stem, folder / f"{stem}{suffix}")
    return pictures


def walk_pictures(root: Path) -> Iterator[os.DirEntry[str]]:
    """Every picture below a folder, by name, folder after folder; hidden ones and links to folders are left out."""
    return (entry for entry in walk_files(root) if entry.name.lower().endswith(SUFFIXES) and is_file(entry))


def walk_files(root: Path) -> Iterator[os.DirEntry[str]]:
    """Whatever is below a folder but folders, in the same order; links to folders are among it, and not followed.

    One folder's names are held at a time, and no file is opened. Each path begins with the root as it was given.
    """
    waiting: list[str | Path] = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted((entry for entry in entries if not entry.name.startswith(".")), key=_entry_name)
        except OSError as error:
            raise InputError(f"{folder} cannot be listed: {error.strerror}") from error
        yield from (entry for entry in inside if not entry.is_dir(follow_symlinks=False))
        waiting += [entry.path for entry in reversed(inside) if entry.is_dir(follow_symlinks=False)]


def is_file(entry: os.DirEntry[str]) -> bool:
    """Or a link to one."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _entry_name(entry: os.DirEntry[str]) -> str:
    return entry.name


def stays_below(name: str) -> bool:
    """Whether a path that is joined to a folder leads nowhere else by its words; links are for who made them."""
    path = PurePosixPath(name.replace(os.sep, "/"))
    return not (path.is_absolute() or Path(name).is_absolute() or ".." in path.parts)


def part_folder(folder: Path, part: Benchmark) -> Path:
    """Where a part's files are written: {category} is filled in, or a folder of the category's name is added."""
    if "{category}" in str(folder):
        return Path(str(folder).replace("{category}", part.part))
    return folder / part.part if part.part else folder


def existing_part(folder: Path, part: Benchmark, single: bool) -> Path:
    """Where a part's files are read; a flat folder serves a single category only."""
    own = part_folder(folder, part)
    return folder if single and not os.path.isdir(own) and os.path.isdir(folder) else own


def is_walked(place: Path, home: Path) -> bool:
    """Whether those who walk a folder come by: it is below, and in nothing that is hidden."""
    own, home = place.resolve(), home.resolve()
    return own.is_relative_to(home) and not any(name.startswith(".") for name in own.relative_to(home).parts)
