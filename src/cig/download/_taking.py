"""Pictures that come many at once, in a zip or in a folder of the user's: taken by their names.

The user's own files are read, and never moved, changed or deleted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from zipfile import ZipInfo

from cig.archives import Archive
from cig.errors import InputError, NotFoundError, UsageError, some
from cig.formats import file_digest, make_folder, read_bytes, sweep, write_bytes
from cig.images import decode_picture
from cig.layout import walk_pictures
from cig.ranges import need_space
from cig.runtime import progress

NameOf = Callable[[str], str]  # a file's name without suffix -> the picture's name


@dataclass
class Taken:
    """What became of a zip or folder.

    Attributes:
        placed: names that were written or linked.
        replaced: of these, those whose file was there with another content.
        kept: names whose file was there, with the content that the zip has.
        refused: file or name -> why it was not taken.
        foreign: pictures that are called by no name that is wanted.
    """

    source: Path
    placed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every picture of it is there now."""
        return not self.refused and not self.foreign

    def told(self) -> Iterator[str]:
        kept = f", {len(self.kept):,} were there" if self.kept else ""
        yield f"  taken from {self.source}: {len(self.placed):,} pictures{kept}"
        if self.replaced:
            yield f"    in the place of files with another content: {len(self.replaced):,} ({some(self.replaced, 3)})"
        if self.refused:
            named = "; ".join(f"{name!r}: {why}" for name, why in list(self.refused.items())[:3])
            yield f"    not taken: {len(self.refused):,} ({named})"
        if self.foreign:
            yield f"    of other names, left alone: {len(self.foreign):,} ({some(map(ascii, self.foreign), 3)})"


def check_sources(from_dir: Path | None, from_zip: Sequence[Path], link: bool) -> None:
    """Raises UsageError or NotFoundError for what cannot be taken from."""
    if from_dir and not from_dir.is_dir():
        raise NotFoundError(f"--from-dir {from_dir} is not a folder")
    for path in from_zip:
        if not path.is_file():
            raise NotFoundError(f"--from-zip {path} is not a file")
    if link and not from_dir:
        raise UsageError("--link is for --from-dir: give the folder whose pictures should be linked")


def take_zip(path: Path, places: Mapping[str, Path], name_of: NameOf, decode: bool = True) -> Taken:
    """Unpacks the pictures that have a place, one at a time.

    Args:
        places: name -> its file, without suffix.
        decode: refuse what is no whole picture.

    Raises:
        InputError: it is no zip, or a bomb.
        OutputError: no space.
    """
    taken = Taken(path)
    with Archive(path) as archive:
        taken.refused |= archive.refused
        members = _by_name(archive.members, name_of)
        taken.foreign = [member for name, own in members.items() if name not in places for member in own]
        chosen = _choose(members, places, lambda member: _content(archive.members[member]), taken)
        targets = {name: _target(places[name], member) for name, member in chosen.items()}
        needed = sum(archive.members[chosen[name]].file_size for name, own in targets.items() if not own.exists())
        _ready(targets.values(), needed, f"unpacking {path.name}")
        for name, member in progress(chosen.items(), len(chosen), f"unpack {path.name}", "picture"):
            try:
                _unpack(archive, member, targets[name], decode, taken, name)
            except InputError as error:
                taken.refused[member] = str(error)
    os.sync()
    return taken


def take_folder(folder: Path, places: Mapping[str, Path], name_of: NameOf, link: bool, decode: bool = True) -> Taken:
    """Copies or links the pictures below a folder that have a place, whatever its layout. As take_zip."""
    taken = Taken(folder)
    files = _by_name((entry.path for entry in walk_pictures(folder)), name_of)
    taken.foreign = [path for name, own in files.items() if name not in places for path in own]
    chosen = _choose(files, places, lambda path: file_digest(Path(path)), taken)
    targets = {name: _target(places[name], path) for name, path in chosen.items()}
    needed = 0 if link else sum(_size(path) for path in chosen.values())
    _ready(targets.values(), needed, f"copying from {folder}")
    for name, path in progress(chosen.items(), len(chosen), f"take from {folder}", "picture"):
        try:
            _adopt(Path(path), targets[name], link, decode)
            taken.placed.append(name)
        except (InputError, NotFoundError) as error:
            taken.refused[path] = str(error)
    return taken


def _unpack(archive: Archive, member: str, target: Path, decode: bool, taken: Taken, name: str) -> None:
    if archive.holds(member, target):
        taken.kept.append(name)
        return
    there, data = target.exists(), archive.read(member)
    if decode:
        decode_picture(data)
    write_bytes(target, data, sync=False)  # all are at the end; a rerun would find a torn one by its CRC
    taken.placed.append(name)
    taken.replaced += [name] if there else []


def _adopt(source: Path, target: Path, link: bool, decode: bool) -> None:
    data = read_bytes(source)
    if decode:
        decode_picture(data)
    elif not data:
        raise InputError(f"{source} is empty")
    if not link or not _linked(source, target):
        write_bytes(target, data)


def _linked(source: Path, target: Path) -> bool:
    """False where the disk does not allow it."""
    with contextlib.suppress(OSError):
        os.link(os.path.realpath(source), target)
        return True
    return False


def _ready(targets: Iterable[Path], needed: int, what: str) -> None:
    for folder in {path.parent for path in targets}:
        sweep(make_folder(folder))
        need_space(folder, needed, what)


def _target(place: Path, source: str) -> Path:
    return place.with_name(f"{place.name}{PurePosixPath(source).suffix.lower()}")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # gone meanwhile; it is named when it is its turn
        return 0


def _content(info: ZipInfo) -> tuple[int, int]:
    return info.file_size, info.CRC


def _by_name(files: Iterable[str], name_of: NameOf) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(name_of(PurePosixPath(file).stem), []).append(file)
    return found


def _choose(
    files: Mapping[str, Sequence[str]], places: Mapping[str, Path], content: Callable[[str], object], taken: Taken
) -> dict[str, str]:
    """The file of each name; several of one name are refused unless they hold the same."""
    chosen = {}
    for name, own in files.items():
        try:
            if name in places and len(own) > 1 and len({content(file) for file in own}) > 1:
                taken.refused[name] = f"files of this name differ: {some(own, 3)}"
            elif name in places:
                chosen[name] = own[0]
        except (InputError, NotFoundError) as error:
            taken.refused[name] = str(error)
    return chosen
