"""The recipe behind the shipped models, in its smallest size, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cig

HOME = Path(cig.__file__).parents[2]


def test_train_smoke(tmp_path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", str(HOME / "recipes" / "icons" / "train.sh"), str(tmp_path / "out"), "--smoke"]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    methods = {row["method"] for row in json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]}
    assert methods == {"image", "text", "sum", "lincir", "pic2word"}
