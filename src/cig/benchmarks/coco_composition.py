"""COCO object composition (Pic2Word, Saito et al., CVPR 2023): an object cut out of a picture, and all of its classes.

The released preparation draws the objects without a seed, so every list is another benchmark. Ours is drawn with a seed
and by a rule that does not depend on the order of the file: `cig download coco-composition` makes it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from cig.benchmarks import NO_WEIGHT, name_of, need_names, read_queries
from cig.errors import InputError
from cig.io.dataset_paths import find_home, list_pictures
from cig.io.json_files import read_object
from cig.types import TARGET, Benchmark, Query

SPLITS = {"val": "val"}
SEED = 0
LIST, CUT_OUTS = "coco_composition.json", "val2017_masked"
SMALLEST, LARGEST = 0.05, 0.5  # of a box: pixels (as published, where a share was meant), and a share of the picture
WHITE = 255
ODDITIES = ("a query has one target: other pictures with the same classes count as wrong",)


def load(root: Path, split: str) -> tuple[Benchmark]:
    """Load our list, the cut-out objects beside it, and COCO's val2017."""
    home = find_home(root, "coco-composition", [LIST])
    queries = read_queries(home / LIST, ["image", "classes"], _query)
    wholes = list_pictures([home / "val2017", home / "coco" / "val2017"])
    cut = list_pictures([home / CUT_OUTS])
    images = {str(int(stem)): path for stem, path in wholes.items() if stem.isascii() and stem.isdecimal()}
    benchmark = Benchmark(
        name="coco-composition/val",
        queries=queries,
        images={**images, **{f"object-{stem}": path for stem, path in cut.items()}},
        gallery=need_names([name for query in queries for name in query.relevant], home / LIST),
        measures=tuple(f"recall@{k}" for k in (1, 5, 10, 50)),
        drop_reference=False,
        weight=0.7,
        weight_source=NO_WEIGHT,
        protocol={
            "queries": f"drawn by cig with the seed {SEED}; the published list was never released",
            "gallery": "the pictures of the list",
            "captions": "the object's class, then the others, joined by 'and'",
        },
    )
    return (benchmark,)


def mend(part: Benchmark) -> str:
    """Return the command that makes the list and the cut-out objects."""
    return "cig download coco-composition --from-dir DIR, with COCO's val2017/ and annotations/ in it"


def _query(position: int, entry: dict[str, Any]) -> Query:
    classes, image = entry["classes"], name_of(entry["image"], "image")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise InputError("classes should be a list of texts")
    return Query(image, f"object-{image}", (" and ".join(classes),), {image: TARGET})


# Making the list


def draw_objects(instances: Path) -> list[dict[str, Any]]:
    """Draw one object a picture, from COCO's instances: entries of our list, in the order of the pictures' ids.

    As published, an object qualifies if its box has less than half of the picture's area. Which of a picture's objects
    is drawn depends on the seed and the picture's id alone.

    Returns:
        [{"image", "box", "classes", "segmentation"}]: the object's class is the first; the others come in the order of
        their objects' ids.
    """
    content = read_object(instances)
    try:
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        names = {category["id"]: category["name"] for category in content["categories"]}
        objects = defaultdict(list)
        for annotation in content["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        in_order = {image: sorted(objects[image], key=lambda each: int(each["id"])) for image in sorted(objects)}
        drawn = [_draw(image, listed, sizes[image], names=names) for image, listed in in_order.items()]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{instances} is not COCO's list of instances: {error!r}") from error
    return [entry for entry in drawn if entry]


def _draw(
    image: int, objects: Sequence[Mapping[str, Any]], size: tuple[int, int], *, names: Mapping[int, str]
) -> dict[str, Any]:
    able = [each for each in objects if SMALLEST < each["bbox"][2] * each["bbox"][3] < LARGEST * size[0] * size[1]]
    if not able:
        return {}
    digest = hashlib.sha256(f"{SEED}/coco-composition/{image}".encode()).digest()
    chosen = able[int.from_bytes(digest[:8], "big") % len(able)]
    label = names[chosen["category_id"]]
    others = [name for name in dict.fromkeys(names[each["category_id"]] for each in objects) if name != label]
    return {
        "image": image,
        "object": chosen["id"],
        "box": chosen["bbox"],
        "classes": [label, *others],
        "segmentation": chosen["segmentation"],
    }


def cut_out(picture: Image.Image, box: Sequence[float], segmentation: Any) -> Image.Image:
    """Cut an object out: its box, with white where the object is not.

    Polygons are filled by Pillow; their edges may differ by a pixel from pycocotools'. Crowds are run lengths.
    """
    mask = _run_lengths(segmentation) if isinstance(segmentation, Mapping) else _polygons(segmentation, picture.size)
    if mask.size != picture.size:
        raise InputError(f"a mask of {mask.size} does not fit a picture of {picture.size}")
    white = Image.new("RGB", picture.size, (WHITE,) * 3)
    left, top, width, height = box
    whole = Image.composite(picture.convert("RGB"), white, mask)
    right, bottom = max(int(left) + 1, int(left + width)), max(int(top) + 1, int(top + height))
    return whole.crop((int(left), int(top), right, bottom))


def _polygons(polygons: Any, size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    try:
        for polygon in polygons:
            draw.polygon([(polygon[i], polygon[i + 1]) for i in range(0, len(polygon), 2)], fill=255)
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"not a list of polygons: {error}") from error
    return mask


def _run_lengths(coded: Mapping[str, Any]) -> Image.Image:
    """Decode runs of background and object by turns, down each column."""
    import numpy as np

    counts, size = coded.get("counts"), coded.get("size")
    if not isinstance(counts, list) or not isinstance(size, list) or len(size) != 2:
        raise InputError("run lengths should have a list of counts and a size")
    height, width = size
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise InputError("the run lengths do not fill the picture")
    values = np.repeat((np.arange(len(counts)) % 2 * 255).astype(np.uint8), counts)
    return Image.fromarray(np.ascontiguousarray(values.reshape(width, height).T))
