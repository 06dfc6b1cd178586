"""CIRR: annotations from the authors' repository, and NLVR2's pictures, which users get from its authors and import.

Annotations go to `captions/` and `image_splits/`, pictures to `img_raw/` beside them, as in the release.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cig.benchmarks import ID, load_benchmark
from cig.benchmarks._check import check, wanted_pictures
from cig.benchmarks._requirements import need_choice
from cig.benchmarks.cirr import FOLDERS, SPLITS, picture_folders
from cig.download import FetchSettings, Outcome
from cig.download._annotation_files import fetch_files, json_list, json_object
from cig.download._bulk_pictures import BulkImport, check_sources, import_folder, import_zip
from cig.download._summary import count, summarise
from cig.errors import IncompleteError
from cig.io.images import evaluation_pixel_limit
from cig.io.locks import hold
from cig.io.zips import safe_path
from cig.types import Benchmark

ANNOTATIONS = "https://raw.githubusercontent.com/Cuberick-Orion/CIRR/cirr_dataset"
HELP = (
    "CIRR's pictures are those of NLVR2, which may not be passed on. To get them:",
    "  1. fill in NLVR2's form, https://goo.gl/forms/yS29stWnFWzrDBFH3, and agree to its terms, as told in",
    "     https://github.com/lil-lab/nlvr/tree/master/nlvr2#direct-image-download; they answer within a week;",
    "     no answer: nlvr@googlegroups.com, or CIRR's authors (https://github.com/Cuberick-Orion/CIRR#raw-images);",
    "  2. cig download cirr --from-dir FOLDER, or --from-zip FILE.zip, as often as you like: any layout will do, and",
    "     nothing of yours is moved. CIRR's authors advise against NLVR2's script of addresses: many are dead.",
)


def download(
    root: Path,
    settings: FetchSettings,
    splits: Sequence[str] = ("val", "test1"),
    *,
    annotations_from: str = ANNOTATIONS,
    from_dir: Path | None = None,
    from_zip: Sequence[Path] = (),
    link: bool = False,
    no_pictures: bool = False,
) -> Outcome:
    """Download annotations, then import pictures that the user has.

    Raises:
        UsageError: a split, folder or zip that does not exist.
        IncompleteError: annotations that cannot be downloaded.
    """
    settings.rules([annotations_from])  # raises UsageError for what is no address
    sources = check_sources(from_dir, from_zip, link)
    for split in splits:
        need_choice("CIRR split", split, SPLITS)
    splits = list(dict.fromkeys(SPLITS[split] for split in splits))
    home = root / "cirr" if (root / "cirr" / "captions").is_dir() else root
    with hold(root, "cig download cirr"):
        _fetch_annotations(home, settings, splits, base=annotations_from)
        if no_pictures:
            return count(_load(root, splits))
        imports = [_import(source, home, _load(root, splits), link=link) for source in sources]
        with evaluation_pixel_limit():
            checkups = [check(part) for part in _load(root, splits)]
        return summarise(checkups, imports, advice=HELP)


def _load(root: Path, splits: Sequence[str]) -> list[Benchmark]:
    return [load_benchmark(f"cirr/{split}", root) for split in splits]


def _fetch_annotations(home: Path, settings: FetchSettings, splits: Sequence[str], *, base: str) -> None:
    named = [base] if base != ANNOTATIONS else []
    kinds = {"captions/cap.rc2.{}.json": json_list, "image_splits/split.rc2.{}.json": json_object}
    failed: dict[Path, str] = {}
    for form, check_json in kinds.items():
        files = {home / form.format(split): f"{base.rstrip('/')}/{form.format(split)}" for split in splits}
        failed |= fetch_files(files, settings, named, check=check_json)
    if failed:
        raise IncompleteError(
            f"{len(failed)} annotation files cannot be had: {next(iter(failed.values()))}. Put captions/ and "
            f"image_splits/ of github.com/Cuberick-Orion/CIRR (branch cirr_dataset) into {home}, or give their address "
            f"by --annotations-from"
        )


def _import(source: Path, home: Path, parts: Sequence[Benchmark], *, link: bool) -> BulkImport:
    """Import the missing pictures to where the release has them, from a folder or zip."""
    places: dict[str, Path] = {}
    present: dict[str, Path] = {}
    for part in parts:
        split = part.name.partition("/")[2]
        folders = picture_folders(home / "image_splits" / f"split.rc2.{split}.json")
        for name in wanted_pictures(part):
            if name in part.images:
                present[name] = part.images[name]
            elif ID.fullmatch(name):
                places[name] = safe_path(home / "img_raw", str(folders.get(name, FOLDERS[split])), name)
    present = {name: path for name, path in present.items() if name not in places}
    if source.is_dir():
        return import_folder(source, places, present, name_of=str, link=link)
    return import_zip(source, places, present, name_of=str)
