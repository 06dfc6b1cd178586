"""Processes that hold a folder or a file, as a second call of a user's would."""

import subprocess
import sys
from contextlib import ExitStack

import pytest

HOLDER = """
import sys
from pathlib import Path
from cig.io.locks import agree, hold, hold_file
from cig.runtime import Shard
kind, place, *further = sys.argv[1:]
shard = Shard.parse(*further[:1] or ["1/1"])
with hold_file(Path(place), "test") if kind == "file" else hold(Path(place), "test", shard):
    if further[1:]:
        agree(Path(place), further[1])
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held_elsewhere():
    """Start a process that holds a folder or a file; return it once it holds."""
    with ExitStack() as stack:

        def start(*arguments):
            command = [sys.executable, "-c", HOLDER, *map(str, arguments)]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout.readline() == "held\n"
            return process

        yield start
