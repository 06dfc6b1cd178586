"""The demo, on a few queries of icons/val: its table, its page, one free search."""

import json
import re

import pytest
from PIL import Image

from cig.benchmarks import load_benchmark
from cig.cli import main
from cig.cli.search import demo as demo_command
from cig.errors import NotFoundError
from cig.io.feature_cache import FeatureCache
from cig.io.manifest import Manifest
from cig.pipelines import demo
from cig.runtime import Compute


@pytest.fixture(scope="module", autouse=True)
def _few(few_icons):
    """Twelve queries are enough for all of them."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(out):
    return demo.run(out, compute=Compute(device="cpu"))


def test_the_table(shown, out):
    lines = demo.table(shown)
    assert [re.split(r"\s{2,}", line)[0] for line in lines[1:]] == [row.name for row in demo.ROWS]
    assert lines[0].split()[:4] == ["method", "map@10", "recall@1", "recall@10"]
    assert all(line.count("[") == 3 for line in lines[1:])
    scores = json.loads((out / "scores.json").read_text())
    assert [own["method"] for own in scores] == [row.method for row in demo.ROWS]
    assert [[own["name"] for own in one["branches"]] for one in scores[-3:]] == [
        ["reference", "reference-image"],
        ["reference", "pseudo-target"],
        ["reference", "reference-image", "pseudo-target"],
    ]
    assert scores[0]["counts"][""]["queries"] == 12


def test_the_page_shows_what_was_imagined(shown, out):
    page = (out / "report.html").read_text()
    assert "val-00003" in page
    shown_of = re.findall(r'<img [^>]*alt="Pseudo-target of query (val-\d{5})"', page)
    assert sorted(set(shown_of)) == [f"val-{number:05d}" for number in range(12)]
    drawn = sorted((out / "pseudo-targets").glob("*.png"))
    assert len(drawn) == 12
    assert {Image.open(path).size for path in drawn} == {(64, 64)}


@pytest.mark.slow
def test_the_table_is_the_same_again_and_in_other_batches(shown, tmp_path):
    again = demo.run(tmp_path, compute=Compute(device="cpu", batch_size=7))
    assert demo.table(again) == demo.table(shown)


@pytest.mark.slow
def test_pictures_of_an_earlier_release_are_put_aside(tmp_path, capsys):
    part, pictures = load_benchmark("icons/val", limit=2), tmp_path / "pseudo-targets"
    for earlier in (1, 2):
        Manifest(pictures, {"models": {"release": earlier}}, overwrite=True).add({"id": "val-00000"})
        demo._imagine((part,), pictures, Compute(device="cpu"), cache=FeatureCache())
        assert len([*pictures.glob("*.png")]) == 2
        assert f"are in {pictures}-{earlier} now" in capsys.readouterr().err
        assert Manifest.read(tmp_path / f"pseudo-targets-{earlier}").keys() >= {"val-00000"}


def test_one_search(out, tmp_path, capsys):
    answer = demo.ask("folder", "has a plus badge", tmp_path, k=3, compute=Compute(device="cpu"))
    assert len(answer.hits) == 3
    assert any(hit.name.startswith("tabler/folder-plus.") for hit in answer.hits)
    assert "has a plus badge" in (tmp_path / "query.html").read_text()


def test_which_icon_is_meant():
    part = load_benchmark("icons/val", limit=1)
    folder = next(name for name in part.gallery if name.startswith("tabler/folder."))
    for name in ("folder", "Tabler/Folder", folder, folder.removesuffix(".png"), "folder.orange"):
        assert demo.reference(name, part) == folder
    for name in ("foldr", "tabler/foldr", "tabler/foldr.red"):
        with pytest.raises(NotFoundError, match=rf'no icon "{name}" among the \d+ of icons/val; there are folder'):
            demo.reference(name, part)


def test_an_icon_in_another_ink():
    part = load_benchmark("icons/val", limit=1)
    for name in ("tabler/folder.red", "folder.red", "Folder.Red.png"):
        with pytest.raises(NotFoundError, match=r"folder is there in orange: --query tabler/folder\.orange$"):
            demo.reference(name, part)
    with pytest.raises(NotFoundError, match=r"is there in orange, pink: --query tabler/folder-plus\.orange$"):
        demo.reference("tabler/folder-plus.red", part)


def test_the_examples_of_the_help_are_there():
    part = load_benchmark("icons/val", limit=1)
    listed = re.search(r"An icon to start from: (.*)\.\n", demo_command.__doc__).group(1).split(", ")
    told = re.findall(r'"([^"]+)"', re.search(r"name: an icon, (.*)\.\n", demo.ask.__doc__).group(1))
    assert len(listed) == len(told) == 3
    assert {demo.reference(name, part) for name in (*listed, *told)} == {"tabler/folder.orange.png"}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--query", "folder"], "--text"),
        (["--query", "folder", "--text", " "], "--text"),
        (["--query", "folder", "--text", ""], "--text"),
        (["--text", "in red"], "--query"),
        (["--text", ""], "--query"),
        (["--query", " ", "--text", "in red"], "--query"),
        (["--query", "folder", "--text", "a", "-k", "0"], "-k 0"),
    ],
)
def test_half_a_question_is_a_wrong_call(flags, named, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["demo", *flags])
    assert stop.value.code == 2
    assert named in capsys.readouterr().err
