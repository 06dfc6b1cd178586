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

from cig.download._folder_scan import Files, NameOf, left_alone, look_below
from cig.download._picture_checks import Refused, examine, examine_files
from cig.errors import InputError, NotFoundError, UsageError, some
from cig.io.dataset_paths import SUFFIXES
from cig.io.digests import file_digest
from cig.io.files import make_folder, sweep, write_bytes
from cig.io.resumable import need_space
from cig.io.zips import Archive, Bounds
from cig.runtime import progress

Places = Mapping[str, Path]  # name -> a file
ODD = "it has not the suffix of a picture"
MOST = Bounds().member  # bytes of a picture


@dataclass
class Taken:
    """What became of a zip or folder.

    Attributes:
        placed: names that were written or linked.
        replaced: of these, those whose file was there with another content.
        kept: names whose file was there: of the same content as in a zip, of the same size as in a folder.
        differing: names whose file was there with another content, in a place where nothing is replaced.
        refused: file or name -> why it was not taken.
        foreign: pictures that are called by no name that is wanted.
        links: to folders, which are not followed.
    """

    source: Path
    placed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every picture of it is there now."""
        return not self.refused and not self.foreign and not self.differing

    def told(self) -> Iterator[str]:
        kept = f", {len(self.kept):,} were there" if self.kept else ""
        yield f"  taken from {self.source}: {len(self.placed):,} pictures{kept}"
        if self.replaced:
            yield f"    in the place of files with another content: {len(self.replaced):,} ({some(self.replaced, 3)})"
        if self.differing:
            yield f"    there with another content, which is kept: {len(self.differing):,} ({some(self.differing, 3)})"
        if self.refused:
            named = "; ".join(f"{name!r}: {why}" for name, why in list(self.refused.items())[:3])
            yield f"    not taken: {len(self.refused):,} ({named})"
        yield from left_alone(self.foreign, self.links)


def check_sources(from_dir: Path | None, from_zip: Sequence[Path], link: bool) -> None:
    """Raises UsageError or NotFoundError for what cannot be taken from."""
    if from_dir and not os.path.isdir(from_dir):
        raise NotFoundError(f"--from-dir {from_dir} is not a folder")
    for path in from_zip:
        if not os.path.isfile(path):
            raise NotFoundError(f"--from-zip {path} is not a file")
    if link and not from_dir:
        raise UsageError("--link is for --from-dir: give the folder whose pictures should be linked")


def take_zip(path: Path, places: Places, there: Places, name_of: NameOf, known: bool = False) -> Taken:
    """Unpacks the pictures that have a place, one at a time.

    Args:
        places: name -> its file, without suffix.
        there: name -> a file that is there, and kept.
        known: the zip is one whose pictures need no look: sizes and CRCs will do. Else what is no whole picture, or
            shows nothing, is refused.

    Raises:
        InputError: it is no zip, or a bomb.
        OutputError: no space.
    """
    taken = Taken(path)
    with Archive(path) as archive:
        members = _by_name(archive.members, name_of)
        wanted, odd = {**places, **there}, _by_name(archive.others, name_of)
        taken.refused |= archive.refused
        taken.refused |= {own: ODD for name in odd if name in wanted and name not in members for own in odd[name]}
        taken.foreign = [own for name, files in members.items() if name not in wanted for own in files]
        _keep(members, there, archive.holds, taken)
        chosen = _choose(members, places, lambda member: _content(archive.members[member]), taken)
        targets = {name: _target(places[name], member) for name, member in chosen.items()}
        needed = sum(archive.members[chosen[name]].file_size for name, own in targets.items() if not own.exists())
        _ready(targets.values(), needed, f"unpacking {path.name}")
        for name, member in progress(chosen.items(), len(chosen), f"unpack {path.name}", "picture"):
            try:
                _unpack(archive, member, targets[name], not known, taken, name)
            except InputError as error:
                taken.refused[member] = str(error)
    os.sync()
    return taken


def take_folder(folder: Path, places: Places, there: Places, name_of: NameOf, link: bool) -> Taken:
    """Copies or links the pictures below a folder that have a place, whatever its layout. As take_zip.

    Nothing vouches for the files of a folder, so each is looked at.
    """
    below = look_below(folder, {**places, **there}, name_of)
    taken = Taken(folder, foreign=below.foreign, links=below.links)
    files = below.best()
    _keep(files, there, lambda path, own: _size(path) == _size(own), taken)
    chosen = _choose(files, places, lambda path: file_digest(Path(path)), taken)
    targets = {Path(path): _target(places[name], path) for name, path in chosen.items()}
    names = dict(zip(targets, chosen, strict=True))
    _ready(targets.values(), 0 if link else sum(map(_size, targets)), f"copying from {folder}")
    for path, content in progress(examine_files(targets, MOST), len(targets), f"take from {folder}", "picture"):
        if isinstance(content, Refused):
            taken.refused[str(path)] = str(content)
            continue
        if not link or not _linked(path, targets[path]):
            write_bytes(targets[path], content.data)
        taken.placed.append(names[path])
    return taken


def _unpack(archive: Archive, member: str, target: Path, look: bool, taken: Taken, name: str) -> None:
    if archive.holds(member, target):
        taken.kept.append(name)
        return
    there, data = target.exists(), archive.read(member)
    if look:
        examine(data)
    write_bytes(target, data, sync=False)  # all are at the end; a rerun would find a torn one by its CRC
    taken.placed.append(name)
    taken.replaced += [name] if there else []


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
    """Pictures are read by content, so that a suffix that is not looked for may become one that is."""
    suffix = PurePosixPath(source).suffix.lower()
    return place.with_name(f"{place.name}{suffix if suffix in SUFFIXES else '.png'}")


def _size(path: str | Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # gone meanwhile; it is named when it is its turn
        return 0


def _content(info: ZipInfo) -> tuple[int, int]:
    return info.file_size, info.CRC


def _by_name(files: Iterable[str], name_of: NameOf) -> Files:
    found: Files = {}
    for file in files:
        found.setdefault(name_of(PurePosixPath(file).stem), []).append(file)
    return found


def _keep(files: Files, there: Places, same: Callable[[str, Path], bool], taken: Taken) -> None:
    for name, own in files.items():
        if name in there:
            (taken.kept if any(same(file, there[name]) for file in own) else taken.differing).append(name)


def _choose(files: Files, places: Places, content: Callable[[str], object], taken: Taken) -> dict[str, str]:
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
