"""The doctor: what a dataset is good for, counted on tiny and real annotations with a picture of each trouble."""

import json
import os
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from cig import evaluate, load_benchmark, load_benchmarks, search
from cig.benchmarks._check import check, picture_set, to_json, to_text
from cig.cli.main import main
from cig.evaluation import html as page
from cig.evaluation import report


@pytest.fixture
def home(world, tmp_path):
    """CIRR val as a copy that tests may spoil."""
    return shutil.copytree(world / "CIRR", tmp_path / "CIRR")


def problems(checkup):
    """kind -> the names"""
    return {finding.kind: sorted(finding.items) for finding in checkup.findings}


def run(*words):
    """The exit code."""
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    return done.value.code or 0


def test_a_whole_dataset(world):
    checkup = check(load_benchmark("cirr/val", world))
    assert checkup.whole
    assert to_text(checkup) == (
        "cirr/val: 60 of 60 pictures are there and can be read; an evaluation would stand on 8 of 8 queries"
    )
    assert "8 of 8 queries can run" in to_text(check(load_benchmark("cirr/test1", world)))


def test_each_trouble_is_counted_named_and_mended(home):
    entries = json.loads((home / "cirr/captions/cap.rc2.val.json").read_text())
    first, second = entries[0], entries[1]
    used = {name for entry in entries for name in (entry["reference"], entry["target_hard"])}
    spare = sorted({path.stem for path in (home / "dev").iterdir()} - used)[:7]
    one, two, cut, empty, note, pixel, grey = (home / f"dev/{name}.png" for name in spare)
    (home / f"dev/{first['reference']}.png").unlink()
    (home / f"dev/{second['target_hard']}.png").write_bytes(b"<html>not found</html>")
    shutil.copy(one, two)
    cut.write_bytes(cut.read_bytes()[:100])
    empty.write_bytes(b"")
    note.write_bytes(b"see the other folder")
    Image.new("RGB", (1, 1)).save(pixel)
    Image.new("RGB", (30, 20), "grey").save(grey)
    checkup = check(load_benchmark("cirr/val", home), mend="cig download cirr --from-dir DIR")
    lost = [e["pairid"] for e in entries if e["reference"] in (first["reference"], second["target_hard"])]
    blind = [e["pairid"] for e in entries if e["target_hard"] in (first["reference"], second["target_hard"])]
    assert problems(checkup) == {
        "missing": [first["reference"]],
        "web page": [second["target_hard"]],
        "damaged": [cut.stem],
        "empty": [empty.stem],
        "no picture": [note.stem],
        "tiny": [pixel.stem],
        "one colour": [grey.stem],
        "no reference": sorted(map(str, lost)),
        "no target": sorted(map(str, blind)),
        "same": [f"{one.stem} = {two.stem}"] if one.stem < two.stem else [f"{two.stem} = {one.stem}"],
    }
    assert checkup.evaluable == 8 - len({*lost, *blind})
    assert not checkup.whole
    assert checkup.missing == (first["reference"],)
    assert sorted(checkup.unreadable) == sorted([second["target_hard"], cut.stem, empty.stem, note.stem])
    lines = to_text(checkup).splitlines()
    assert "55 of 60 pictures are there" in lines[0]
    assert lines[1] == f"  pictures missing: 1 ({first['reference']})"
    assert lines[2] == "    -> cig download cirr --from-dir DIR"
    page = second["target_hard"]
    assert f"  web pages saved as pictures: 1 ({page}: {home}/dev/{page}.png)" in lines
    assert lines.count("    -> remove these files, then cig download cirr --from-dir DIR") == 1


def test_placeholders_and_copies_leave_an_evaluation_complete(home):
    for name in ("dev-0-0-img0", "dev-1-0-img1"):
        Image.new("RGB", (300, 300), "white").save(home / f"dev/{name}.png")
    checkup = check(load_benchmark("cirr/val", home))
    assert checkup.whole
    assert problems(checkup) == {
        "one colour": ["dev-0-0-img0", "dev-1-0-img1"],
        "same": ["dev-0-0-img0 = dev-1-0-img1"],
    }


def test_a_target_that_the_gallery_does_not_list_cannot_be_found(world, tmp_path):
    shop = shutil.copytree(world / "shop", tmp_path / "shop")
    rows = json.loads((shop / "queries.json").read_text())
    names = sorted(path.relative_to(shop).as_posix() for path in shop.rglob("*.jpg"))
    (shop / "gallery.txt").write_text("\n".join(name for name in names if name != rows[0]["target"]))
    checkup = check(load_benchmark("folder/val", shop))
    (finding,) = checkup.findings
    assert (finding.kind, finding.items) == ("not listed", dict.fromkeys(["0", "3"], "shirts/no 3.jpg"))
    assert "cig download" not in finding.mend


def test_without_decoding_names_alone_count(home):
    for path in sorted((home / "dev").iterdir())[:2]:
        path.write_bytes(b"")
    (home / "dev/dev-9-0-img1.png").unlink()
    checkup = check(load_benchmark("cirr/val", home), decode=False)
    assert (checkup.readable, checkup.missing, checkup.unreadable) == (59, ("dev-9-0-img1",), {})
    assert picture_set([checkup]) == picture_set([])


def test_examples_are_three_and_fit_for_a_terminal(home):
    for path in sorted((home / "dev").iterdir())[:5]:
        path.unlink()
    (home / "dev/dev-9-0-img1.png").write_bytes(b"\x1b[2J")
    checkup = check(load_benchmark("cirr/val", home))
    missing = checkup.findings[0]
    assert (missing.count, len(missing.examples)) == (5, 3)
    assert " and 2 more)" in to_text(checkup).splitlines()[1]
    assert len(to_json([checkup])["parts"][""]["findings"][0]["found"]) == 5


@pytest.mark.parametrize("name", ["circo/val", "cirr/val"])
def test_the_picture_set_is_that_of_results(world, tmp_path, name):
    checkups = [check(load_benchmark(name, world))]
    line = ["evaluate", name, "--dataset-path", world, "--method", "image", "--clip", world / "models/clip-small"]
    assert run(*line, "--json", tmp_path / "a.json") == 0
    assert json.loads((tmp_path / "a.json").read_text())["provenance"]["picture_set"] == picture_set(checkups)


def test_the_verb_exits_1_where_an_evaluation_would_be_incomplete(home, tmp_path, capsys):
    line = ["check", "cirr", "--dataset-path", home, "--json", tmp_path / "a.json"]
    assert run(*line) == 0
    assert "picture set" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["whole"]
    os.unlink(next((home / "dev").iterdir()))
    assert run(*line) == 1
    shown = capsys.readouterr()
    assert "incomplete: cirr/val" in shown.err
    assert f"    -> cig download cirr/val --from-dir DIR --dataset-path {home}" in shown.out
    assert not json.loads((tmp_path / "a.json").read_text())["whole"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("fashioniq/val", "cig download fashioniq --categories dress --splits val --dataset-path"),
        ("circo/test", "cig download circo --dataset-path"),
        ("folder/val", "put the pictures into the dataset's folder as its release does"),
    ],
)
def test_what_mends_is_said_for_each_dataset(world, tmp_path, capsys, name, command):
    home = {"fashioniq": "FashionIQ", "circo": "CIRCO", "folder": "shop"}[name.split("/")[0]]
    home_copy = shutil.copytree(world / home, tmp_path / home)
    rows = [home_copy / "queries.json", *home_copy.rglob("captions/cap.dress.val.json"), *home_copy.rglob("test.json")]
    (entry, *_) = next(json.loads(path.read_text()) for path in rows if path.exists())
    reference = str(entry.get("candidate") or entry.get("reference") or f"{entry.get('reference_img_id'):012d}")
    os.unlink(
        next(path for path in home_copy.rglob("*.jpg") if path.stem == reference.split("/")[-1].removesuffix(".jpg"))
    )
    assert run("check", name, "--dataset-path", home_copy) == 1
    assert f"    -> {command}" in capsys.readouterr().out


# A gallery whose list is missing

LIST = "image_info_unlabeled2017.json"


@pytest.fixture
def unlisted(world, tmp_path):
    """The tiny CIRCO without COCO's list, and of its 60 pictures those that queries name."""
    home = shutil.copytree(world / "CIRCO", tmp_path / "CIRCO")
    named = check(load_benchmark("circo/val", home)).pictures
    os.unlink(home / f"COCO2017_unlabeled/annotations/{LIST}")
    parts = [load_benchmark(f"circo/{split}", home) for split in ("val", "test")]
    kept = {name for part in parts for query in part.queries for name in (query.reference, *query.relevant)}
    for name, path in parts[0].images.items():
        if name not in kept:
            path.unlink()
    assert 0 < len(kept) < named
    return home, len(kept)


@pytest.mark.parametrize(("split", "stand"), [("val", "8 of 8 queries"), ("test", "8 of 8 queries can run")])
def test_a_gallery_without_its_list_is_not_whole(unlisted, tmp_path, capsys, split, stand):
    home, kept = unlisted
    assert run("check", f"circo/{split}", "--dataset-path", home, "--json", tmp_path / "a.json") == 1
    shown = capsys.readouterr()
    head, finding, mend, _ = shown.out.splitlines()
    assert head.startswith(f"circo/{split}: {kept} of at least {kept} pictures are there and can be read")
    assert stand in head
    assert f": 1 ({LIST}: {home}/COCO2017_unlabeled/annotations/{LIST})"[:100] in finding
    assert mend == f"    -> cig download circo --dataset-path {home}"
    assert f"incomplete: circo/{split}" in shown.err
    written = json.loads((tmp_path / "a.json").read_text())
    (finding,) = written["parts"][""]["findings"]
    assert (written["whole"], written["parts"][""]["whole"], finding["kind"], finding["count"]) == (
        False,
        False,
        "no list",
        1,
    )
    assert finding["found"] == {LIST: f"{home}/COCO2017_unlabeled/annotations/{LIST}"}


@pytest.mark.slow
def test_results_on_a_gallery_without_its_list_say_so(world, unlisted, tmp_path, capsys):
    home, kept = unlisted
    out = {kind: tmp_path / f"a.{kind}" for kind in ("json", "html", "md")}
    line = ["evaluate", "circo", "--dataset-path", home, "--method", "image", "--clip", world / "models/clip-small"]
    assert run(*line, "--json", out["json"], "--report", out["html"], "--report", out["md"]) == 0
    shown, written = capsys.readouterr().out, json.loads(out["json"].read_text())
    warning = f"so that what was found was searched, and results compare with none: 1 ({LIST})"
    assert f"gallery present  {kept} / ?" in shown
    assert f"| gallery present | {kept} / ? |" in out["md"].read_text()
    assert f"8 / 8 queries, {kept} / ? pictures present" in out["html"].read_text()
    for text in (shown, out["html"].read_text(), out["md"].read_text()):
        assert warning in text
    assert written["missing"] == {"list": {"": [LIST]}}
    assert written["counts"][""] == {"queries": 8, "queries_present": 8, "gallery": None, "gallery_present": kept}
    line = ["submit", "circo", "--submission-name", "s", "--output-dir", tmp_path, *line[2:]]
    assert run(*line) == 0
    assert warning in capsys.readouterr().err
    assert run("validate-submission", tmp_path / "s.json", "--dataset-path", home) == 2
    assert f"{LIST} is not there" in capsys.readouterr().err
    line = ["compare", "circo/val", "--dataset-path", home, "--methods", "image", *line[-2:]]
    assert run(*line) == 0
    assert warning in capsys.readouterr().out


def test_nothing_but_annotations_lacks_the_list_too(world, unlisted, capsys):
    home, _ = unlisted
    shutil.rmtree(home / "COCO2017_unlabeled")
    clip = ["--clip", world / "models/clip-small"]
    assert run("evaluate", "circo", "--dataset-path", home, "--method", "image", *clip) == 2
    assert f"annotations/{LIST}); put the pictures into" in capsys.readouterr().err


# A FashionIQ of which 30% of the pictures are missing

LOST = (0, 3, 7)  # last digits of positions in the split file


def part_of(home, category):
    """(names that have a picture, queries that stand, names, queries without a reference, queries without a target)"""
    names = json.loads((home / f"image_splits/split.{category}.val.json").read_text())
    entries = json.loads((home / f"captions/cap.{category}.val.json").read_text())
    present = {name for i, name in enumerate(names) if i % 10 not in LOST}
    blind = [i for i, entry in enumerate(entries) if entry["candidate"] not in present]
    lost = [i for i, entry in enumerate(entries) if entry["target"] not in present]
    return present, len(entries) - len({*blind, *lost}), len(names), len(blind), len(lost)


def counts_in(checkup):
    return {finding.kind: finding.count for finding in checkup.findings if finding.kind != "same"}


@pytest.fixture
def partial(world, tmp_path):
    """The tiny FashionIQ without 18 of the 60 pictures of each category."""
    home = shutil.copytree(world / "FashionIQ", tmp_path / "FashionIQ")
    kept = {name for category in ("dress", "shirt", "toptee") for name in part_of(home, category)[0]}
    for path in (home / "images").iterdir():
        if path.stem not in kept:
            path.unlink()
    return home


def test_a_partial_dataset_is_counted_exactly(partial):
    for part in load_benchmarks("fashioniq/val", partial):
        present, stand, names, blind, lost = part_of(partial, part.part)
        checkup = check(part)
        assert (names, len(present), checkup.readable, checkup.evaluable) == (60, 42, 42, stand)
        wanted = {"missing": 18, "no reference": blind, "no target": lost}
        assert counts_in(checkup) == {kind: count for kind, count in wanted.items() if count}


def test_results_on_a_partial_dataset_say_how_much_of_it_was_there(world, partial, tmp_path, capsys):
    out = {kind: tmp_path / f"a.{kind}" for kind in ("json", "html", "md")}
    line = ["evaluate", "fashioniq", "--dataset-path", partial, "--method", "image", "--device", "cpu"]
    line += ["--clip", world / "models/clip-small", "--json", out["json"], "--report", out["html"]]
    assert run(*line, "--report", out["md"]) == 1
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    written = json.loads(out["json"].read_text())["counts"]
    html, markdown = out["html"].read_text(), out["md"].read_text().splitlines()
    for category in ("dress", "shirt", "toptee"):
        stand = part_of(partial, category)[1]
        counts = {"queries": 8, "queries_present": stand, "gallery": 60, "gallery_present": 42}
        assert written[category] == counts
        assert f"<b>{category}</b> {stand} / 8 queries, 42 / 60 pictures" in html
    stands = [f"{part_of(partial, category)[1]} / 8" for category in ("dress", "shirt", "toptee")]
    assert " ".join(rows["queries"].split()) == " ".join(["queries present", *stands])
    assert rows["gallery"].count("42 / 60") == 3
    assert f"| queries present | {' | '.join(stands)} |  |" in markdown
    assert "| gallery present | 42 / 60 | 42 / 60 | 42 / 60 |  |" in markdown


def test_pictures_known_by_their_features_are_present_without_a_file(home, tmp_path):
    names = sorted(path.stem for path in (home / "dev").iterdir())
    queries = [str(query.id) for query in load_benchmark("cirr/val", home).queries]
    rows = np.random.default_rng(0).normal(size=(len(names) + len(queries), 4))
    features, asks = rows[: len(names)], rows[len(names) :]
    np.savez(tmp_path / "f.npz", names=names, features=features, queries=queries, query_features=asks)
    shutil.rmtree(home / "dev")
    line = ["evaluate", "cirr", "--dataset-path", home, "--method", "precomputed", "--json", tmp_path / "a.json"]
    assert run(*line, "--method-option", f"features={tmp_path / 'f.npz'}") == 0
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["missing"] == {}
    assert written["counts"][""] == {"queries": 8, "queries_present": 8, "gallery": 60, "gallery_present": 60}


class Grey:
    """Features that take no model: 4 x 4 grey pixels."""

    name, identity, uses_picture = "grey", {"model": {"sha256": "0"}}, True

    @staticmethod
    def preprocess(image):
        return torch.tensor([float(value) for value in image.convert("L").resize((4, 4)).tobytes()])

    def embed_images(self, pixels):
        return pixels

    def embed_queries(self, image_features, captions):
        return torch.nn.functional.normalize(image_features, dim=-1)


@pytest.mark.slow
def test_the_real_fashioniq_with_drawn_pictures(annotations, tmp_path):
    """All of dress's annotations; seven of ten names have a picture."""
    home = tmp_path / "FashionIQ"
    shutil.copytree(annotations / "fashioniq", home, ignore=shutil.ignore_patterns("image_url", "*.test.json"))
    present, stand, _, blind, lost = part_of(home, "dress")
    (home / "images").mkdir()
    rng = random.Random(0)
    for name in sorted(present):
        Image.frombytes("RGB", (8, 8), rng.randbytes(192)).save(home / f"images/{name}.png", compress_level=0)
    (part,) = load_benchmarks("fashioniq/val", home, categories=["dress"])
    checkup, result = check(part), evaluate(part, search(part, Grey()))
    assert (checkup.pictures, checkup.readable, checkup.queries) == (3817, 2672, 2017)
    assert {finding.kind: finding.count for finding in checkup.findings} == {
        "missing": 1145,
        "no reference": blind,
        "no target": lost,
    }
    assert (checkup.evaluable, blind, lost) == (stand, 578, 603)
    assert result.counts == {
        "dress": {"queries": 2017, "queries_present": stand, "gallery": 3817, "gallery_present": 2672}
    }
    html = page.to_html(result, [], 0, method="grey", branches=[], provenance={})
    assert f"{stand:,} / 2,017 queries, 2,672 / 3,817 pictures" in html
    for text in (report.to_text(result), report.to_markdown(result, "grey", [], provenance={})):
        assert f"{stand:,} / 2,017" in text
        assert "2,672 / 3,817" in text


def test_pictures_in_a_form_that_is_not_read_are_to_be_converted(home):
    entries = json.loads((home / "cirr/captions/cap.rc2.val.json").read_text())
    name = entries[0]["reference"]
    (home / f"dev/{name}.png").rename(home / f"dev/{name}.HEIC")
    checkup = check(load_benchmark("cirr/val", home), mend="bring them")
    found = problems(checkup)
    assert (found["form"], "missing" in found, checkup.whole) == ([name], False, False)
    assert found["passed over"] == ["1 .heic: HEIC is not read; convert these files to .jpg"]
    assert {finding.mend for finding in checkup.findings if finding.kind in ("form", "no reference")} == {
        "convert these files to .jpg or .png, and keep their names"
    }
    assert "bring them" not in to_text(checkup)
