"""Runs that are killed and rerun end as if nothing had happened. CIG_KILLS=100 asks for more than a few."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_kills_and_reruns_give_the_same_bytes():
    """In a process of its own, which forks: a fork of this one would inherit torch's threads."""
    kills = os.environ.get("CIG_KILLS", "10")
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, script, "--kills", kills], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} of {kills} kills and reruns gave the same bytes" in done.stdout
