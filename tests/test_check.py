"""What a dataset is good for: counted on a tiny CIRR with a picture of each trouble."""

import json
import os
import shutil

import pytest

from cig import load_benchmark
from cig.check import check, picture_set, to_text
from cig.cli import main


@pytest.fixture
def home(world, tmp_path):
    """CIRR val as a copy that tests may spoil."""
    return shutil.copytree(world / "CIRR", tmp_path / "CIRR")


def test_a_whole_dataset(world):
    finding = check(load_benchmark("cirr/val", world))
    assert finding.whole
    assert to_text(finding) == (
        "cirr/val: 60 of 60 pictures are there and can be read; an evaluation would stand on 8 of 8 queries"
    )
    assert "8 of 8 queries can run" in to_text(check(load_benchmark("cirr/test1", world)))


def test_each_trouble_is_counted_and_named(home):
    entries = json.loads((home / "cirr/captions/cap.rc2.val.json").read_text())
    first, second = entries[0], entries[1]
    used = {name for entry in entries for name in (entry["reference"], entry["target_hard"])}
    spare = sorted({path.stem for path in (home / "dev").iterdir()} - used)[:2]
    (home / f"dev/{first['reference']}.png").unlink()
    (home / f"dev/{second['target_hard']}.png").write_bytes(b"<html>not found</html>")
    shutil.copy(home / f"dev/{spare[0]}.png", home / f"dev/{spare[1]}.png")
    finding = check(load_benchmark("cirr/val", home))
    assert finding.missing == (first["reference"],)
    assert list(finding.unreadable) == [second["target_hard"]]
    assert [sorted(names) for names in finding.same] == [spare]
    lost = {e["pairid"] for e in entries if e["reference"] in (first["reference"], second["target_hard"])}
    blind = {e["pairid"] for e in entries if e["target_hard"] in (first["reference"], second["target_hard"])}
    assert set(finding.no_reference) == set(map(str, lost))
    assert finding.evaluable == 8 - len(lost | blind)
    text = to_text(finding)
    assert "58 of 60 pictures" in text
    assert f"pictures missing: 1 ({first['reference']})" in text
    assert f"{second['target_hard']}.png: not a whole picture" in text
    assert "groups of pictures with the same content: 1 (" in text


@pytest.mark.parametrize("name", ["circo/val", "cirr/val"])
def test_the_picture_set_is_that_of_results(world, tmp_path, name):
    findings = [check(load_benchmark(name, world))]
    line = ["evaluate", name, "--dataset-path", world, "--method", "image", "--clip", world / "models/clip-small"]
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in [*line, "--json", tmp_path / "a.json"]])
    assert not done.value.code
    assert json.loads((tmp_path / "a.json").read_text())["provenance"]["picture_set"] == picture_set(findings)


def test_the_verb_exits_1_where_an_evaluation_would_be_incomplete(home, capsys):
    with pytest.raises(SystemExit) as done:
        main(["check", "cirr", "--dataset-path", str(home)])
    assert not done.value.code
    assert "picture set" in capsys.readouterr().out
    os.unlink(next((home / "dev").iterdir()))
    with pytest.raises(SystemExit) as done:
        main(["check", "cirr", "--dataset-path", str(home)])
    assert done.value.code == 1
    assert "incomplete: cirr/val" in capsys.readouterr().err
