"""The recipes behind what is shipped, in their smallest size, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import cig
import experiment
from cig.formats import write_json

RECIPES = Path(cig.__file__).parents[2] / "recipes" / "icons"
FEW = """
import runpy, sys
from pathlib import Path
from cig.benchmarks import icons
icons.assets = lambda: Path({few!r})
"""


@pytest.fixture
def called(tmp_path, few):
    """Runs a recipe, in processes of their own that see the few queries of icons/val."""
    patch = FEW.format(few=str(few))
    own = tmp_path / "bin" / "cig"
    own.parent.mkdir()
    own.write_text(f"#!{sys.executable}\n{patch}\nfrom cig.cli import main\n\nmain()\n")
    own.chmod(0o755)
    path = os.pathsep.join([str(own.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    as_script = (
        f"{patch}\nsys.argv.pop(0)\nsys.path[0] = {str(RECIPES)!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    )

    def call(recipe, *words):
        """What it prints."""
        place = str(RECIPES / recipe)
        command = ["bash", place] if recipe.endswith(".sh") else [sys.executable, "-c", as_script, place]
        given = [*command, *map(str, words)]
        done = subprocess.run(given, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return call


def test_smoke(tmp_path, called):
    out = tmp_path / "out"
    called("train.sh", out, "--smoke")
    methods = {row["method"] for row in json.loads((out / "compare.json").read_text())["rows"]}
    assert methods == {"image", "text", "sum", "lincir", "pic2word"}
    called("searle.sh", out, "--smoke")
    found = json.loads((out / "searle" / "compare.json").read_text())["rows"]
    assert {row["method"] for row in found} >= {"image", "text", "searle", "oti", "lincir/icons", "pic2word/icons"}
    called("generator.sh", out, "--smoke")
    assert json.loads((out / "generator" / "model_index.json").read_text())["unet"] == [
        "diffusers",
        "UNet2DConditionModel",
    ]
    few = ("--limit", "24", "--steps", "4", "--batch-size", "8")
    told = called("told.py", out, "--count", 3).splitlines()
    assert [row.split(" | ")[0] for row in told[2:]] == ["| badge"] * 3 + ["| enclosure"] * 3
    called("prior.py", out, *few)
    triplets = ("--data", "icons/triplets", "--generator", "triplets", "--name", "triplets-prior")
    called("prior.py", out, *few, *triplets, "--start", out / "prior")
    called("sampling.py", out, "--limit", "12")
    chosen = json.loads((out / "experiment" / "sampling.json").read_text())
    assert [own["steps"] for own in chosen["by steps"]] == [1, 2, 4, 8, 16, 50]
    once, twice = (own["operations"] for own in chosen["by steps"][:2])
    assert once < twice < 2 * once, "a step more, and no other decoding"
    called("experiment.py", out, "choose", "--limit", "8")
    log = tmp_path / "results.md"
    told = called("experiment.py", out, "test", "a trial", "--split", "val", "--limit", "12", "--results", log)
    assert told.startswith("**icons/val: the claim does not hold.**")
    assert "**With matched encoders: the claim does not hold.** larger CLIP + " in told
    assert "**Without pixels:** + " in told
    assert "| + the target (oracle) | bound | reference 0, oracle 1 | 100.00 |" in told
    called("plots.py", out / "experiment", "icons-val", out / "plots.png")
    assert Image.open(out / "plots.png").size == (1650, 660)
    assert not log.exists(), "icons/val is open"


def test_what_is_not_ready_opens_nothing(tmp_path, few_icons, monkeypatch):
    home, log = tmp_path / "experiment", tmp_path / "results.md"

    def told(*words):
        monkeypatch.setattr(sys, "argv", ["experiment.py", str(tmp_path), *words, "--results", str(log)])
        with pytest.raises(SystemExit) as done:
            experiment.main()
        return str(done.value)

    opening = ("test", "too early")
    assert f"nothing is frozen in {home}: python recipes/icons/experiment.py {tmp_path} choose" in told(*opening)
    write_json(home / "frozen.json", {"queries": 8, "models": "others"})
    for step in (opening, ("choose", "--limit", "8")):
        assert f"how to sample is not chosen yet: python recipes/icons/sampling.py {tmp_path}" in told(*step)
    write_json(home / "sampling.json", {"guidance": 1.5, "image_guidance": 1.0, "steps": 2})
    assert "was chosen for other models or sampling" in told(*opening)
    write_json(home / "frozen.json", {"queries": 8, "models": experiment.models_of(tmp_path)})
    assert "chosen on 8 queries of icons/val: choose on all of them first" in told(*opening)
    assert not log.exists()
    write_json(home / "icons-test.json", {})
    assert "has opened icons/test" in told("choose")
