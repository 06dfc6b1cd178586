"""The recipes behind what is shipped, in their smallest size, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cig

HOME = Path(cig.__file__).parents[2]


def test_smoke(tmp_path):
    out = tmp_path / "out"
    run("train.sh", out)
    methods = {row["method"] for row in json.loads((out / "compare.json").read_text())["rows"]}
    assert methods == {"image", "text", "sum", "lincir", "pic2word"}
    run("generator.sh", out)
    assert json.loads((out / "generator" / "model_index.json").read_text())["unet"] == [
        "diffusers",
        "UNet2DConditionModel",
    ]


def run(recipe, out):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", str(HOME / "recipes" / "icons" / recipe), str(out), "--smoke"]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
