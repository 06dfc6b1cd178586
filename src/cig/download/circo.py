"""CIRCO: annotations from the authors' repository, and COCO 2017 unlabeled, 20 GB in one zip, or from the user's files.

The layout is the release's: `annotations/`, and `COCO2017_unlabeled/` with COCO's own annotations and pictures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cig.benchmarks import load_benchmark
from cig.benchmarks._check import check, wanted_pictures
from cig.benchmarks._requirements import need_choice
from cig.benchmarks.circo import SPLITS
from cig.download import FetchSettings, Outcome
from cig.download._annotation_files import fetch_files
from cig.download._bulk_pictures import BulkImport, check_sources, import_folder, import_zip
from cig.download._summary import count, summarise
from cig.errors import IncompleteError, InputError, UsageError, some
from cig.io.files import make_folder, remove, stat_file, sweep, writing
from cig.io.http import Web, WebError
from cig.io.locks import hold
from cig.io.resumable import Expected, fetch_file, need_space
from cig.io.zips import Archive, Bounds
from cig.types import Benchmark

ANNOTATIONS = "https://raw.githubusercontent.com/miccunifi/CIRCO/main"
COCO = "http://images.cocodataset.org"
LIST, LIST_ZIP = "image_info_unlabeled2017.json", "annotations/image_info_unlabeled2017.zip"
PICTURES_ZIP = "zips/unlabeled2017.zip"
KNOWN = {  # as published by others for COCO's own server; a mirror may have another zip of the same pictures
    LIST_ZIP: Expected(md5="ede38355d5c3e5251bb7f8b68e2c068f", starts=b"PK"),
    PICTURES_ZIP: Expected(20_126_613_414, md5="7ebc562819fdb32847aab79530457326", starts=b"PK"),
}
JSON = Bounds((".json",), member=2**28)


@dataclass(frozen=True)
class _Coco:
    """COCO's pictures and their list: the folder, and the server they come from."""

    home: Path
    base: str
    settings: FetchSettings
    delete: bool  # zips, once they are unpacked

    @property
    def list(self) -> Path:
        return self.home / "annotations" / LIST

    def fetch(self, name: str) -> Path:
        """Download one of the zips; raises InputError."""
        mirrored = self.base != COCO
        expected = Expected(starts=b"PK") if mirrored else KNOWN[name]
        with Web(self.settings.rules([self.base] if mirrored else [])) as web:
            path = self.home / Path(name).name
            url = f"{self.base.rstrip('/')}/{name}"
            return fetch_file(web, url, path, expected=expected, waits=self.settings.waits)


def download(
    root: Path,
    settings: FetchSettings,
    splits: Sequence[str] = tuple(SPLITS),
    *,
    annotations_from: str = ANNOTATIONS,
    pictures_from: str = COCO,
    from_dir: Path | None = None,
    from_zip: Sequence[Path] = (),
    link: bool = False,
    delete_zip: bool = False,
    no_pictures: bool = False,
) -> Outcome:
    """Download annotations and COCO's list of pictures; import the user's pictures, or download COCO's zip.

    Raises:
        UsageError: a split, folder or zip that does not exist.
        IncompleteError: annotations that cannot be downloaded.
    """
    settings.rules([annotations_from, pictures_from])  # raises UsageError for what is no address
    sources = check_sources(from_dir, from_zip, link)
    for split in splits:
        need_choice("CIRCO split", split, SPLITS)
    if delete_zip and sources:
        raise UsageError("--delete-zip is for a zip that was downloaded; what you give is never deleted")
    coco = _Coco(root / "COCO2017_unlabeled", pictures_from, settings, delete=delete_zip)
    with hold(root, "cig download circo"):
        _fetch_annotations(root, settings, splits, base=annotations_from)
        _fetch_list(coco, from_zip)
        parts = _load(root, splits)
        if no_pictures:
            return count(parts)
        imports = [_import(source, coco, _load(root, splits), link=link) for source in sources]
        notes: list[str] = []
        if not sources:
            imports, notes = _fetch_pictures(coco, parts)
        # By name alone: decoding 123,403 pictures takes long, and `cig check` does it.
        checkups = [check(part, decode=False) for part in _load(root, splits)]
        notes.append(f"  no picture was decoded, so there is no picture set: cig check circo --dataset-path {root}")
        return summarise(checkups, imports, notes=notes, advice=_advice(root), decoded=False)


def _load(root: Path, splits: Sequence[str]) -> list[Benchmark]:
    return [load_benchmark(f"circo/{split}", root) for split in splits]


def _fetch_annotations(root: Path, settings: FetchSettings, splits: Sequence[str], *, base: str) -> None:
    absent = [split for split in splits if not (root / f"{split}.json").exists()]  # load reads these, too
    files = {root / f"annotations/{split}.json": f"{base.rstrip('/')}/annotations/{split}.json" for split in absent}
    failed = fetch_files(files, settings, [base] if base != ANNOTATIONS else [])
    if failed:
        raise IncompleteError(
            f"{len(failed)} annotation files cannot be had: {next(iter(failed.values()))}. Put annotations/ of "
            f"github.com/miccunifi/CIRCO into {root}, or give its address by --annotations-from"
        )


def _fetch_list(coco: _Coco, from_zip: Sequence[Path]) -> None:
    """Unpack COCO's list of pictures from one of the user's zips, or download it; raises IncompleteError."""
    for path in from_zip:
        if coco.list.exists() or _unpack_list(path, coco.list):
            return
    try:
        if not coco.list.exists():
            path = coco.fetch(LIST_ZIP)
            _unpack_fetched_list(path, coco.list)
            if coco.delete:
                remove(path)
    except InputError as error:
        raise IncompleteError(
            f"{error}\nCOCO's list of pictures cannot be had: put {LIST} to {coco.list.parent}, give a zip of it by "
            f"--from-zip, or give another address by --pictures-from"
        ) from error


def _unpack_fetched_list(path: Path, target: Path) -> None:
    """Unpack the list from our zip; set a zip aside that does not hold it, and raise InputError."""
    try:
        if not _unpack_list(path, target):
            raise InputError(f"{path} holds no {LIST}")
    except InputError as error:
        raise InputError(f"{error}; {_set_aside(path)}") from error


def _set_aside(path: Path) -> str:
    """Rename a zip that came damaged, so that a rerun fetches it anew; return what the user does about it."""
    aside = path.with_name(f"{path.name}.refused")
    with writing(aside):
        os.replace(path, aside)
    return f"it is set aside as {aside}: remove it, and run this again, which fetches the zip anew"


def _unpack_list(path: Path, target: Path) -> bool:
    """Unpack the list from a zip; False if the zip has none."""
    with Archive(path, JSON) as archive:
        member = next((name for name in archive.members if Path(name).name == LIST), None)
        if member:
            sweep(make_folder(target.parent))
            archive.unpack(member, target)
    return member is not None


def _import(source: Path, coco: _Coco, parts: Sequence[Benchmark], *, link: bool = False) -> BulkImport:
    """Import pictures from a folder or zip into `unlabeled2017/`.

    COCO's own zip is known by its size, and is not decoded; each picture of any other zip or folder is. A zip replaces
    files in `unlabeled2017/` with another content, because its CRCs tell which are whole; a folder replaces nothing.
    """
    folder, images = coco.home / "unlabeled2017", parts[0].images
    wanted = dict.fromkeys(name for part in parts for name in wanted_pictures(part))
    present = {name: images[name] for name in wanted if name in images}
    places = {
        name: folder / f"{int(name):012d}"
        for name in wanted
        if name.isdecimal() and (name not in images or images[name].parent == folder)
    }
    if source.is_dir():
        missing = {name: path for name, path in places.items() if name not in present}
        return import_folder(source, missing, present, name_of=_name, link=link)
    elsewhere = {name: path for name, path in present.items() if name not in places}
    trusted = stat_file(source).st_size == KNOWN[PICTURES_ZIP].size
    return import_zip(source, places, elsewhere, name_of=_name, trusted=trusted)


def _name(stem: str) -> str:
    """000000000139 -> 139"""
    return str(int(stem)) if stem.isascii() and stem.isdecimal() and len(stem) <= 18 else stem


def _fetch_pictures(coco: _Coco, parts: Sequence[Benchmark]) -> tuple[list[BulkImport], list[str]]:
    """Unpack COCO's zip, if it is on disk or a picture is missing; return the import and notes for the user."""
    path = coco.home / Path(PICTURES_ZIP).name
    missing = {name for part in parts for name in wanted_pictures(part) if name not in part.images}
    if not path.exists() and not missing:
        return [], []
    try:
        if not path.exists():
            _need_space(coco, path, missing=len(missing), of=max(len(parts[0].gallery), 1))
            coco.fetch(PICTURES_ZIP)
        result = _import(path, coco, parts)
    except WebError as error:
        return [], [f"  {error}" + ("; a rerun goes on from there" if error.again else "")]
    except InputError as error:
        refused = path.with_name(f"{path.name}.refused")
        if path.exists():
            return [], [f"  {error}; {_set_aside(path)}"]
        return [], [f"  {error}" + (f"; to take it all the same: --from-zip {refused}" if refused.exists() else "")]
    if result.damaged:
        # Size and validator of a file can be those of another one: what was received in two parts may be of two files.
        members = some(result.damaged, 3)
        return [result], [f"  {path} came damaged ({len(result.damaged):,} members: {members}); {_set_aside(path)}"]
    if coco.delete and result.whole:
        remove(path)
        return [result], [f"  {path} was deleted: all of it is there"]
    if coco.delete:
        return [result], [f"  {path} is kept: not all that is in it was taken"]
    note = f"  {path} is no longer needed: --delete-zip removes it, after a check"
    return [result], [note] if result.whole else []


def _need_space(coco: _Coco, path: Path, *, missing: int, of: int) -> None:
    """Need room for the rest of the zip and the missing share of its pictures; raises OutputError.

    The check comes before the first of 20 GB, as the disk would fill up only late in the download.
    """
    if coco.base == COCO:
        part = path.with_name(f"{path.name}.part")
        received = part.stat().st_size if part.exists() else 0
        size = KNOWN[PICTURES_ZIP].size
        need_space(coco.home, size - received + size * missing // of, f"{path.name}, with its pictures beside it,")


def _advice(root: Path) -> tuple[str, ...]:
    return (
        "To get what is missing: run this again without --from-dir and --from-zip, which asks COCO for its zip (20 GB,",
        f"and as much again beside it, in {root}); or give what you have: --from-zip unlabeled2017.zip, or",
        "--from-dir FOLDER. Where COCO's address does not answer, give that of a mirror by --pictures-from.",
    )
