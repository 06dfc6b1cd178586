"""Import pictures from a zip or a folder of the user's, by their names.

The user's own files are read, and never moved, changed or deleted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cig.download._folder_scan import Files, NameOf, link_file, scan_folder, skipped_lines
from cig.download._picture_checks import Refused, examine, examine_file, examine_files
from cig.errors import InputError, NotFoundError, UsageError, some
from cig.io.dataset_paths import SUFFIXES
from cig.io.digests import file_digest
from cig.io.files import make_folder, sweep, write_bytes
from cig.io.resumable import need_space
from cig.io.zips import Archive, Bounds
from cig.runtime import progress

Paths = Mapping[str, Path]  # name -> a file
ODD = "it has not the suffix of a picture"
MOST = Bounds().member  # bytes of a picture


@dataclass
class BulkImport:
    """What became of the pictures of a zip or folder.

    Attributes:
        placed: names that were written or linked.
        replaced: of these, names whose existing file had another content.
        kept: names with an existing file: of the same content as in a zip, of the same size as in a folder.
        differing: names whose existing file has another content, in a folder where nothing is replaced.
        refused: file or name -> why it was not taken.
        damaged: members of a zip, among the refused, that cannot be unpacked whole.
        foreign: pictures whose name is not wanted.
        links: to folders, which are not followed.
        unreadable: folders that cannot be listed.
    """

    source: Path
    placed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every picture of the source is in the dataset now."""
        return not self.refused and not self.foreign and not self.differing

    def lines(self) -> Iterator[str]:
        """Report the import for the terminal."""
        kept = f", {len(self.kept):,} were there" if self.kept else ""
        yield f"  taken from {self.source}: {len(self.placed):,} pictures{kept}"
        if self.replaced:
            yield f"    in the place of files with another content: {len(self.replaced):,} ({some(self.replaced, 3)})"
        if self.differing:
            yield f"    there with another content, which is kept: {len(self.differing):,} ({some(self.differing, 3)})"
        if self.refused:
            named = "; ".join(f"{name!r}: {why}" for name, why in list(self.refused.items())[:3])
            yield f"    not taken: {len(self.refused):,} ({named})"
        yield from skipped_lines(self.foreign, self.links, self.unreadable)


def check_sources(from_dir: Path | None, from_zip: Sequence[Path], link: bool) -> list[Path]:
    """Return the folder and zips to import from; raises UsageError or NotFoundError."""
    if from_dir and not os.path.isdir(from_dir):
        raise NotFoundError(f"--from-dir {from_dir} is not a folder")
    for path in from_zip:
        if not os.path.isfile(path):
            raise NotFoundError(f"--from-zip {path} is not a file")
    if link and not from_dir:
        raise UsageError("--link is for --from-dir: give the folder whose pictures should be linked")
    return [*([from_dir] if from_dir else []), *from_zip]


def import_zip(path: Path, places: Paths, present: Paths, *, name_of: NameOf, trusted: bool = False) -> BulkImport:
    """Unpack the wanted pictures, one at a time.

    Args:
        places: name -> its file, without suffix.
        present: name -> an existing file, which is kept.
        trusted: sizes and CRCs are enough, so no picture is decoded. Else a member that is no whole picture, or a
            blank one, is refused.

    Raises:
        InputError: not a zip, or a bomb.
        OutputError: no space.
    """
    result = BulkImport(path)
    with Archive(path) as archive:
        members = _by_name(archive.members, name_of)
        wanted, odd = {**places, **present}, _by_name(archive.others, name_of)
        result.refused |= archive.refused
        result.refused |= {file: ODD for name in odd if name in wanted and name not in members for file in odd[name]}
        result.foreign = [file for name, files in members.items() if name not in wanted for file in files]
        _keep(result, members, present, same=archive.holds)
        infos = archive.members
        chosen = _choose(
            result,
            members,
            places,
            content=lambda name: (infos[name].file_size, infos[name].CRC),
            check=lambda name: examine(archive.read(name)),
        )
        targets = {name: _target(places[name], member) for name, member in chosen.items()}
        _unpack(result, archive, chosen, targets=targets, trusted=trusted)
    os.sync()
    return result


def _unpack(result: BulkImport, archive: Archive, chosen: Mapping[str, str], *, targets: Paths, trusted: bool) -> None:
    needed = sum(archive.members[chosen[name]].file_size for name, target in targets.items() if not target.exists())
    _prepare(targets.values(), needed, f"unpacking {archive.path.name}")
    for name, member in progress(chosen.items(), len(chosen), f"unpack {archive.path.name}", unit="picture"):
        target = targets[name]
        if archive.holds(member, target):
            result.kept.append(name)
            continue
        replaces = target.exists()
        try:
            data = archive.read(member)
            if not trusted:
                examine(data)
        except InputError as error:
            result.refused[member] = str(error)
            result.damaged += [] if isinstance(error, Refused) else [member]
            continue
        # A sync for each of 123,403 pictures would be slow. One sync of the whole disk follows the loop; until then a
        # power cut may tear a file, which a rerun finds by its CRC and unpacks again.
        write_bytes(target, data, sync=False)
        result.placed.append(name)
        result.replaced += [name] if replaces else []


def import_folder(folder: Path, places: Paths, present: Paths, *, name_of: NameOf, link: bool) -> BulkImport:
    """Copy or link the wanted pictures below a folder, whatever its layout; arguments as in import_zip.

    Nothing vouches for the files of a folder, so each is decoded.
    """
    scan = scan_folder(folder, {**places, **present}, name_of)
    result = BulkImport(folder, foreign=scan.foreign, links=scan.links, unreadable=scan.unreadable)
    _keep(result, scan.best(), present, same=lambda file, existing: _size(file) == _size(existing))
    for files in (scan.pictures, scan.others):  # files without the suffix of a picture only for what is still lacking
        lacking = {name: path for name, path in places.items() if name in files and name not in result.placed}
        _take(result, files, lacking, link=link)
    return result


def _take(result: BulkImport, files: Files, places: Paths, *, link: bool) -> None:
    """Copy or link one whole picture of each name."""
    chosen = _choose(result, files, places, content=lambda file: file_digest(Path(file)), check=_need_picture)
    targets = {Path(file): _target(places[name], file) for name, file in chosen.items()}
    names, source = dict(zip(targets, chosen, strict=True)), result.source
    _prepare(targets.values(), 0 if link else sum(map(_size, targets)), f"copying from {source}")
    for path, content in progress(examine_files(targets, MOST), len(targets), f"take from {source}", unit="picture"):
        if isinstance(content, Refused):
            result.refused[str(path)] = str(content)
            continue
        if not link or not link_file(path, targets[path]):
            write_bytes(targets[path], content.data)
        result.placed.append(names[path])


def _need_picture(file: str) -> None:
    content = examine_file(Path(file), MOST)
    if isinstance(content, Refused):
        raise content


def _prepare(targets: Iterable[Path], needed: int, what: str) -> None:
    for folder in {path.parent for path in targets}:
        sweep(make_folder(folder))
        need_space(folder, needed, what)


def _target(path: Path, source: str) -> Path:
    """Give a file its source's suffix, or .png: pictures are read by content, but listed by known suffixes."""
    suffix = PurePosixPath(source).suffix.lower()
    return path.with_name(f"{path.name}{suffix if suffix in SUFFIXES else '.png'}")


def _size(path: str | Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # removed meanwhile; reading it reports that
        return 0


def _by_name(files: Iterable[str], name_of: NameOf) -> Files:
    named: Files = {}
    for file in files:
        named.setdefault(name_of(PurePosixPath(file).stem), []).append(file)
    return named


def _keep(result: BulkImport, files: Files, present: Paths, *, same: Callable[[str, Path], bool]) -> None:
    """Note which existing pictures agree with one of the source's files."""
    for name, candidates in files.items():
        if name in present:
            agrees = any(same(file, present[name]) for file in candidates)
            (result.kept if agrees else result.differing).append(name)


def _choose(
    result: BulkImport,
    files: Files,
    places: Paths,
    *,
    content: Callable[[str], object],
    check: Callable[[str], object],
) -> dict[str, str]:
    """Pick the file of each name: the only one, or one of several whole ones, which must hold the same."""
    chosen = {}
    for name, candidates in files.items():
        if name not in places:
            continue
        whole = candidates if len(candidates) == 1 else list(_whole(result, candidates, check))
        if len(whole) > 1 and len(set(map(content, whole))) > 1:
            result.refused[name] = f"files of this name differ: {some(whole, 3)}"
        elif whole:
            chosen[name] = whole[0]
    return chosen


def _whole(result: BulkImport, candidates: Iterable[str], check: Callable[[str], object]) -> Iterator[str]:
    """Yield the files that pass the check, and note why the others are not taken."""
    for file in candidates:
        try:
            check(file)
        except (InputError, NotFoundError) as error:
            result.refused[file] = str(error)
        else:
            yield file
