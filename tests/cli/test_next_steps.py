"""After each training: a command that is a call of `cig`, with what was trained in it."""

import shlex
from pathlib import Path

import pytest

from calls import run
from cig.cli import next_steps
from cig.cli.main import app

OUT = Path("my models/a")
MODELS = ("c", Path("p.pt"), "d", Path("q.pt"))
STEPS = {
    "clip of a benchmark": (lambda: next_steps.after_clip("icons/train", OUT), "evaluate icons/val --method sum"),
    "clip of a table": (lambda: next_steps.after_clip("pairs.csv", OUT), "search FOLDER"),
    "phi": (lambda: next_steps.after_phi("circo/val", "lincir", "c", out=OUT), "evaluate circo/val --method lincir"),
    "words of val": (
        lambda: next_steps.after_words("cirr/val", "c", OUT, concepts=None, phrases=None),
        "evaluate cirr/val --method oti",
    ),
    "words of test": (
        lambda: next_steps.after_words("circo/test", "c", OUT, concepts=None, phrases=None),
        "submit circo/test",
    ),
    "words of a folder": (
        lambda: next_steps.after_words("pics", "c", OUT, concepts=Path("k.csv"), phrases=None),
        "train phi pics --objective searle --clip c --oti 'my models/a' --concepts k.csv --phrases PHRASES",
    ),
    "vae": (lambda: next_steps.after_vae("icons/train", OUT), "train generator icons/train"),
    "generator": (lambda: next_steps.after_generator("icons/train", MODELS, OUT, side=64), "run icons/val --clip c"),
    "concepts": (lambda: next_steps.after_concepts(OUT), "train phrases 'my models/a'"),
    "phrases": (lambda: next_steps.after_phrases("k.csv", OUT), "train oti PICTURES"),
}


@pytest.mark.parametrize("step", STEPS)
def test_each_is_a_call_of_a_verb(step, capsys):
    say, words = STEPS[step]
    say()
    line = capsys.readouterr().err.removeprefix("next: cig ").strip()
    assert line.startswith(words)
    assert "'my models/a" in line
    app.parse_args(shlex.split(line), exit_on_error=False, print_error=False)


def test_only_the_first_process_says_it(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    next_steps.after_concepts(OUT)
    assert capsys.readouterr().err == ""


def test_the_verbs_that_train_models_say_it(world, tmp_path, monkeypatch, capsys):
    """Here the trainings themselves are left out."""
    for name in ("clip.train_clip", "vae.train_vae", "generator.train_generator"):
        monkeypatch.setattr(f"cig.training.objectives.{name}", lambda *args, **kwargs: None)
    models, out = world / "models", tmp_path / "out"
    monkeypatch.setattr("cig.training.data.load_scenes", lambda *args, **kwargs: Identified())
    monkeypatch.setattr("cig.training.data.pairs.pair_source", lambda *args, **kwargs: Identified())
    composer = ["--clip", models / "clip-small", "--phi", models / "phi-small.pt"]
    composer += ["--clip2", models / "clip-large", "--phi2", models / "phi-large.pt"]
    for verb, flags, words in (
        ("clip", [], "evaluate icons/val --method sum --clip"),
        ("vae", [], "train generator icons/train"),
        ("generator", [*composer, "--vae", "v"], f"run icons/val --clip {models}/clip-small"),
    ):
        code, _, err = run(capsys, "train", verb, "icons/train", "--out", out, "--device", "cpu", *flags)
        assert code == 0, err
        assert f"next: cig {words}" in err
        assert str(out) in err.partition("next: ")[2]
    assert err.strip().endswith("--height 64 --width 64")


class Identified:
    identity: dict = {}  # noqa: RUF012
