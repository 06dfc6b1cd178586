"""What a benchmark is made of: a toy counted by hand, the real annotations by known numbers."""

import json
import os
import random
import shutil

import pytest
from PIL import Image

import tiny
from cig import load_benchmarks
from cig.benchmarks._describe import stats, to_json, to_text
from cig.cli.main import main
from cig.types import Benchmark, Query


def bench(queries, images, gallery="abcdef"):
    return Benchmark("toy/val", tuple(queries), images, tuple(gallery), ("recall@1",), False, 0.5, "made up")


QUERIES = (
    Query("0", "a", ("is red", "is Red "), {"b": 2}),
    Query("1", "a", ("costs $5",), {"b": 2, "a": 1}),
    Query("2", "c", ("with a dog",), {"d": 2}),
    Query("3", "c", ("with a dog",), {"z": 2}),
    Query("4", "d", ("", "and " * 80), {"b": 2}),
)


def test_a_toy_by_hand():
    part = stats(bench(QUERIES, {}), ["it is a toy"], pictures=False)
    assert (part.queries, part.captions, part.references, part.targets) == (5, 7, 3, 3)
    assert (part.repeated, part.most_repeated) == (4, ("a", 2))
    assert (part.gallery, part.unnamed) == (6, 2), "e and f are named by no query"
    assert part.spreads["words a caption"] == (0, 2, 2, 3, 80)
    assert part.spreads["tokens a caption"] == (0, 2, 3, 3, 80), "costs, $ and 5 are three tokens"
    assert part.spreads["correct pictures a query"] == (1, 1, 1, 1, 2)
    assert (part.prompts, part.cut) == (7, 2), "both orders of the last query's captions"
    assert part.spreads["tokens a prompt"][0] == 10, "start, a photo of $ that, three words, end"
    assert {finding.kind: list(finding.items) for finding in part.oddities} == {
        "overflow": ["4"],
        "no words": ["4"],
        "same captions": ["0"],
        "asked again": ["2", "3"],
        "word": ["1"],
        "own target": ["1"],
        "outside": ["3"],
    }
    lines = to_text(part).splitlines()
    assert lines[2] == "  references  3 distinct; 4 queries share theirs with another, 2 of them a"
    assert "  prompts     7, 2 of them over 77 tokens (a photo of $ that {caption})" in lines
    assert lines[-1] == "  known: it is a toy"


def test_near_duplicates_are_found_among_the_pictures_that_are_there(tmp_path):
    rng = random.Random(0)
    for name in "abc":
        tiny.draw(rng, tmp_path / f"{name}.jpg")
    drawing = Image.open(tmp_path / "b.jpg")
    drawing.resize((drawing.width // 2, drawing.height // 2)).save(tmp_path / "d.jpg", quality=90)
    Image.new("RGB", (90, 80), "white").save(tmp_path / "e.jpg")
    (tmp_path / "f.jpg").write_bytes(b"")
    images = {path.stem: path for path in tmp_path.iterdir()}
    near = stats(bench(QUERIES, images, "abcdefg")).near
    assert (near.hashed, near.blank, near.unreadable, near.bits) == (4, 1, 1, 4)
    assert near.pictures == {"b": "d", "d": "b"}
    assert near.queries == 4, "all but the one whose target is z"
    assert to_text(stats(bench(QUERIES, images, "abcdefg"))).splitlines()[-1] == (
        "  near-duplicates: 2 of 4 pictures hashed (dHash, at most 4 of 64 bits apart, 1 of one colour left out, "
        "1 unreadable left out), among them the targets of 4 queries; b ~ d, d ~ b"
    )


def test_captions_of_strangers_do_nothing_to_a_terminal():
    part = stats(bench([Query("0", "a", ("\x1b[2J$ \ud800" + "x" * 1000,), {"b": 2})], {}), pictures=False)
    shown = to_text(part)
    assert "0: ?[2J$ ?xxx" in shown
    assert max(map(len, shown.splitlines())) < 300
    json.dumps(to_json(part))


@pytest.mark.parametrize("name", ["fashioniq/val", "cirr/test1", "circo/val", "folder/val"])
def test_the_verb(world, tmp_path, capsys, name):
    line = ["stats", name, "--json", str(tmp_path / "a.json")]
    below = [] if name != "folder/val" else ["shop"]
    with pytest.raises(SystemExit) as done:
        main([*line, "--dataset-path", str(world.joinpath(*below))])
    assert not done.value.code
    shown, written = capsys.readouterr().out, json.loads((tmp_path / "a.json").read_text())
    assert list(written) == (["dress", "shirt", "toptee"] if "fashioniq" in name else [""])
    for facts in written.values():
        assert facts["title"] in shown
        assert (facts["queries"], facts["gallery"], facts["near"]["hashed"]) == (8, 60, 60)
        assert facts["spreads"]["words a caption"].keys() == {"least", "25%", "median", "75%", "most"}


def test_a_gallery_whose_list_is_missing_has_no_size(world, tmp_path, capsys):
    home, name = shutil.copytree(world / "CIRCO", tmp_path / "CIRCO"), "image_info_unlabeled2017.json"
    path = home / "COCO2017_unlabeled/annotations" / name
    path.unlink()
    entry = json.loads((home / "annotations/val.json").read_text())[0]
    os.unlink(home / f"COCO2017_unlabeled/unlabeled2017/{entry['target_img_id']:012d}.jpg")
    with pytest.raises(SystemExit) as done:
        main(["stats", "circo", "--dataset-path", str(home), "--json", str(tmp_path / "a.json")])
    shown, facts = capsys.readouterr(), json.loads((tmp_path / "a.json").read_text())[""]
    assert done.value.code == 1
    assert f"  gallery     not known: its list {path} is not there" in shown.out.splitlines()
    assert f"for lack of {path}. To get it: cig download circo --dataset-path {home}" in shown.err
    assert (facts["gallery"], facts["unnamed"], facts["missing_list"]) == (None, None, str(path))
    assert "outside" not in {finding["kind"] for finding in facts["oddities"]}, "nobody knows what the gallery lists"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "words", "cut"),
    [
        ("fashioniq/val", (2017, 1331, 2017, 3817), (1, 4, 5, 6, 18), 0),
        ("cirr/val", (4181, 2165, 2206, 2297), (2, 8, 10, 14, 47), 0),
        ("circo/val", (220, 220, 220, None), (3, 8, 10, 13, 23), 0),
    ],
)
def test_the_real_annotations(annotations, name, sizes, words, cut):
    """Of FashionIQ, dress. CIRCO's gallery is COCO's list, which is not among them."""
    part = stats(load_benchmarks(name, annotations)[0], pictures=False)
    assert (part.queries, part.references, part.targets, part.gallery) == sizes
    assert part.spreads["words a caption"] == words
    assert part.cut == cut


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("fashioniq/val", {"no words": 1, "same captions": 11, "asked again": 2}),
        ("cirr/test1", {"no words": 1, "asked again": 8}),
    ],
)
def test_the_oddities_of_the_real_annotations(annotations, name, counts):
    """Of FashionIQ, shirt."""
    parts = {part.part: part for part in load_benchmarks(name, annotations)}
    part = stats(parts.get("shirt") or parts[""], pictures=False)
    assert {finding.kind: finding.count for finding in part.oddities} == counts
