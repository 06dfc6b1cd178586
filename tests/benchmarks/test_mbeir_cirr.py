"""M-BEIR's CIRR and FashionIQ on files of the release's form."""

import json

import pytest
from PIL import Image

from cig import load_benchmark
from cig.errors import InputError


def make(home, dataset="cirr"):
    """Four queries over 12 pictures: i asks for i + 1."""
    names = [f"mbeir_images/{dataset}_images/dev/{i}.jpg" for i in range(12)]
    for i, name in enumerate(names):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(home / name)
    pool = [{"did": f"7:{i}", "img_path": name, "modality": "image", "txt": None} for i, name in enumerate(names)]
    queries = [
        {
            "qid": f"7:{100 + i}",
            "query_txt": f"thing {i}",
            "query_img_path": names[i],
            "query_modality": "image,text",
            "pos_cand_list": [f"7:{i + 1}"],
            "neg_cand_list": [],
        }
        for i in range(4)
    ]
    for path, rows in (
        (f"cand_pool/local/mbeir_{dataset}_task7_cand_pool.jsonl", pool),
        (f"query/test/mbeir_{dataset}_task7_test.jsonl", queries),
    ):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


@pytest.mark.parametrize("dataset", ["cirr", "fashioniq"])
def test_queries_and_pool(tmp_path, dataset):
    part = load_benchmark(f"mbeir-{dataset}/val", make(tmp_path, dataset))
    first = part.queries[0]
    folder = f"mbeir_images/{dataset}_images/dev"
    assert (first.id, first.reference, dict(first.relevant)) == ("7-100", f"{folder}/0.jpg", {f"{folder}/1.jpg": 2})
    assert (part.name, len(part.gallery), part.measures[0]) == (f"mbeir-{dataset}/val", 12, "ndcg@10")
    assert not part.drop_reference
    assert "not" in part.protocol["benchmark"]


@pytest.mark.parametrize(
    "change",
    [{"query_txt": None}, {"pos_cand_list": ["7:99"]}, {"query_img_path": "../x.jpg"}, {"qid": ["7"]}],
)
def test_a_query_of_another_form(tmp_path, change):
    path = make(tmp_path) / "query/test/mbeir_cirr_task7_test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | (change if i == 2 else {})) + "\n" for i, row in enumerate(rows)))
    with pytest.raises(InputError):
        load_benchmark("mbeir-cirr", tmp_path)


def test_a_missing_picture_is_named(tmp_path):
    name = "mbeir_images/cirr_images/dev/5.jpg"
    (make(tmp_path) / name).unlink()
    assert load_benchmark("mbeir-cirr", tmp_path).missing_images == (name,)
