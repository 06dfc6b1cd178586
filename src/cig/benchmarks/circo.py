"""CIRCO (Baldrati et al., ICCV 2023): several targets a query, over all of COCO 2017 unlabeled.

Names are image ids as decimal strings, without COCO's padding. The annotated target has grade 2, the others grade 1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cig.benchmarks import found_gallery, name_of, names_of, need_names, read_queries
from cig.errors import InputError
from cig.io.dataset_paths import FoundPictures, find_home, list_pictures
from cig.io.json_files import read_object
from cig.types import ALSO_CORRECT, TARGET, Benchmark, Query, Ranking, SubmissionForm

SPLITS = {"val": "val", "test": "test"}
CUTOFFS = (5, 10, 25, 50)
SUBMISSIONS = (SubmissionForm("circo/val", 220, 50), SubmissionForm("circo/test", 800, 50))
ODDITIES = (
    "a query has several correct pictures: mAP counts all of them, recall the annotated target alone",
    "shared_concept, which says what both pictures show, is no part of the caption",
)
WEIGHT_SOURCES = {
    "test": "as published for CIRCO test",
    "val": "that of CIRCO test; the published validation ignores the pseudo-target",
}


SHARED = "find {shared_concept} but {relative_caption}"  # as MagicLens and BGE-VL ask


def load(root: Path, split: str, shared_concept: bool = False) -> tuple[Benchmark]:
    """Load a split; without image_info_unlabeled2017.json, the gallery is the pictures on disk, and marked as such.

    Args:
        shared_concept: captions say what both pictures show, too. SEARLE, LinCIR and CIG do not use it, so scores
            with it and without it are not of one protocol.
    """
    home = find_home(root, "circo", [f"annotations/{split}.json", f"{split}.json"])
    annotations = next(
        path for path in (home / "annotations" / f"{split}.json", home / f"{split}.json") if path.exists()
    )
    coco = home / "COCO2017_unlabeled"
    files = list_pictures([coco / "unlabeled2017", home / "unlabeled2017", home / "images", coco])
    pictures = FoundPictures((str(int(stem)), path) for stem, path in files.items() if _is_id(stem))
    pictures.passed = replace(
        files.passed, paths={str(int(stem)): path for stem, path in files.passed.paths.items() if _is_id(stem)}
    )
    listing = coco / "annotations" / "image_info_unlabeled2017.json"
    gallery, source = _gallery(listing, pictures)
    benchmark = Benchmark(
        name=f"circo/{split}",
        queries=read_queries(
            annotations,
            ["id", "reference_img_id", "relative_caption", *(["shared_concept"] if shared_concept else [])],
            partial(_query, shared_concept=shared_concept),
        ),
        images=pictures,
        gallery=gallery,
        measures=(*(f"map@{k}" for k in CUTOFFS), *(f"recall@{k}" for k in CUTOFFS)),
        drop_reference=False,
        weight=0.7,
        weight_source=WEIGHT_SOURCES[split],
        hidden=split == "test",
        protocol={
            "gallery": source,
            "captions": SHARED if shared_concept else "relative_caption alone, without shared_concept",
        },
        missing_list=None if listing.exists() else listing,
    )
    return (benchmark,)


def _is_id(stem: str) -> bool:
    return stem.isascii() and stem.isdecimal()


def submission(ranking: Ranking) -> dict[str, dict[str, Any]]:
    """Return the evaluation server's file: 50 image ids a query, as strings."""
    return {"": dict(zip(ranking.queries, (list(names[:50]) for names in ranking.ids), strict=True))}


def mend(part: Benchmark) -> str:
    """Return the command that brings missing pictures."""
    return "cig download circo"


def _query(position: int, entry: dict[str, Any], *, shared_concept: bool) -> Query:
    for key in ("relative_caption", *(["shared_concept"] if shared_concept else [])):
        if not isinstance(entry[key], str):
            raise InputError(f"{key} is not a text")
    caption = SHARED.format(**entry) if shared_concept else entry["relative_caption"]
    relevant = dict.fromkeys(names_of(entry.get("gt_img_ids", []), "gt_img_ids"), ALSO_CORRECT)
    if "target_img_id" in entry:
        relevant[name_of(entry["target_img_id"], "target_img_id")] = TARGET
    return Query(
        id=name_of(entry["id"], "id"),
        reference=name_of(entry["reference_img_id"], "reference_img_id"),
        captions=(caption,),
        relevant=relevant,
        tags=names_of(entry.get("semantic_aspects", []), "semantic_aspects"),
    )


def _gallery(info: Path, pictures: dict[str, Path]) -> tuple[tuple[str, ...], str]:
    if not info.exists():
        names = tuple(sorted(pictures, key=int))
        return names, found_gallery(names, info)
    try:
        ids = [image["id"] for image in read_object(info)["images"]]
    except (KeyError, TypeError) as error:
        raise InputError(f'{info}: expected {{"images": [{{"id": ...}}, ...]}}') from error
    return need_names(names_of(ids, str(info)), info), f"all images of {info.name}"
