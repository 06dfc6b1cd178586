"""What was acknowledged survives kill -9. CIG_KILLS=40 asks for more kills than a few."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_acknowledged_write_survives_a_kill():
    """In a process of its own, which forks: a fork of this one would inherit torch's threads."""
    kills = int(os.environ.get("CIG_KILLS", "2"))
    line = [sys.executable, Path(__file__).parents[1] / "serve_kills.py", "--kills", str(kills)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*line, "--writes", str(25 * kills)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills in" in done.stdout
    assert "0 wrong" in done.stdout.splitlines()[-1]
