"""Settings of cig.toml and the environment apply where they fit the call; where they do not, the call says so."""

import json
from pathlib import Path

import pytest

from calls import run
from searchers import source_of

pytestmark = pytest.mark.slow  # together they take long

FULL = """
[search]
clip = "{models}/clip-small"
phi = "{models}/phi-small.pt"
method_option = "t=0.5"
fusion_weight = 0.5
[generate]
offload = "model"
[compute]
device = "cpu"
"""


def in_force(capsys, *words):
    """(name -> (value, where from) as `cig config` shows it, stderr)"""
    code, out, err = run(capsys, "config", *words)
    assert code == 0, err
    return {line.split()[0]: tuple(line.split(maxsplit=2)[1:]) for line in out.splitlines()}, err


def unused(capsys, *words):
    shown, err = in_force(capsys, *words)
    names = {name for name, (_, source) in shown.items() if "not used" in source}
    assert {line.split(": ")[1].split(" = ")[0] for line in err.splitlines()} == names, "each is said, too"
    return {name.partition(".")[2] for name in names}


@pytest.fixture
def project(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        Path("cig.toml").write_text(text.format(models=world / "models"))

    return write


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", {"method_option"}),
        ("--method image", {"phi", "method_option"}),
        ("--method slerp", {"phi"}),
        ("--method caption", {"phi", "method_option"}),
        ("--method precomputed", {"clip", "phi", "method_option"}),
        ("--method oti", {"phi", "method_option"}),
        ("--method lincir", {"method_option"}),
        ("--method pic2word", {"clip", "phi", "method_option"}),
        ("--method searle/l14", {"clip", "phi", "method_option"}),
        ("--method image/b32", {"clip", "phi", "method_option"}),
        ("--method pic2word --phi mine.pt", {"method_option"}),
        ("--method image --clip other --method-option t=1", {"phi"}),
        ("--method imgae", set()),
    ],
)
def test_weights_and_options_of_the_file_are_the_methods_that_take_them(project, capsys, flags, expected):
    project(FULL)
    targets = "--generated-image-dir", "g"
    assert unused(capsys, "evaluate", "cirr/val", *targets, *flags.split()) == expected
    assert unused(capsys, "evaluate", "cirr/val", *flags.split()) == {*expected, "fusion_weight"}


def test_an_option_of_no_method_is_still_a_wrong_call(project, capsys):
    project('[search]\nmethod = "slerp"\nmethod_option = "tt=0.5"\n')
    code, _, err = run(capsys, "evaluate", "cirr/val", "--dataset-path", "none")
    assert (code, '"tt"' in err) == (2, True), err


def test_the_environment_is_told_by_its_name(project, monkeypatch, capsys):
    monkeypatch.setenv("CIG_SEARCH_PHI", "p.pt")
    _, err = in_force(capsys, "evaluate", "cirr/val", "--method", "image")
    assert err.startswith("CIG_SEARCH_PHI in the environment: search.phi = p.pt is not used: image has no phi")


def test_weights_of_branches(project, monkeypatch, capsys):
    """A weight that the call gives wins over those outside; the environment wins over the file."""
    line = "evaluate", "cirr/val", "--generated-image-dir", "g"
    project("[search]\nfusion_weight = 0.5\n")
    assert unused(capsys, *line) == set()
    assert unused(capsys, *line, "--weights", "w.json") == {"fusion_weight"}
    assert unused(capsys, *line, "--branch", "name=a method=text weight=0.2") == {"fusion_weight"}
    assert unused(capsys, "run", "cirr/val") == set()
    project('[search]\nfusion_weight = 0.5\n[[branch]]\nname = "a"\nmethod = "text"\nweight = 0.2\n')
    assert unused(capsys, *line) == {"fusion_weight"}
    assert unused(capsys, "search", "--gallery", "g") == set(), "it has no branches"
    monkeypatch.setenv("CIG_SEARCH_WEIGHTS", "w.json")
    project("[search]\nfusion_weight = 0.5\n")
    assert unused(capsys, *line) == {"fusion_weight"}


def test_memory_is_not_moved_off_a_cpu(project, capsys):
    project('[generate]\noffload = "model"\n')
    assert unused(capsys, "generate", "cirr/val", "--device", "cpu") == {"offload"}
    shown, _ = in_force(capsys, "generate", "cirr/val", "--device", "cpu", "--offload", "model")
    assert shown["generate.offload"] == ("model", "--offload")


def test_calls_run_with_a_file_for_other_methods(world, project, capsys):
    """As a user does: one file, several methods."""
    project(FULL + '[[branch]]\nname = "b"\npictures = "pseudo-target"\nweight = 0.2\n')
    line = "evaluate", "cirr/val", "--dataset-path", world, "--json", "s.json"
    features = source_of(world, "precomputed").options["features"]
    for method, own in (("image", ()), ("text", ()), ("precomputed", ("--method-option", f"features={features}"))):
        code, _, err = run(capsys, *line, "--method", method, *own)
        assert code == 0, err
        assert [row["name"] for row in json.loads(Path("s.json").read_text())["branches"]] == ["reference"]
        assert "[[branch]] b is not used" in err
    flags = "--generated-image-dir", "none", "--fusion-weight", "0.3"
    code, _, err = run(capsys, *line, *flags)
    assert ("[[branch]] b is not used" in err, "--branch" in err) == (True, False), err
