"""GeneCIS (Vaze et al., CVPR 2023): four tasks, in each of which a query ranks a gallery of its own.

Object tasks are on COCO val2017, attribute tasks on boxes of Visual Genome, which are cropped with a margin and padded
with black to a square, as published.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from cig.benchmarks import NO_WEIGHT, name_of, need_names, read_queries
from cig.config import user_cache
from cig.errors import CigError, InputError
from cig.io.dataset_paths import find_home, list_pictures
from cig.io.digests import digest_of
from cig.io.files import stamp, write_png
from cig.io.images import read_picture
from cig.runtime import progress
from cig.types import TARGET, Benchmark, Query

TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")  # in the paper's order
SPLITS = {
    "val": "all",
    "all": "all",
    **{task.replace("_", "-"): task for task in TASKS},
    **{task: task for task in TASKS},
}
MEASURES = ("recall@1", "recall@2", "recall@3")
Box = tuple[str, Sequence[float]]  # a picture's name, and left, top, width and height
MARGIN = 0.7  # of the box's width and height
GENOME = ("VG_100K", "VG_100K_2", "VG_100K_all")
ODDITIES = (
    "a query ranks its own gallery of 15 pictures or 10, target included: a recall of 100/15 or 100/10 is chance",
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
    boxes: dict[str, Box] = {}  # by the name of the crop
    make = partial(_query, galleries=galleries, boxes=boxes)
    queries = read_queries(path, ["reference", "target", "gallery", "condition"], make)
    lengths = {len(names) for names in galleries.values()}
    length = f"{min(lengths)}" if len(lengths) == 1 else f"{min(lengths)} to {max(lengths)}"
    names = need_names(sorted({name for names in galleries.values() for name in names}), path)
    crops = f"boxes with a margin of {MARGIN}, padded to a square" if boxes else "whole pictures"
    return Benchmark(
        name=name,
        queries=queries,
        images=_crops(_genome(home), boxes) if boxes else _coco(home),
        gallery=names,
        measures=MEASURES,
        drop_reference=False,
        weight=0.7,
        weight_source=NO_WEIGHT,
        part=part,
        protocol={
            "gallery": f"{length} pictures a query, target included",
            "pictures": crops,
            "significance": "the authors take 0.2 points of the average; our intervals resample queries",
        },
        galleries=galleries,
    )


def _query(
    position: int,
    entry: dict[str, Any],
    *,
    galleries: dict[str, tuple[str, ...]],
    boxes: dict[str, Box],
) -> Query:
    if not isinstance(entry["condition"], str) or not isinstance(entry["gallery"], list):
        raise InputError("condition is not a text, or gallery no list")
    reference, target, *others = (
        _name(item, boxes) for item in (entry["reference"], entry["target"], *entry["gallery"])
    )
    galleries[str(position)] = tuple(dict.fromkeys((target, *others)))
    return Query(str(position), reference, (entry["condition"],), {target: TARGET})


def _name(item: Any, boxes: dict[str, Box]) -> str:
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


def _crops(pictures: Mapping[str, Path], boxes: Mapping[str, Box]) -> dict[str, Path]:
    """Return name -> crop, made once, in the user's cache; a box whose picture is missing is left out.

    A picture is decoded once for all of its boxes.
    """
    folder = user_cache() / "genecis"
    by_picture: dict[str, list[str]] = {}
    for name, (picture, _) in boxes.items():
        if picture in pictures:
            by_picture.setdefault(picture, []).append(name)
    paths: dict[str, Path] = {}
    todo: dict[Path, list[str]] = {}
    for picture, names in by_picture.items():
        source = pictures[picture]
        key = [str(source.resolve()), stamp(source.stat())]
        paths |= {name: folder / f"{digest_of([name, *key])[:32]}.png" for name in names}
        if absent := [name for name in names if not os.path.isfile(paths[name])]:
            todo[source] = absent

    def make(source: Path) -> dict[str, Path]:
        """Write a picture's crops; return the picture in their place if it is broken, to be counted when it is read."""
        try:
            image = read_picture(source).image
        except CigError:
            return dict.fromkeys(todo[source], source)
        for name in todo[source]:
            write_png(paths[name], crop(image, boxes[name][1]))
        return {}

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for broken in progress(pool.map(make, todo), len(todo), "crop", unit="pictures") if todo else ():
            paths |= broken
    return paths


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
