"""LaSCo (Levy et al., AAAI 2024): queries made from VQA 2.0's pairs of questions, over pictures of COCO val2014.

Names are COCO's image ids as decimal strings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cig.benchmarks import NO_WEIGHT, name_of, need_names, read_queries
from cig.errors import InputError
from cig.io.dataset_paths import FoundPictures, find_home, list_pictures
from cig.io.json_files import read_entries
from cig.types import TARGET, Benchmark, Query

SPLITS = {"val": "val"}
ODDITIES = (
    "a query has one target: other pictures that would do count as wrong",
    "captions were written by a language model from questions and answers, and checked on a sample alone",
)


def load(root: Path, split: str) -> tuple[Benchmark]:
    """Load the annotations and the list of the corpus, from `downloads/` as in the repository or beside it."""
    queries, corpus = f"lasco_{split}.json", f"lasco_{split}_corpus.json"
    home = find_home(root, "lasco", [queries, f"downloads/{queries}"])
    folder = home if (home / queries).exists() else home / "downloads"
    ids = [name_of(entry["id"], "id") for entry in read_entries(folder / corpus, ["id"])]
    files = list_pictures([home / "val2014", home / "val" / "val2014", home / "coco" / "val2014"])
    pictures = FoundPictures((image, path) for stem, path in files.items() if (image := image_id(stem)))
    pictures.passed = files.passed
    benchmark = Benchmark(
        name=f"lasco/{split}",
        queries=read_queries(folder / queries, ["qid", "query-image", "query-text", "target-image"], _query),
        images=pictures,
        gallery=need_names(ids, folder / corpus),
        measures=tuple(f"recall@{k}" for k in (1, 5, 10, 50)),
        drop_reference=False,
        weight=0.7,
        weight_source=NO_WEIGHT,
        protocol={"gallery": f"all of {corpus}, each query's reference, too"},
    )
    return (benchmark,)


def mend(part: Benchmark) -> str:
    """Return what brings missing pictures."""
    return "cig download lasco --from-dir DIR, with COCO's val2014.zip of images.cocodataset.org unpacked in it"


def image_id(stem: str) -> str:
    """Return 42 of COCO_val2014_000000000042, or of 42; "" of another name."""
    number = stem.rpartition("_")[2]
    return str(int(number)) if number.isascii() and number.isdecimal() else ""


def _query(position: int, entry: dict[str, Any]) -> Query:
    if not isinstance(entry["query-text"], str):
        raise InputError("query-text is not a text")
    return Query(
        id=f"{position}",
        reference=_image(entry["query-image"], "query-image"),
        captions=(entry["query-text"],),
        relevant={_image(entry["target-image"], "target-image"): TARGET},
    )


def _image(value: Any, what: str) -> str:
    """Return the id of [28714, "val2014/COCO_val2014_000000028714.jpg"]."""
    if not isinstance(value, list) or not value:
        raise InputError(f"{what} should be a list of an id and a path")
    return name_of(value[0], what)
