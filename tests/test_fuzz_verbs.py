"""Some calls of benchmarks/fuzz_verbs.py: no traceback, no odd exit code, nothing written elsewhere."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]


@pytest.mark.slow
def test_hostile_calls_end_in_words():
    home = Path(tempfile.mkdtemp(prefix="cig-fuzz-"))  # pytest's own folders are closed to other users
    os.chmod(home, 0o711)
    try:
        line = [sys.executable, HOME / "benchmarks/fuzz_verbs.py", home, "--calls", "60", "--seed", "1"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode == 3:
            pytest.skip(done.stdout.strip())
        faults = json.loads((home / "faults.json").read_text())
    finally:
        shutil.rmtree(home, ignore_errors=True)
    assert not faults, faults[0]["said"]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "60 calls" in done.stdout
