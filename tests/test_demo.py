"""The demo, on a few queries of icons/val: its table, its page, one free search."""

import json

import pytest

from cig import cli, demo
from cig.benchmarks import load_benchmark
from cig.errors import NotFoundError
from cig.options import Compute


@pytest.fixture(scope="module", autouse=True)
def _few(few_icons):
    """Twelve queries are enough for all of them."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(out):
    return demo.run(out, compute=Compute(device="cpu"))


def test_the_table(shown, out, capsys):
    lines = demo.table(shown)
    assert [line.split()[0] for line in lines[1:]] == [*demo.BASELINES, *demo.INVERSIONS]
    assert lines[0].split()[:4] == ["method", "map@10", "recall@1", "recall@10"]
    assert all(line.count("[") == 3 for line in lines[1:])
    scores = json.loads((out / "scores.json").read_text())
    assert [own["method"] for own in scores] == [*demo.BASELINES, *demo.INVERSIONS]
    assert scores[0]["counts"][""]["queries"] == 12
    assert "val-00003" in (out / "report.html").read_text()


def test_the_table_is_the_same_again_and_in_other_batches(shown, tmp_path):
    again = demo.run(tmp_path, compute=Compute(device="cpu", batch_size=7))
    assert demo.table(again) == demo.table(shown)


def test_one_search(out, tmp_path, capsys):
    page = demo.ask("folder", "with a lock badge, filled", tmp_path, k=3, compute=Compute(device="cpu"))
    found = capsys.readouterr().out
    assert found.count("tabler/") + found.count("fluent/") == 3
    assert "with a lock badge, filled" in page.read_text()


def test_which_icon_is_meant():
    part = load_benchmark("icons/val", limit=1)
    folder = next(name for name in part.gallery if name.startswith("tabler/folder."))
    for name in ("folder", "Tabler/Folder", folder, folder.removesuffix(".png")):
        assert demo.reference(name, part) == folder
    with pytest.raises(NotFoundError, match=r'no icon "foldr" among the \d+ of icons/val; there are folder'):
        demo.reference("foldr", part)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--query", "folder"], "--text"),
        (["--text", "in red"], "--query"),
        (["--query", "folder", "--text", "a", "-k", "0"], "-k 0"),
    ],
)
def test_half_a_question_is_a_wrong_call(flags, named, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", *flags])
    assert stop.value.code == 2
    assert named in capsys.readouterr().err
