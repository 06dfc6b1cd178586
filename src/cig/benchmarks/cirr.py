"""CIRR (Liu et al., ICCV 2021): open-domain pictures in sets of six; test1 is judged by the authors' server.

A query's reference never appears in its ranking; relevance is `target_hard` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cig.benchmarks import found_gallery, name_of, names_of, need_names, read_queries
from cig.errors import InputError
from cig.io.dataset_paths import find_home, list_pictures
from cig.io.json_files import read_object
from cig.types import TARGET, Benchmark, Query, Ranking, SubmissionForm

SPLITS = {"train": "train", "val": "val", "test1": "test1", "test": "test1"}
SUBMISSIONS = (
    SubmissionForm("cirr/test1", 4148, 50, "recall", "rc2"),
    SubmissionForm("cirr/test1", 4148, 3, "recall_subset", "rc2", subset=True),
)
ODDITIES = (
    "a query has one target: other pictures that would do count as wrong",
    "the reference is in the gallery and in the query's own set of six, and is taken out of both rankings",
)
WITHOUT = "without the query's reference"
FOLDERS = {"val": "dev", "test1": "test1", "train": "train"}  # of the release's pictures, where the split file lacks
WEIGHTS = {"test1": (0.5, "as published for CIRR test1"), "val": (0.85, "as published for CIRR val")}


def load(root: Path, split: str) -> tuple[Benchmark]:
    """Load a split, with or without the inner `cirr/`; pictures flat, in `images/`, or as released (`dev/`, ...).

    Without the split file, the gallery is the pictures on disk, and marked as such: enough to extract and generate.
    """
    caption_file = f"captions/cap.rc2.{split}.json"
    home = find_home(root, "cirr", [caption_file, f"cirr/{caption_file}"])
    inner = home if (home / caption_file).exists() else home / "cirr"
    captions = inner / caption_file
    queries = read_queries(captions, ["pairid", "reference"], _query)
    listing = inner / "image_splits" / f"split.rc2.{split}.json"
    folders = picture_folders(listing) if listing.exists() else {}
    images = list_pictures(_search_folders(home, inner, split, folders=folders))
    gallery = tuple(folders or sorted(images))
    weight, source = WEIGHTS.get(split, WEIGHTS["val"])
    benchmark = Benchmark(
        name=f"cirr/{split}",
        queries=queries,
        images=images,
        gallery=gallery,
        measures=(*(f"recall@{k}" for k in (1, 5, 10, 50)), *(f"subset_recall@{k}" for k in (1, 2, 3))),
        drop_reference=True,
        weight=weight,
        weight_source=source,
        hidden=split == "test1",
        protocol={
            "gallery": f"{'all names of the split file' if folders else found_gallery(gallery, listing)}, {WITHOUT}",
            "targets": "target_hard",
        },
        missing_list=None if folders else listing,
    )
    return (benchmark,)


def submission(ranking: Ranking) -> dict[str, dict[str, Any]]:
    """Return the evaluation server's two files, by prefix of their name: 50 names a query, and 3 of its image set."""
    top = dict(zip(ranking.queries, (list(names[:50]) for names in ranking.ids), strict=True))
    subset = dict(zip(ranking.queries, (list(names[:3]) for names in ranking.subset), strict=True))
    return {
        "": {"version": "rc2", "metric": "recall", **top},
        "subset_": {"version": "rc2", "metric": "recall_subset", **subset},
    }


def mend(part: Benchmark) -> str:
    """Return the command that imports the pictures (without --from-dir: where to get them), or gets the list."""
    if part.missing_list:
        return f"cig download {part.name} --no-pictures"
    return f"cig download {part.name} --from-dir DIR"


def _query(position: int, entry: dict[str, Any]) -> Query:
    pair, images, target = name_of(entry["pairid"], "pairid"), entry.get("img_set") or {}, entry.get("target_hard")
    if not isinstance(entry.get("caption"), str) or not isinstance(images, dict):
        raise InputError(f"pairid {pair} lacks a caption, or its img_set is not an object")
    return Query(
        id=pair,
        reference=name_of(entry["reference"], "reference"),
        captions=(entry["caption"],),
        relevant={name_of(target, "target_hard"): TARGET} if target else {},
        subset=names_of(images.get("members", []), "img_set.members"),
    )


def picture_folders(path: Path) -> Mapping[str, PurePosixPath]:
    """Map each name of a split file to the folder that the release gives it."""
    listed = read_object(path)
    names_of([*listed, *listed.values()], f"{path}, an object of names and paths,")
    need_names([*listed], path)
    return {name: PurePosixPath(str(file)).parent for name, file in listed.items()}


def _search_folders(home: Path, inner: Path, split: str, *, folders: Mapping[str, PurePosixPath]) -> list[Path]:
    """List the folders to search for pictures, first those of the release.

    A path from an annotation file never leads out of the dataset's folder: absolute ones and `..` are dropped.
    """
    subfolders = [*dict.fromkeys(folders.values()), PurePosixPath(FOLDERS[split]), PurePosixPath(split)]
    inside = [folder for folder in subfolders if not folder.is_absolute() and ".." not in folder.parts]
    bases = [home, *([home.parent] if inner == home and home.name.lower() == "cirr" else []), inner]
    roots = [base / images for base in bases for images in ("", "images", "img_raw")]
    numbered = [] if folders else [path for root in roots for path in sorted(root.glob(f"{FOLDERS[split]}/*/"))]
    return [*(root / folder for root in roots for folder in (*inside, PurePosixPath())), *numbered]
