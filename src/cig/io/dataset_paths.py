"""Find files on disk: a dataset's home folder, the pictures in its folders, the folders of its parts."""

import os
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path, PurePosixPath

from cig.errors import InputError, NotFoundError
from cig.io.files import names_in
from cig.types import Benchmark

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def find_home(root: str | Path, name: str, markers: Iterable[str]) -> Path:
    """Find the folder that holds a dataset: root, or the child of root with the dataset's name in any case.

    Args:
        markers: paths relative to the home; one of them must exist.

    Raises:
        NotFoundError: neither folder has the annotations; the message names the files that were tried.
    """
    root, markers = Path(root), list(markers)
    exists = os.path.isdir(root)
    children = [root / child for child in names_in(root) if child.lower() == name] if exists else []
    for home in (root, *children):
        if any(os.path.exists(home / marker) for marker in markers):
            return home
    state = f"has none of {', '.join(markers)}" if exists else "is not a folder"
    raise NotFoundError(
        f"no {name} dataset: {root} {state}; give its folder or that folder's parent with --dataset-path"
    )


def list_pictures(folders: Iterable[Path]) -> dict[str, Path]:
    """Map each name without suffix to its picture; earlier folders and suffixes win, absent folders are skipped."""
    pictures: dict[str, Path] = {}
    for folder in dict.fromkeys(folders):
        if os.path.isdir(folder):
            entries = [os.path.splitext(name) for name in names_in(folder)]
            named = [(stem, suffix) for stem, suffix in entries if suffix.lower() in SUFFIXES]
            for stem, suffix in sorted(named, key=lambda entry: (SUFFIXES.index(entry[1].lower()), entry)):
                pictures.setdefault(stem, folder / f"{stem}{suffix}")
    return pictures


def walk_pictures(root: Path) -> Iterator[os.DirEntry[str]]:
    """Yield every picture below a folder, sorted by name in each folder; skip hidden files and linked folders."""
    return (entry for entry in walk_files(root) if entry.name.lower().endswith(SUFFIXES) and is_file(entry))


def walk_files(root: Path, unreadable: list[str] | None = None) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a folder except folders, in the same order; a link to a folder is not followed.

    The walk holds the names of one folder at a time and opens no file. Each path begins with the root as given.

    Args:
        unreadable: gets the folders below the root that cannot be listed; without it, such a folder is an error.
    """
    waiting: list[str | Path] = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=attrgetter("name"))
        except OSError as error:
            if unreadable is None or folder == root:
                raise InputError(f"{folder} cannot be listed: {error.strerror}") from error
            unreadable.append(str(folder))
            continue
        yield from (entry for entry in visible if not entry.is_dir(follow_symlinks=False))
        waiting += [entry.path for entry in reversed(visible) if entry.is_dir(follow_symlinks=False)]


def is_file(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a file or a link to one."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def stays_below(name: str) -> bool:
    """Tell whether a path joined to a folder stays below it, judged by its parts; symbolic links are not resolved."""
    path = PurePosixPath(name.replace(os.sep, "/"))
    return not (path.is_absolute() or Path(name).is_absolute() or ".." in path.parts)


def part_folder(folder: Path, part: Benchmark) -> Path:
    """Return where to write a part's files: fill in {category}, or append the category's name."""
    if "{category}" in str(folder):
        return Path(str(folder).replace("{category}", part.part))
    return folder / part.part if part.part else folder


def existing_part(folder: Path, part: Benchmark, single: bool) -> Path:
    """Return where to read a part's files; a flat folder serves a single category only."""
    nested = part_folder(folder, part)
    return folder if single and not os.path.isdir(nested) and os.path.isdir(folder) else nested


def is_walked(folder: Path, home: Path) -> bool:
    """Tell whether walk_files(home) visits a folder: it lies below home, and no part of its path is hidden."""
    folder, home = folder.resolve(), home.resolve()
    return folder.is_relative_to(home) and not any(name.startswith(".") for name in folder.relative_to(home).parts)
