"""The recipes behind what is shipped, in their smallest size, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import cig

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

    def call(recipe, *words, code=0):
        """What it prints, or says where it is to fail."""
        place = str(RECIPES / recipe)
        command = ["bash", place] if recipe.endswith(".sh") else [sys.executable, "-c", as_script, place]
        given = [*command, *map(str, words)]
        done = subprocess.run(given, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr[-2000:]
        return done.stderr if code else done.stdout

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
    called("prior.py", out, *few)
    triplets = ("--data", "icons/triplets", "--generator", "triplets", "--name", "triplets-prior")
    called("prior.py", out, *few, *triplets, "--start", out / "prior")
    told = called("experiment.py", out, "choose", "--limit", "8", code=1)
    assert f"how to sample is not chosen yet: python recipes/icons/sampling.py {out}" in told
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
    assert "| + the target (oracle) | bound | reference 0, oracle 1 | 100.00 |" in told
    called("plots.py", out / "experiment", "icons-val", out / "plots.png")
    assert Image.open(out / "plots.png").size == (1650, 660)
    refused = called("experiment.py", out, "test", "too early", "--results", log, code=1)
    assert "chosen on 8 queries of icons/val: choose on all of them first" in refused
    assert not log.exists(), "neither opens anything"
