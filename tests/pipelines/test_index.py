"""An index that stands by itself: built, brought up to date, verified; by the command line and from Python."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from PIL import Image, ImageDraw

import calls
import cig
from cig.errors import InputError, NotFoundError, UsageError

METHOD = "sum/icons"


@pytest.fixture
def run(capsys):
    return lambda *words: calls.run(capsys, *words)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path):
    """Twelve discs in two folders, and a table about eleven of them."""
    lines = ["name,price,colour"]
    for i in range(12):
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((4 + i, 8, 40 + i, 44), fill=(20 * i, 60, 250 - 20 * i))
        path = tmp_path / "photos" / ("red" if i > 5 else "blue") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        if i:
            lines.append(f"{path.parent.name}/{path.name},{i * 10},{path.parent.name}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "photos"


def names(index, **options):
    return [hit.name for hit in index.search(text="a red disc", **options)]


def test_from_the_shell(run, photos, tmp_path):
    build = "index", "build", "photos", "--out", "ix", "--device", "cpu"
    code, out, err = run(*build, "--method", METHOD, "--metadata", "table.csv")
    assert (code, "12 added" in out) == (0, True), err
    os.rename(photos / "red", photos / "crimson")
    (photos / "blue/00.png").unlink()
    shutil.copy(photos / "blue/01.png", photos / "blue/02.png")
    code, out, err = run(*build)
    assert (code, "6 added, 1 replaced, 7 removed, 4 as before" in out) == (0, True), out + err
    assert "7 were known by their content" in out
    code, out, err = run("index", "info", "ix", "--json")
    assert (code, json.loads(out)["pictures"], json.loads(out)["columns"]) == (0, 11, ["colour", "name", "price"]), err
    assert run("index", "verify", "ix")[0] == 0
    Image.new("RGB", (9, 9)).save(photos / "blue/03.png")
    (photos / "blue/04.png").unlink()
    code, out, err = run("index", "verify", "ix")
    assert (code, [line.partition(":")[0] for line in out.splitlines()]) == (1, ["blue/03.png", "blue/04.png"]), err
    assert "cig index build" in err
    assert "2 left" not in run("index", "remove", "ix", "blue/04.png")[1]
    Image.new("RGB", (9, 9), "green").save(tmp_path / "mine.png")
    code, out, err = run("index", "add", "ix", "mine.png", photos / "blue/03.png")
    assert (code, "1 added, 1 replaced" in out) == (0, True), out + err
    code, out, err = run("search", "ix", "--image", "mine.png", "--keep-reference", "-k", "1", "--device", "cpu")
    assert (code, out.split()[-1]) == (0, "mine.png"), err
    assert run(*build)[0] == 0
    assert cig.open("ix").get("mine.png"), "what was added from elsewhere stays"


@pytest.mark.parametrize(
    "words",
    [
        ("info", "nowhere"),
        ("add", "ix"),
        ("add", "ix", "nowhere.png"),
        ("remove", "ix", "nowhere.png"),
        ("build", "nowhere", "--out", "new", "--method", METHOD),
        ("build", "photos", "--out", "new", "--method", METHOD, "--store", "faiss"),
        ("build", "photos", "--out", "ix", "--method", "sum/icons", "--preprocess-type", "targetpad"),
        ("build", "elsewhere", "--out", "ix"),
    ],
)
def test_wrong_calls_exit_2(run, photos, tmp_path, words):
    shutil.copytree(photos, tmp_path / "elsewhere")
    assert run("index", "build", "photos", "--out", "ix", "--method", METHOD, "--device", "cpu")[0] == 0
    code, _, err = run("index", *words)
    assert (code, "Traceback" in err) == (2, False), err


def test_from_python(photos, tmp_path):
    index = cig.open(photos, METHOD, cache=tmp_path / "cache")
    hits = index.search(photos / "blue/00.png", "a red disc", k=3)
    assert "blue/00.png" not in [hit.name for hit in hits]
    by_picture = index.search(Image.open(photos / "blue/00.png"), "a red disc", k=4)
    assert [hit for hit in by_picture if hit.name != "blue/00.png"][:3] == hits
    assert hits[0].path == photos / hits[0].name
    assert repr(index) == f"<Index of {photos}: 12 pictures, by {METHOD}, in exact>"
    assert repr(hits[0]) == f"Hit({hits[0].name!r}, {hits[0].score:.3f})"
    assert hits._repr_html_().count("<img") == 3
    assert names(index, min_score=2.0) == []
    with pytest.raises(UsageError, match="price"):
        index.search(text="x", where="price<5")
    with pytest.raises(NotFoundError):
        cig.open(tmp_path / "nowhere")


@pytest.mark.parametrize("store", ["exact", "milvus:pictures.db"])
def test_metadata_filter_group_and_follow_their_table(photos, tmp_path, store, run):
    if "milvus" in store:
        pytest.importorskip("milvus_lite")
    build = "index", "build", "photos", "--out", "ix", "--device", "cpu", "--metadata", "table.csv"
    assert run(*build, "--method", METHOD, "--store", store)[0] == 0
    index = cig.open("ix")
    cheap = index.search(text="a red disc", where=["price<=40", "colour=blue"], k=9)
    assert sorted(hit.name for hit in cheap) == [f"blue/0{i}.png" for i in range(1, 5)]
    assert cheap[0].metadata["colour"] == "blue"
    first = index.search(text="a red disc", group_by="colour", k=9)
    assert [hit.metadata.get("colour") for hit in first if hit.metadata] in (["red", "blue"], ["blue", "red"])
    assert len(first) == 3, "a picture of which nothing is known is a group of its own"
    assert sum(len(hit.copies) for hit in first) == 9
    index.close()
    (tmp_path / "table.csv").write_text("name,price\nblue/01.png,7\n")
    assert run(*build)[0] == 0
    assert names(cig.open("ix"), where="price<8") == ["blue/01.png"]


def test_copies_fold(photos, tmp_path):
    for i in range(3):
        shutil.copy(photos / "red/11.png", photos / f"copy-{i}.png")
    index = cig.open(photos, METHOD)
    everything, folded = names(index, k=20), index.search(text="a red disc", k=20, fold_copies=True)
    assert len(folded) < len(everything) == 15
    (head,) = [hit for hit in folded if hit.name == "copy-0.png" or "copy-0.png" in hit.copies]
    assert {head.name, *head.copies} >= {"copy-0.png", "copy-1.png", "copy-2.png", "red/11.png"}


def test_an_index_of_another_version_is_told(photos, tmp_path, run):
    assert run("index", "build", "photos", "--out", "ix", "--method", METHOD, "--device", "cpu")[0] == 0
    assert names(cig.open("ix", "text/icons")), "the same pictures by the same CLIP: its features serve"
    (tmp_path / "ix/index.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match=r"index\.json"):
        cig.open("ix")


@pytest.mark.slow
def test_a_build_that_was_killed_goes_on(photos, tmp_path, run):
    """A kill at any time: the rerun's index answers as one that was never stopped."""
    for i in range(60):
        picture = Image.new("RGB", (32, 32), (i * 4, 200 - i * 3, 30))
        picture.save(photos / f"{i:02}.png")
    build = [sys.executable, "-m", "cig", "index", "build", "photos", "--method", METHOD, "--device", "cpu"]
    chunks = "import cig.pipelines._index_build as b; b.CHUNK = 4; from cig.cli.main import main; main()"
    stopped = [sys.executable, "-c", chunks, *build[3:], "--out", "ix"]
    for wait in (0.1, 0.4, 0.8):
        process = subprocess.Popen(stopped, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (tmp_path / "ix/rows.sqlite").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        time.sleep(wait)
        process.kill()
        process.wait()
    subprocess.run([*stopped], check=True, capture_output=True)
    assert run("index", "build", "photos", "--out", "whole", "--method", METHOD, "--device", "cpu")[0] == 0
    one, other = cig.open("ix"), cig.open("whole")
    assert len(one) == 72
    assert one.search(text="a red disc", k=72) == other.search(text="a red disc", k=72)
    assert one.verify() == []
