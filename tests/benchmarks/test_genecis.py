"""GeneCIS: pinned on the real object files; crops, galleries of queries and the four tasks on hand-made ones."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from cig import evaluate, load_benchmark, load_benchmarks, registry
from cig.benchmarks.genecis import TASKS, crop
from cig.errors import InputError, NotFoundError
from cig.retrieval.rank import rank
from cig.types import Gallery


def make(home, queries=4):
    """Four tasks of four queries over 12 pictures: query i asks from picture i for i + 1, beside two others."""
    (home / "genecis").mkdir(parents=True)
    for folder in ("val2017", "VG_100K"):
        (home / folder).mkdir()
        for i in range(16):
            name = f"{i:012d}" if folder == "val2017" else str(i)
            Image.linear_gradient("L").resize((60, 40 + i)).convert("RGB").save(home / folder / f"{name}.jpg")
    for task in TASKS:
        boxed = task.endswith("attribute")
        pictures = [
            {"image_id": i, "instance_bbox": [10, 10, 20, 10]} if boxed else {"val_image_id": i} for i in range(16)
        ]
        entries = [
            {
                "reference": pictures[12 + i],
                "target": pictures[3 * i],
                "gallery": [pictures[3 * i + 1], pictures[3 * i + 2]],
                "condition": f"thing {i}",
            }
            for i in range(queries)
        ]
        (home / "genecis" / f"{task}.json").write_text(json.dumps(entries))
    return home


@pytest.mark.parametrize("task", ["change_object", "focus_object"])
def test_the_real_object_tasks(annotations, tmp_path, task):
    (tmp_path / "genecis").symlink_to(annotations / "genecis")
    part = load_benchmark(f"genecis/{task}", tmp_path)
    first, last = part.queries[0], part.queries[-1]
    lengths = Counter(len(names) for names in part.galleries.values())
    assert (len(part.queries), lengths[15], sum(lengths.values())) == (1960, 1960 - (task == "change_object"), 1960)
    assert (first.reference, [*first.relevant]) == ("189213", ["153527"])
    assert first.captions == {"change_object": ("wall",), "focus_object": ("cardboard",)}[task]
    assert part.galleries["0"][:3] == ("153527", "121506", "536947")
    raw = json.loads((annotations / "genecis" / f"{task}.json").read_text())[-1]
    assert (last.reference, last.captions) == (str(raw["reference"]["val_image_id"]), (raw["condition"],))
    assert len(part.missing_images) == len({*part.gallery, *(query.reference for query in part.queries)})


def test_four_tasks_and_their_mean(tmp_path):
    parts = load_benchmarks("genecis", make(tmp_path))
    assert [part.part for part in parts] == ["focus-attribute", "change-attribute", "focus-object", "change-object"]
    assert all(not part.missing_images and part.galleries["1"] == tuple(part.galleries["1"]) for part in parts)
    assert load_benchmark("genecis/change-object", tmp_path).queries == parts[3].queries


def test_a_query_ranks_its_own_gallery(tmp_path):
    """Everything else is nearer than the query's three pictures, and none of it is ranked."""
    part = load_benchmark("genecis/change-object", make(tmp_path))
    features = torch.eye(len(part.gallery))
    places = {name: i for i, name in enumerate(part.gallery)}
    queries = torch.full((4, len(part.gallery)), 0.9)
    for i, query in enumerate(part.queries):
        for place, name in enumerate(part.galleries[query.id]):
            queries[i, places[name]] = (0.2, 0.1, 0.3)[place] if i else (0.3, 0.2, 0.1)[place]
    ranking = rank(part, part.queries, queries, gallery=Gallery(part.gallery, features))
    assert ranking.ids[0] == part.galleries["0"]
    target, first, second = part.galleries["1"]
    assert ranking.ids[1] == (second, target, first)
    assert ranking.target_ranks == (1, 2, 2, 2)
    scores = evaluate(part, ranking).scores[""]
    assert scores == {"recall@1": 25.0, "recall@2": 100.0, "recall@3": 100.0}


def test_a_box_is_cropped_as_published():
    """A 20 x 10 box at (10, 10) of 60 x 40: from (0, 3) to (34, 20), 34 x 17, and 34 x 34 with black."""
    pixels = np.arange(60 * 40, dtype=np.uint8).reshape(40, 60)
    made = crop(Image.fromarray(pixels), [10, 10, 20, 10])
    assert made.size == (34, 34)
    inside = np.asarray(made)[8:25]
    assert (inside == pixels[3:20, 0:34]).all()
    assert not np.asarray(made)[:8].any()


def test_galleries_of_several_lengths_are_told(tmp_path):
    make(tmp_path)
    path = tmp_path / "genecis/change_object.json"
    entries = json.loads(path.read_text())
    entries[2]["gallery"].pop()
    path.write_text(json.dumps(entries))
    part = load_benchmark("genecis/change-object", tmp_path)
    assert [query.id for query in part.queries] == ["0", "1", "2", "3"]
    assert part.protocol["gallery"].startswith("2 to 3 pictures")


def test_a_broken_picture_is_left_to_be_counted(tmp_path):
    home = make(tmp_path)
    (home / "VG_100K/6.jpg").write_bytes(b"no picture")
    part = load_benchmark("genecis/focus-attribute", home)
    assert part.images["6-10-10-20-10"] == home / "VG_100K/6.jpg"
    assert not part.missing_images


def test_crops_are_made_once_and_a_missing_picture_is_named(tmp_path):
    home = make(tmp_path)
    (home / "VG_100K/7.jpg").unlink()
    first, second = (load_benchmark("genecis/focus-attribute", home) for _ in range(2))
    assert first.images == second.images
    assert first.missing_images == ("7-10-10-20-10",)
    assert Image.open(first.images["6-10-10-20-10"]).size == (34, 34)


@pytest.mark.parametrize(
    "item", [{}, {"image_id": 1}, {"image_id": 1, "instance_bbox": [1, 2]}, 7, {"val_image_id": None}]
)
def test_what_is_no_picture_is_told_by_its_line(tmp_path, item):
    path = make(tmp_path) / "genecis/change_object.json"
    entries = json.loads(path.read_text())
    entries[1]["target"] = item
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=r"change_object\.json"):
        load_benchmark("genecis/change-object", tmp_path)


def test_a_root_without_it(tmp_path):
    with pytest.raises(NotFoundError, match="genecis"):
        load_benchmarks("genecis", tmp_path)
    assert "genecis" in registry.names("benchmarks")
