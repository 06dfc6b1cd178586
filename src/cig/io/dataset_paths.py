"""Find files on disk: a dataset's home folder, the pictures in its folders, the folders of its parts."""

import mimetypes
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath

from cig.errors import InputError, NotFoundError, some
from cig.io.files import names_in
from cig.types import Benchmark

# Of the formats that io.images opens; of several files of one name the earlier suffix counts.
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp"),
    *(".jpe", ".jfif", ".avif", ".bmp", ".dib", ".gif", ".ico", ".mpo", ".apng", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc", ".ppm", ".pgm", ".pbm", ".pnm"),
)
HEIC = (".heic", ".heif", ".hif", ".heics", ".heifs")
RAW = (".arw", ".cr2", ".cr3", ".dng", ".jxl", ".nef", ".orf", ".psd", ".raf", ".raw", ".rw2", ".tga")
NO_PICTURE = "not the suffix of a picture"


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


@dataclass
class PassedOver:
    """What lies below a folder and is not taken as a picture, by suffix and reason; hidden files are not counted.

    Attributes:
        paths: files by name without suffix, for those who look for a picture of that name.
        linked: folders that links lead to and that were walked.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    paths: dict[str, Path] = field(default_factory=dict)
    linked: list[Path] = field(default_factory=list)

    def add(self, path: str | Path, reason: str = "") -> None:
        """Count a file; without a reason, its suffix is the reason."""
        stem, suffix = os.path.splitext(os.path.basename(path))
        self.counts[suffix.lower(), reason or suffix_reason(suffix)] += 1
        self.paths.setdefault(stem, Path(path))

    @property
    def lines(self) -> list[str]:
        """Return "3 .heic: HEIC is not read, ..." and the like, the most frequent first, for what may be pictures."""
        counts = [(key, count) for key, count in self.counts.most_common() if key[1] != NO_PICTURE]
        return [f"{count:,} {suffix or 'without suffix'}: {why}" for (suffix, why), count in counts]

    def __str__(self) -> str:
        return f"; passed over: {some(self.lines, 10)}" if self.lines else ""


class FoundPictures(dict[str, Path]):
    """Pictures by name without suffix, and the other files of their folders."""

    passed: PassedOver


def list_pictures(folders: Iterable[Path]) -> FoundPictures:
    """Map each name without suffix to its picture; earlier folders and suffixes win, absent folders are skipped."""
    pictures = FoundPictures()
    pictures.passed = PassedOver()
    for folder in dict.fromkeys(folders):
        if os.path.isdir(folder):
            entries = [os.path.splitext(name) for name in names_in(folder)]
            named = [(stem, suffix) for stem, suffix in entries if suffix.lower() in SUFFIXES]
            for stem, suffix in sorted(named, key=lambda entry: (SUFFIXES.index(entry[1].lower()), entry)):
                pictures.setdefault(stem, folder / f"{stem}{suffix}")
            for stem, suffix in entries:
                if suffix and suffix.lower() not in SUFFIXES and not stem.startswith("."):
                    pictures.passed.add(folder / f"{stem}{suffix}")
    return pictures


def suffix_reason(suffix: str) -> str:
    """Say why files of a suffix are not taken as pictures."""
    suffix = suffix.lower()
    if suffix in HEIC:
        return "HEIC is not read; convert these files to .jpg"
    kind, _ = mimetypes.guess_type(f"_{suffix}")
    is_image = suffix in RAW or (kind or "").startswith("image/")
    return "a form that is not read; convert these files to .jpg or .png" if is_image else NO_PICTURE


def walk_pictures(
    root: Path, passed: PassedOver | None = None, suffixes: tuple[str, ...] = SUFFIXES
) -> Iterator[os.DirEntry[str]]:
    """Yield every picture below a folder, as walk_files does; count what is passed over."""
    passed = PassedOver() if passed is None else passed
    for entry in walk_files(root, passed=passed):
        if not is_file(entry):
            passed.add(entry.path, "neither a file nor a link to one")
        elif entry.name.lower().endswith(suffixes):
            yield entry
        else:
            passed.add(entry.path)


def walk_files(
    root: Path, unreadable: list[str] | None = None, *, passed: PassedOver | None = None
) -> Iterator[os.DirEntry[str]]:
    """Yield everything visible below a folder except folders, sorted by name in each folder.

    The walk holds the names of one folder at a time and opens no file. Each path begins with the root as given.

    Args:
        unreadable: gets the folders below the root that cannot be listed.
        passed: follow links to folders, each folder once, and note here what is not followed or cannot be listed.
            Without it, links to folders are yielded and not followed.

    Raises:
        InputError: the root cannot be listed, or another folder, and there is neither list for it.
    """
    # Links wait until all that lies in the folder itself was walked: a picture that can be reached both ways has the
    # name that it has without links.
    waiting: list[str | Path] = [root]
    links: deque[str] = deque()
    walked: set[tuple[int, int]] = set()
    while waiting or links:
        folder = waiting.pop() if waiting else links.popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in walked:
                continue
            walked.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=attrgetter("name"))
        except OSError as error:
            if (unreadable is None and passed is None) or folder == root:
                raise InputError(f"{folder} cannot be listed: {error.strerror}") from error
            if unreadable is not None:
                unreadable.append(str(folder))
            if passed is not None:
                passed.add(folder, "a folder that cannot be listed")
            continue
        for entry in visible:
            if passed is not None and _is_folder(entry) and entry.is_symlink():
                _follow(entry.path, links, passed)
            elif not entry.is_dir(follow_symlinks=False):
                yield entry
        waiting += [entry.path for entry in reversed(visible) if entry.is_dir(follow_symlinks=False)]


def _follow(link: str, links: deque[str], passed: PassedOver) -> None:
    target = Path(link).resolve()
    if Path(link).parent.resolve().is_relative_to(target):
        passed.add(link, "a link to a folder that it lies in")
    else:
        links.append(link)
        passed.linked.append(target)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


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
    """Return where to read a part's files; a flat folder serves a single category only.

    Raises:
        NotFoundError: a category's folder is not there.
    """
    nested = part_folder(folder, part)
    if os.path.isdir(nested) or not part.part:
        return nested
    if single and os.path.isdir(folder):
        return folder
    raise NotFoundError(
        f"{nested} is not a folder, so {part.title} has no files; choose categories by --categories (with one of them, "
        f"a folder without subfolders will do)"
    )


def is_walked(folder: Path, home: Path) -> bool:
    """Tell whether walk_pictures(home) visits a folder: it lies below home, or below what home links to, not hidden."""
    folder, passed = folder.resolve(), PassedOver()
    if _is_visible_below(folder, home.resolve()):
        return True
    for _ in walk_files(home, passed=passed) if os.path.isdir(home) else ():
        pass
    return any(_is_visible_below(folder, linked) for linked in passed.linked)


def _is_visible_below(folder: Path, home: Path) -> bool:
    return folder.is_relative_to(home) and not any(name.startswith(".") for name in folder.relative_to(home).parts)
