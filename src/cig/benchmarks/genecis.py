"""GeneCIS (Vaze et al., CVPR 2023): four tasks, in each of which a query ranks a gallery of its own.

Object tasks are on COCO val2017, attribute tasks on boxes of Visual Genome. As published, samples whose gallery has
another length than most are left out, and a box is cropped with a margin and padded with black to a square.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from cig.benchmarks import name_of, need_names, read_queries
from cig.config import user_cache
from cig.errors import CigError, InputError
from cig.io.dataset_paths import find_home, list_pictures
from cig.io.digests import digest_of
from cig.io.files import stamp, write_png
from cig.io.images import read_picture
from cig.types import TARGET, Benchmark, Query

TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")  # in the paper's order
SPLITS = {
    "val": "all",
    "all": "all",
    **{task.replace("_", "-"): task for task in TASKS},
    **{task: task for task in TASKS},
}
MEASURES = ("recall@1", "recall@2", "recall@3")
MARGIN = 0.7  # of the box's width and height
GENOME = ("VG_100K", "VG_100K_2", "VG_100K_all")
ODDITIES = (
    "a query ranks its own gallery of 15 pictures or 10, target included: a recall of 100/15 or 100/10 is chance",
    "the authors call differences of 0.2 points of the average significant; our intervals resample queries",
)


def load(root: Path, split: str) -> tuple[Benchmark, ...]:
    """Load one task, or all four (`val`), whose mean is the published average.

    Raises:
        NotFoundError: no annotation file of a task.
    """
    tasks = TASKS if split == "all" else (split,)
    name = "genecis/val" if split == "all" else f"genecis/{split.replace('_', '-')}"
    home = find_home(root, "genecis", [f"genecis/{tasks[0]}.json", f"{tasks[0]}.json"])
    return tuple(_part(home, task, name, part=task.replace("_", "-") if len(tasks) > 1 else "") for task in tasks)


def mend(part: Benchmark) -> str:
    """Return what brings missing pictures."""
    return (
        "get COCO's val2017.zip from images.cocodataset.org and Visual Genome's images.zip and images2.zip from "
        "homes.cs.washington.edu/~ranjay/visualgenome, and unpack them beside genecis/"
    )


def _part(home: Path, task: str, name: str, *, part: str) -> Benchmark:
    path = next(one for one in (home / "genecis" / f"{task}.json", home / f"{task}.json") if one.exists())
    galleries: dict[str, tuple[str, ...]] = {}
    lengths: dict[str, int] = {}  # of galleries, repetitions counted
    boxes: dict[str, tuple[str, Sequence[float]]] = {}  # name of a crop -> its picture and box
    make = partial(_query, galleries=galleries, lengths=lengths, boxes=boxes)
    queries = read_queries(path, ["reference", "target", "gallery", "condition"], make)
    length, _ = Counter(lengths.values()).most_common(1)[0]
    kept = tuple(query for query in queries if lengths[query.id] == length)
    names = need_names(sorted({one for query in kept for one in galleries[query.id]}), path)
    crops = f"boxes with a margin of {MARGIN}, padded to a square" if boxes else "whole pictures"
    return Benchmark(
        name=name,
        queries=kept,
        images=_crops(_genome(home), boxes) if boxes else _coco(home),
        gallery=names,
        measures=MEASURES,
        drop_reference=False,
        weight=0.7,
        weight_source="none published; that of CIRCO test",
        part=part,
        protocol={
            "gallery": f"{length} pictures a query, target included",
            "queries": f"{len(kept)} of {len(queries)}: those with a gallery of this length, as published",
            "pictures": crops,
        },
        galleries={query.id: galleries[query.id] for query in kept},
    )


def _query(
    position: int,
    entry: dict[str, Any],
    *,
    galleries: dict[str, tuple[str, ...]],
    lengths: dict[str, int],
    boxes: dict[str, tuple[str, Sequence[float]]],
) -> Query:
    if not isinstance(entry["condition"], str) or not isinstance(entry["gallery"], list):
        raise InputError("condition is not a text, or gallery no list")
    reference, target, *others = (
        _name(item, boxes) for item in (entry["reference"], entry["target"], *entry["gallery"])
    )
    lengths[str(position)] = 1 + len(others)
    galleries[str(position)] = tuple(dict.fromkeys((target, *others)))
    return Query(str(position), reference, (entry["condition"],), {target: TARGET})


def _name(item: Any, boxes: dict[str, tuple[str, Sequence[float]]]) -> str:
    """Return the name of a picture, or of a box: "2345-10-20-30-40"."""
    if not isinstance(item, Mapping) or not ("val_image_id" in item or {"image_id", "instance_bbox"} <= set(item)):
        raise InputError("a picture has neither val_image_id nor image_id and instance_bbox")
    if "val_image_id" in item:
        return name_of(item["val_image_id"], "val_image_id")
    picture, box = name_of(item["image_id"], "image_id"), item["instance_bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
        raise InputError("instance_bbox is not a list of four numbers")
    name = "-".join([picture, *(f"{side:g}" for side in box)])
    boxes[name] = picture, box
    return name


def _coco(home: Path) -> dict[str, Path]:
    files = list_pictures([home / "val2017", home / "coco" / "val2017", home / "COCO" / "val2017"])
    return {str(int(stem)): path for stem, path in files.items() if stem.isascii() and stem.isdecimal()}


def _genome(home: Path) -> dict[str, Path]:
    return dict(list_pictures([base / name for base in (home, home / "VG", home / "vg") for name in GENOME]))


def _crops(pictures: Mapping[str, Path], boxes: Mapping[str, tuple[str, Sequence[float]]]) -> dict[str, Path]:
    """Return name -> crop, made once, in the user's cache; a box whose picture is missing is left out."""
    folder = user_cache() / "genecis"

    def made(name: str) -> Path | None:
        picture, box = boxes[name]
        source = pictures.get(picture)
        if source is None:
            return None
        path = folder / f"{digest_of([name, str(source.resolve()), stamp(source.stat())])[:32]}.png"
        if not os.path.isfile(path):
            try:
                write_png(path, crop(read_picture(source).image, box))
            except CigError:
                return source  # a broken picture is counted where it is embedded
        return path

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        paths = dict(zip(boxes, pool.map(made, boxes), strict=True))
    return {name: path for name, path in paths.items() if path}


def crop(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """Cut a box (left, top, width, height) out with the published margin, and pad it with black to a square.

    The margin is taken off the left and the top; the right side is `left + 1.7 * width`, so where the left margin is
    cut by the picture's edge, the crop reaches further right. This is what the published code does.
    """
    left, top, width, height = box
    left, top = max(0, left - MARGIN * width), max(0, top - MARGIN * height)
    right, bottom = min(image.width, left + (1 + MARGIN) * width), min(image.height, top + (1 + MARGIN) * height)
    cut = image.crop((left, top, right, bottom))
    side = max(cut.size)
    square = Image.new(cut.mode, (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square
