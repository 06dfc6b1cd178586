"""CIRR: annotations from the authors' repository; its pictures are NLVR2's, which one asks for, and are taken by name.

Annotations go to `captions/` and `image_splits/`, pictures to `img_raw/` beside them, as the release has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cig.benchmarks import ID, load_benchmark
from cig.benchmarks._check import check
from cig.benchmarks.cirr import SPLITS, places
from cig.download import Asking, Outcome
from cig.download._annotation_files import fetch_files, json_list, json_object
from cig.download._bulk_pictures import Taken, check_sources, take_folder, take_zip
from cig.download._fashioniq_report import wanted_by
from cig.download._summary import count, tell
from cig.errors import IncompleteError, UsageError, did_you_mean
from cig.io.images import evaluation_pixel_limit
from cig.io.zips import safe_path
from cig.types import Benchmark

ANNOTATIONS = "https://raw.githubusercontent.com/Cuberick-Orion/CIRR/cirr_dataset"
FOLDERS = {"val": "dev", "test1": "test1", "train": "train"}  # of names that the split file does not place
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
    asking: Asking,
    splits: Sequence[str] = ("val", "test1"),
    annotations_from: str = ANNOTATIONS,
    from_dir: Path | None = None,
    from_zip: Sequence[Path] = (),
    link: bool = False,
    no_pictures: bool = False,
) -> Outcome:
    """Annotations, then the pictures that the user has.

    Raises:
        UsageError: a split, folder or zip that is not.
        IncompleteError: annotations that cannot be had.
    """
    check_sources(from_dir, from_zip, link)
    splits = _known(splits)
    home = root / "cirr" if (root / "cirr" / "captions").is_dir() else root
    _fetch_annotations(home, asking, splits, annotations_from)
    parts = _load(root, splits)
    if no_pictures:
        return count(parts)
    sources = [*([from_dir] if from_dir else []), *from_zip]
    taken = [_take(source, home, _load(root, splits), link) for source in sources]
    with evaluation_pixel_limit():
        looked = [check(part) for part in _load(root, splits)]
    return tell(looked, taken, (), HELP)


def _known(splits: Sequence[str]) -> list[str]:
    for split in splits:
        if split not in SPLITS:
            raise UsageError(f'no CIRR split "{split}".{did_you_mean(split, SPLITS)}')
    return list(dict.fromkeys(SPLITS[split] for split in splits))


def _load(root: Path, splits: Sequence[str]) -> list[Benchmark]:
    return [load_benchmark(f"cirr/{split}", root) for split in splits]


def _fetch_annotations(home: Path, asking: Asking, splits: Sequence[str], base: str) -> None:
    named = [base] if base != ANNOTATIONS else []
    kinds = {"captions/cap.rc2.{}.json": json_list, "image_splits/split.rc2.{}.json": json_object}
    failed: dict[Path, str] = {}
    for form, check_json in kinds.items():
        files = {home / form.format(split): f"{base.rstrip('/')}/{form.format(split)}" for split in splits}
        failed |= fetch_files(files, asking, named, check_json)
    if failed:
        raise IncompleteError(
            f"{len(failed)} annotation files cannot be had: {next(iter(failed.values()))}. Put captions/ and "
            f"image_splits/ of github.com/Cuberick-Orion/CIRR (branch cirr_dataset) into {home}, or give their address "
            f"by --annotations-from"
        )


def _targets(home: Path, parts: Sequence[Benchmark]) -> dict[str, Path]:
    """Of the pictures that are missing: name -> file without suffix, where the release has it."""
    found = {}
    for part in parts:
        split = part.name.partition("/")[2]
        listed = places(home / "image_splits" / f"split.rc2.{split}.json")
        for name in wanted_by(part):
            if name not in part.images and ID.fullmatch(name):
                found[name] = safe_path(home / "img_raw", str(listed.get(name, FOLDERS[split])), name)
    return found


def _take(source: Path, home: Path, parts: Sequence[Benchmark], link: bool) -> Taken:
    targets = _targets(home, parts)
    wanted = [(name, part.images) for part in parts for name in wanted_by(part) if name not in targets]
    there = {name: images[name] for name, images in wanted if name in images}
    if source.is_dir():
        return take_folder(source, targets, there, str, link)
    return take_zip(source, targets, there, str)
