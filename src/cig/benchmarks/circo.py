"""CIRCO (Baldrati et al., ICCV 2023): several targets a query, over all of COCO 2017 unlabeled.

Names are image ids as decimal strings, without COCO's padding. The annotated target has grade 2, the others grade 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cig.benchmarks import unique
from cig.errors import InputError
from cig.formats import read_entries, read_json
from cig.layout import find_home, list_pictures
from cig.types import ALSO_CORRECT, TARGET, Benchmark, Query, Ranking

SPLITS = {"val": "val", "test": "test"}
CUTOFFS = (5, 10, 25, 50)
WEIGHT_SOURCES = {
    "test": "as published for CIRCO test",
    "val": "that of CIRCO test; the published validation ignores the pseudo-target",
}


def load(root: Path, split: str) -> tuple[Benchmark]:
    """The gallery is what image_info_unlabeled2017.json lists, or, without that file, the pictures that are there."""
    home = find_home(root, "circo", [f"annotations/{split}.json", f"{split}.json"])
    annotations = next(
        path for path in (home / "annotations" / f"{split}.json", home / f"{split}.json") if path.exists()
    )
    entries = read_entries(annotations, ["id", "reference_img_id", "relative_caption"])
    coco = home / "COCO2017_unlabeled"
    found = list_pictures([coco / "unlabeled2017", home / "unlabeled2017", home / "images", coco])
    pictures = {str(int(stem)): path for stem, path in found.items() if stem.isdecimal()}
    gallery, source = _gallery(coco, pictures)
    benchmark = Benchmark(
        name=f"circo/{split}",
        queries=unique((_query(entry, annotations) for entry in entries), annotations),
        images=pictures,
        gallery=gallery,
        measures=(*(f"map@{k}" for k in CUTOFFS), *(f"recall@{k}" for k in CUTOFFS)),
        drop_reference=False,
        weight=0.7,
        weight_source=WEIGHT_SOURCES[split],
        hidden=split == "test",
        protocol={"gallery": source, "captions": "relative_caption alone, without shared_concept"},
    )
    return (benchmark,)


def submission(ranking: Ranking) -> dict[str, dict[str, Any]]:
    """The file of the evaluation server: 50 image ids a query, as strings."""
    return {"": dict(zip(ranking.queries, (list(names[:50]) for names in ranking.ids), strict=True))}


def _query(entry: dict[str, Any], source: Path) -> Query:
    if not isinstance(entry["relative_caption"], str):
        raise InputError(f"{source}, id {entry['id']}: relative_caption is not a text")
    relevant = {str(name): ALSO_CORRECT for name in entry.get("gt_img_ids", [])}
    if "target_img_id" in entry:
        relevant[str(entry["target_img_id"])] = TARGET
    return Query(
        id=str(entry["id"]),
        reference=str(entry["reference_img_id"]),
        captions=(entry["relative_caption"],),
        relevant=relevant,
        tags=tuple(entry.get("semantic_aspects", [])),
    )


def _gallery(coco: Path, pictures: dict[str, Path]) -> tuple[tuple[str, ...], str]:
    info = coco / "annotations" / "image_info_unlabeled2017.json"
    if not info.exists():
        return tuple(sorted(pictures, key=int)), f"the {len(pictures)} pictures found, for lack of {info.name}"
    listed = read_json(info)
    try:
        return tuple(str(image["id"]) for image in listed["images"]), f"all images of {info.name}"
    except (KeyError, TypeError) as error:
        raise InputError(f'{info}: expected {{"images": [{{"id": ...}}, ...]}}') from error
