"""The recipes behind what is shipped, in their smallest size, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

import cig

RECIPES = Path(cig.__file__).parents[2] / "recipes" / "icons"


def test_smoke(tmp_path):
    out = tmp_path / "out"
    run("train.sh", out)
    methods = {row["method"] for row in json.loads((out / "compare.json").read_text())["rows"]}
    assert methods == {"image", "text", "sum", "lincir", "pic2word"}
    run("searle.sh", out)
    found = json.loads((out / "searle" / "compare.json").read_text())["rows"]
    assert {row["method"] for row in found} >= {"image", "text", "searle", "oti", "lincir/icons", "pic2word/icons"}
    run("generator.sh", out)
    assert json.loads((out / "generator" / "model_index.json").read_text())["unet"] == [
        "diffusers",
        "UNet2DConditionModel",
    ]
    few = ("--limit", "24", "--steps", "4", "--batch-size", "8")
    python("prior.py", out, *few)
    triplets = ("--data", "icons/triplets", "--generator", "triplets", "--name", "triplets-prior")
    python("prior.py", out, *few, *triplets, "--start", out / "prior")
    told = python("experiment.py", out, "choose", "--limit", "12", code=1)
    assert f"how to sample is not chosen yet: python recipes/icons/sampling.py {out}" in told
    python("sampling.py", out, "--limit", "12")
    chosen = json.loads((out / "experiment" / "sampling.json").read_text())
    assert [own["steps"] for own in chosen["by steps"]] == [1, 2, 4, 8, 16, 50]
    once, twice = (own["operations"] for own in chosen["by steps"][:2])
    assert once < twice < 2 * once, "a step more, and no other decoding"
    python("experiment.py", out, "choose", "--limit", "12")
    log = tmp_path / "results.md"
    told = python("experiment.py", out, "test", "a trial", "--split", "val", "--limit", "12", "--results", log)
    assert told.startswith("**icons/val: the claim does not hold.**")
    assert "**With matched encoders: the claim does not hold.** larger CLIP + " in told
    assert "| + the target (oracle) | bound | reference 0, oracle 1 | 100.00 |" in told
    python("plots.py", out / "experiment", "icons-val", out / "plots.png")
    assert Image.open(out / "plots.png").size == (1650, 660)
    refused = python("experiment.py", out, "test", "too early", "--results", log, code=1)
    assert "chosen on 12 queries of icons/val: choose on all of them first" in refused
    assert not log.exists(), "neither opens anything"


def run(recipe, out):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return called(["bash", str(RECIPES / recipe), str(out), "--smoke"], PATH=path)


def python(recipe, *words, code=0):
    return called([sys.executable, str(RECIPES / recipe), *map(str, words)], code)


def called(command, code=0, **environment):
    """What it prints, or says where it is to fail."""
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr[-2000:]
    return done.stderr if code else done.stdout
