"""COCO object composition: the drawing by hand, cut-out objects pixel by pixel, the same list whatever the order."""

import hashlib
import json
import random

import numpy as np
import pytest
from PIL import Image

from cig import load_benchmark
from cig.benchmarks.coco_composition import cut_out, draw_objects
from cig.errors import InputError

SIZES = (4, 4)  # queries and pictures of `make`, for the contract
NAMES = {1: "person", 3: "car", 17: "cat"}


def instances(path, annotations, pictures=12):
    images = [{"id": i, "width": 20, "height": 10, "file_name": f"{i:012d}.jpg"} for i in range(pictures)]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in NAMES.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def an_object(number, image, category, box):
    left, top, width, height = box
    polygon = [left, top, left + width, top, left + width, top + height, left, top + height]
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "segmentation": [polygon]}


def make(home):
    """Four queries over their four pictures."""
    for folder in ("val2017", "val2017_masked"):
        (home / folder).mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (20, 10), (20 * i, 0, 0)).save(home / f"val2017/{i:012d}.jpg")
        Image.new("RGB", (5, 5)).save(home / f"val2017_masked/{i}.png")
    entries = [{"image": i, "classes": ["cat", "car"]} for i in range(4)]
    (home / "coco_composition.json").write_text(json.dumps(entries))
    return home


def test_queries(tmp_path):
    part = load_benchmark("coco-composition", make(tmp_path))
    first = part.queries[0]
    assert (first.id, first.reference, first.captions) == ("0", "object-0", ("cat and car",))
    assert dict(first.relevant) == {"0": 2}
    (tmp_path / "val2017_masked/2.png").unlink()
    assert load_benchmark("coco-composition", tmp_path).missing_images == ("object-2",)


def test_an_object_is_drawn_by_the_seed_and_the_picture_alone(tmp_path):
    """Picture 5 has 200 pixels, so boxes of less than 100 qualify; sha256 of the seed and the id chooses one."""
    annotations = [
        an_object(9, 5, 17, [0, 0, 4, 4]),
        an_object(7, 5, 3, [0, 0, 6, 4]),
        an_object(8, 5, 1, [0, 0, 20, 10]),
        an_object(3, 6, 1, [0, 0, 20, 10]),
    ]
    (entry,) = draw_objects(instances(tmp_path / "a.json", annotations))
    number = int.from_bytes(hashlib.sha256(b"0/coco-composition/5").digest()[:8], "big") % 2
    assert (entry["image"], entry["object"]) == (5, [7, 9][number])
    assert entry["classes"][0] == ["car", "cat"][number]
    assert sorted(entry["classes"]) == ["car", "cat", "person"]
    random.Random(0).shuffle(annotations)
    (again,) = draw_objects(instances(tmp_path / "b.json", annotations))
    assert again == entry


def test_what_is_not_the_object_is_white():
    picture = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).convert("RGB")
    triangle = [[2, 1, 8, 1, 2, 7]]
    cut = np.asarray(cut_out(picture, [2, 1, 6, 6], triangle))
    assert cut.shape == (6, 6, 3)
    assert (cut[0, 0] == 22).all(), "the corner at column 2, row 1"
    assert (cut[5, 5] == 255).all()


def test_crowds_are_run_lengths_down_the_columns():
    picture = Image.new("RGB", (3, 2), (9, 9, 9))
    cut = np.asarray(cut_out(picture, [0, 0, 3, 2], {"size": [2, 3], "counts": [1, 2, 3]}))[..., 0]
    assert cut.tolist() == [[255, 9, 255], [9, 255, 255]]


@pytest.mark.parametrize("coded", [{}, {"size": [2, 3], "counts": [9]}, {"size": [2, 3], "counts": [-1, 7]}, [["x"]]])
def test_masks_of_another_form(coded):
    with pytest.raises(InputError):
        cut_out(Image.new("RGB", (3, 2)), [0, 0, 3, 2], coded)


def test_another_file_than_cocos(tmp_path):
    (tmp_path / "a.json").write_text('{"images": []}')
    with pytest.raises(InputError, match="instances"):
        draw_objects(tmp_path / "a.json")
