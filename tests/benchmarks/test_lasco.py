"""LaSCo: hand-made files in the form of its README; the corpus is pinned where the repository is at hand."""

import json

import pytest
from PIL import Image

from cig import load_benchmark
from cig.benchmarks.lasco import image_id
from cig.errors import InputError, NotFoundError


def path_of(i):
    return f"val2014/COCO_val2014_{i:012d}.jpg"


def make(home):
    """Four queries over 12 pictures: i asks for i + 1."""
    (home / "val2014").mkdir(parents=True)
    for i in range(12):
        Image.linear_gradient("L").resize((64, 40 + i)).convert("RGB").save(home / path_of(i))
    entries = [
        {
            "qid": 28714000,
            "query-image": [i, path_of(i)],
            "query-text": f"thing {i}",
            "target-image": [i + 1, path_of(i + 1)],
        }
        for i in range(4)
    ]
    (home / "lasco_val.json").write_text(json.dumps(entries))
    corpus = [{"id": i, "path": f"val/{path_of(i)}"} for i in range(12)]
    (home / "lasco_val_corpus.json").write_text(json.dumps(corpus))
    return home


def test_queries_and_gallery(tmp_path):
    part = load_benchmark("lasco/val", make(tmp_path))
    first = part.queries[0]
    assert (first.reference, first.captions, dict(first.relevant)) == ("0", ("thing 0",), {"1": 2})
    assert (part.gallery[0], part.gallery[-1]) == ("0", "11")
    assert [query.id for query in part.queries] == ["0", "1", "2", "3"], "question ids may repeat"
    assert part.images["11"] == tmp_path / path_of(11)


def test_annotations_as_in_the_repository(tmp_path):
    make(tmp_path)
    (tmp_path / "downloads").mkdir()
    for name in ("lasco_val.json", "lasco_val_corpus.json"):
        (tmp_path / name).rename(tmp_path / "downloads" / name)
    (tmp_path / path_of(3)).unlink()
    assert load_benchmark("lasco/val", tmp_path).missing_images == ("3",)


@pytest.mark.parametrize("change", [{"query-image": 7}, {"target-image": []}, {"query-text": None}])
def test_an_entry_of_another_form(tmp_path, change):
    path = make(tmp_path) / "lasco_val.json"
    entries = json.loads(path.read_text())
    entries[2] |= change
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=r"lasco_val\.json"):
        load_benchmark("lasco/val", tmp_path)


def test_names_of_pictures_and_no_dataset(tmp_path):
    assert [image_id(stem) for stem in ("COCO_val2014_000000000042", "42", "a_b", "²")] == ["42", "42", "", ""]
    with pytest.raises(NotFoundError, match="lasco"):
        load_benchmark("lasco/val", tmp_path)
