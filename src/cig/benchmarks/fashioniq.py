"""FashionIQ (Wu et al., CVPR 2021): two captions a query, three categories, a gallery per category.

A query's id is its 0-based position in the category's caption file. test has no targets and no server.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cig.benchmarks import found_gallery, name_of, names_of, need_names, read_queries
from cig.benchmarks._requirements import need_choice
from cig.errors import InputError, NotFoundError
from cig.io.dataset_paths import find_home, list_pictures
from cig.io.json_files import read_json
from cig.types import TARGET, Benchmark, Query

SPLITS = {"train": "train", "val": "val", "test": "test"}
CATEGORIES = ("dress", "shirt", "toptee")
GALLERIES = {"full": "all names of the split file", "val": "the union of references and targets"}
ODDITIES = (
    "a query has one target: other pictures that would do count as wrong",
    "some of the shop's addresses serve several ids, so pictures are the same under several names",
)


def load(
    root: Path, split: str, categories: Sequence[str] = CATEGORIES, *, gallery: str = "full"
) -> tuple[Benchmark, ...]:
    """Load one benchmark a category.

    Args:
        gallery: "full", or "val" for the smaller protocol of VAL. Both are in use, and their scores do not compare.
    """
    for category in categories:
        need_choice("FashionIQ category", category, CATEGORIES)
    need_choice("FashionIQ gallery", gallery, GALLERIES)
    home = find_home(root, "fashioniq", [f"captions/cap.{category}.{split}.json" for category in categories])
    _need_captions(home, categories, split)
    return tuple(_category(home, category, split, gallery=gallery) for category in dict.fromkeys(categories))


def _need_captions(home: Path, categories: Sequence[str], split: str) -> None:
    """Raise NotFoundError that names the categories without captions, and the flag that leaves them out."""
    lacking = [name for name in categories if not (home / "captions" / f"cap.{name}.{split}.json").exists()]
    if lacking:
        rest = " ".join(name for name in categories if name not in lacking)
        raise NotFoundError(
            f"{home} has no captions/cap.{lacking[0]}.{split}.json; leave out {', '.join(lacking)} by --categories "
            f"{rest}, or get the annotations by: cig download fashioniq/{split} --no-pictures --dataset-path {home}"
        )


def _category(home: Path, category: str, split: str, *, gallery: str) -> Benchmark:
    captions = home / "captions" / f"cap.{category}.{split}.json"
    queries = read_queries(captions, ["candidate", "captions"], _query)
    images = list_pictures(picture_folders(home, category))
    listed = home / "image_splits" / f"split.{category}.{split}.json"
    missing_list = None if gallery == "val" or listed.exists() else listed
    if gallery == "val":
        names = tuple(name for query in queries for name in (query.reference, *query.relevant))
    else:
        names = tuple(images) if missing_list else need_names(names_of(read_json(listed), str(listed)), listed)
    return Benchmark(
        name=f"fashioniq/{split}",
        part=category,
        queries=queries,
        images=images,
        gallery=tuple(dict.fromkeys(names)),
        measures=("recall@10", "recall@50"),
        drop_reference=False,
        weight=0.9,
        weight_source="as published for FashionIQ val",
        hidden=split == "test",
        protocol={
            "gallery": found_gallery(names, listed) if missing_list else f"{gallery}: {GALLERIES[gallery]}",
            "captions": "both orders, `c1 and c2` and `c2 and c1`, averaged",
        },
        missing_list=missing_list,
    )


def picture_folders(home: Path, category: str) -> list[Path]:
    """List the folders to search for a category's pictures; earlier ones win."""
    images = home / "images"
    return [images, images / category, images / "downloaded" / category, images / "downloaded"]


def mend(part: Benchmark) -> str:
    """Return the command that downloads missing pictures."""
    return f"cig download fashioniq --categories {part.part} --splits {part.name.rpartition('/')[2]}"


def _query(position: int, entry: dict[str, Any]) -> Query:
    captions, target = entry["captions"], entry.get("target")
    if not isinstance(captions, list) or not captions or not all(isinstance(text, str) for text in captions):
        raise InputError(f"captions should be a list of texts, found {reprlib.repr(captions)}")
    relevant = {name_of(target, "target"): TARGET} if target else {}
    return Query(str(position), name_of(entry["candidate"], "candidate"), tuple(captions), relevant)
