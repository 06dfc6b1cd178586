"""CIRCO: annotations from the authors' repository, and COCO 2017 unlabeled, 20 GB in one zip, or as the user has it.

The layout is the release's: `annotations/`, and `COCO2017_unlabeled/` with COCO's own annotations and pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cig.benchmarks import load_benchmark
from cig.benchmarks._check import check
from cig.benchmarks.circo import SPLITS
from cig.download import Asking, Outcome
from cig.download._annotation_files import fetch_files
from cig.download._bulk_pictures import Taken, check_sources, take_folder, take_zip
from cig.download._fashioniq_report import wanted_by
from cig.download._summary import count, tell
from cig.errors import IncompleteError, InputError, UsageError, did_you_mean
from cig.io.files import make_folder, remove, stat_file, sweep
from cig.io.http import Web, WebError
from cig.io.resumable import Expected, fetch_file, need_space
from cig.io.zips import Archive, Bounds
from cig.types import Benchmark

ANNOTATIONS = "https://raw.githubusercontent.com/miccunifi/CIRCO/main"
COCO = "http://images.cocodataset.org"
LIST, LIST_ZIP = "image_info_unlabeled2017.json", "annotations/image_info_unlabeled2017.zip"
PICTURES_ZIP = "zips/unlabeled2017.zip"
KNOWN = {  # as others have published them of COCO's own server; a mirror's zip may be another of the same pictures
    LIST_ZIP: Expected(md5="ede38355d5c3e5251bb7f8b68e2c068f", starts=b"PK"),
    PICTURES_ZIP: Expected(20_126_613_414, md5="7ebc562819fdb32847aab79530457326", starts=b"PK"),
}
JSON = Bounds((".json",), member=2**28)


@dataclass(frozen=True)
class _Coco:
    """COCO's part: where it is, and where it comes from."""

    home: Path
    base: str
    asking: Asking
    delete: bool

    @property
    def list(self) -> Path:
        return self.home / "annotations" / LIST

    def fetch(self, name: str) -> Path:
        """One of its zips, whole; raises InputError."""
        own = self.base != COCO
        known = Expected(starts=b"PK") if own else KNOWN[name]
        with Web(self.asking.rules([self.base] if own else [])) as web:
            path = self.home / Path(name).name
            return fetch_file(web, f"{self.base.rstrip('/')}/{name}", path, expected=known, waits=self.asking.waits)


def download(
    root: Path,
    asking: Asking,
    splits: Sequence[str] = tuple(SPLITS),
    annotations_from: str = ANNOTATIONS,
    pictures_from: str = COCO,
    from_dir: Path | None = None,
    from_zip: Sequence[Path] = (),
    link: bool = False,
    delete_zip: bool = False,
    no_pictures: bool = False,
) -> Outcome:
    """Annotations, COCO's list of pictures, and the pictures: those the user has, else COCO's zip.

    Raises:
        UsageError: a split, folder or zip that is not.
        IncompleteError: annotations that cannot be had.
    """
    check_sources(from_dir, from_zip, link)
    _check(splits, from_dir, from_zip, delete_zip)
    coco = _Coco(root / "COCO2017_unlabeled", pictures_from, asking, delete_zip)
    _fetch_annotations(root, asking, splits, annotations_from)
    _get_list(coco, from_zip)
    parts = _load(root, splits)
    if no_pictures:
        return count(parts)
    sources = [*([from_dir] if from_dir else []), *from_zip]
    taken = [_take(source, coco, _load(root, splits), link) for source in sources]
    own, notes = ([], []) if sources else _get_pictures(coco, parts)
    # By name: 123,403 pictures are not decoded unless one asks.
    looked = [check(part, decode=False) for part in _load(root, splits)]
    notes.append(f"  no picture was decoded, so there is no picture set: cig check circo --dataset-path {root}")
    return tell(looked, [*taken, *own], notes, _help(root), decoded=False)


def _check(splits: Sequence[str], from_dir: Path | None, from_zip: Sequence[Path], delete_zip: bool) -> None:
    for split in splits:
        if split not in SPLITS:
            raise UsageError(f'no CIRCO split "{split}".{did_you_mean(split, SPLITS)}')
    if delete_zip and (from_dir or from_zip):
        raise UsageError("--delete-zip is for a zip that was downloaded; what you give is never deleted")


def _load(root: Path, splits: Sequence[str]) -> list[Benchmark]:
    return [load_benchmark(f"circo/{split}", root) for split in splits]


def _fetch_annotations(root: Path, asking: Asking, splits: Sequence[str], base: str) -> None:
    absent = [split for split in splits if not (root / f"{split}.json").exists()]  # which are read, too
    files = {root / f"annotations/{split}.json": f"{base.rstrip('/')}/annotations/{split}.json" for split in absent}
    failed = fetch_files(files, asking, [base] if base != ANNOTATIONS else [])
    if failed:
        raise IncompleteError(
            f"{len(failed)} annotation files cannot be had: {next(iter(failed.values()))}. Put annotations/ of "
            f"github.com/miccunifi/CIRCO into {root}, or give its address by --annotations-from"
        )


def _get_list(coco: _Coco, from_zip: Sequence[Path]) -> None:
    """COCO's list of pictures, from a zip that the user has or COCO's; raises IncompleteError."""
    for path in from_zip:
        if coco.list.exists() or _unpack_list(path, coco.list):
            return
    try:
        if not coco.list.exists():
            path = coco.fetch(LIST_ZIP)
            if not _unpack_list(path, coco.list):
                raise InputError(f"{path} holds no {LIST}; remove it")
            if coco.delete:
                remove(path)
    except InputError as error:
        raise IncompleteError(
            f"{error}\nCOCO's list of pictures cannot be had: put {LIST} to {coco.list.parent}, give a zip of it by "
            f"--from-zip, or give another address by --pictures-from. A rerun goes on from there"
        ) from error


def _unpack_list(path: Path, target: Path) -> bool:
    """Whether a zip has it."""
    with Archive(path, JSON) as archive:
        member = next((name for name in archive.members if Path(name).name == LIST), None)
        if member:
            sweep(make_folder(target.parent))
            archive.unpack(member, target)
    return member is not None


def _targets(coco: _Coco, parts: Sequence[Benchmark]) -> dict[str, Path]:
    """Name -> file without suffix, as COCO has it; of the pictures that are missing, or lie there already."""
    folder, images = coco.home / "unlabeled2017", parts[0].images
    names = dict.fromkeys(name for part in parts for name in wanted_by(part) if name.isdecimal())
    places = {name: folder / f"{int(name):012d}" for name in names}
    return {name: path for name, path in places.items() if name not in images or images[name].parent == folder}


def _name(stem: str) -> str:
    """000000000139 -> 139"""
    return str(int(stem)) if stem.isascii() and stem.isdecimal() and len(stem) <= 18 else stem


def _take(source: Path, coco: _Coco, parts: Sequence[Benchmark], link: bool) -> Taken:
    """A zip can tell by its CRC whether a file that is there is whole; a folder cannot."""
    if not source.is_dir():
        return _unpack(source, coco, parts)
    there = _there(parts)
    missing = {name: path for name, path in _targets(coco, parts).items() if name not in there}
    return take_folder(source, missing, there, _name, link)


def _unpack(path: Path, coco: _Coco, parts: Sequence[Benchmark]) -> Taken:
    """COCO's own zip is known by its size, and holds too much to decode; of any other zip each picture is looked at."""
    known = stat_file(path).st_size == KNOWN[PICTURES_ZIP].size
    targets = _targets(coco, parts)
    elsewhere = {name: own for name, own in _there(parts).items() if name not in targets}
    return take_zip(path, targets, elsewhere, _name, known)


def _there(parts: Sequence[Benchmark]) -> dict[str, Path]:
    images = parts[0].images
    return {name: images[name] for part in parts for name in wanted_by(part) if name in images}


def _get_pictures(coco: _Coco, parts: Sequence[Benchmark]) -> tuple[list[Taken], list[str]]:
    """From COCO's zip, if it is there or a picture is missing: (what was taken, what else is to be said)."""
    path = coco.home / Path(PICTURES_ZIP).name
    missing = {name for part in parts for name in wanted_by(part) if name not in part.images}
    try:
        if not path.exists() and not missing:
            return [], []
        if not path.exists():
            _need_space_for_all(coco, path, len(missing), len(parts[0].gallery))
            coco.fetch(PICTURES_ZIP)
        taken = _unpack(path, coco, parts)
    except WebError as error:
        return [], [f"  {error}; a rerun goes on from there"]
    except InputError as error:
        return [], [f"  {error}{_way_out(path)}"]
    return [taken], _delete(coco, path, taken)


def _way_out(path: Path) -> str:
    """Of a zip that cannot be used, or is another than is known."""
    refused = path.with_name(f"{path.name}.refused")
    if path.exists():
        return f"; remove {path} and run this again"
    return f"; to take it all the same: --from-zip {refused}" if refused.exists() else ""


def _need_space_for_all(coco: _Coco, path: Path, missing: int, of: int) -> None:
    """The zip and what is in it have room side by side, before 20 GB are asked for; raises OutputError."""
    if coco.base == COCO:
        part = path.with_name(f"{path.name}.part")
        came = part.stat().st_size if part.exists() else 0
        size = KNOWN[PICTURES_ZIP].size
        need_space(coco.home, size - came + size * missing // max(of, 1), f"{path.name}, with its pictures beside it,")


def _delete(coco: _Coco, path: Path, taken: Taken) -> list[str]:
    """Once every picture in it was found to be there, by size and CRC."""
    if not coco.delete:
        return [f"  {path} is no longer needed: --delete-zip removes it, after a check"] if taken.whole else []
    if not taken.whole:
        return [f"  {path} is kept: not all that is in it was taken"]
    remove(path)
    return [f"  {path} was deleted: all of it is there"]


def _help(root: Path) -> tuple[str, ...]:
    return (
        "To get what is missing: run this again without --from-dir and --from-zip, which asks COCO for its zip (20 GB,",
        f"and as much again beside it, in {root}); or give what you have: --from-zip unlabeled2017.zip, or",
        "--from-dir FOLDER. Where COCO's address does not answer, give that of a mirror by --pictures-from.",
    )
