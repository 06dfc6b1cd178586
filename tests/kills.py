"""Kills runs with SIGKILL, reruns them, and compares every byte with a run that nobody killed.

    python tests/kills.py --kills 100 --seed 0

Half of the kills come at random moments; the others at fail-points: before a file is opened, in the middle of a write,
before each fsync and before each rename. Every trial is a fork of this process, which imports but never computes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cig.cli.main import main as cig
from cig.models import tokenizer
from cig.runtime import quiet_transformers

VOLATILE = {"features.sqlite", "features.sqlite-journal", "report.html", "report.md"}  # hold seconds, or SQLite's pages
Lines = Sequence[Sequence[str]]  # command lines that run side by side


def lines_of(world: Path, verb: str, out: Path, threshold: float = 10) -> Lines:
    """The command lines of a trial: one, or two shards."""
    models = world / "models"
    data = ["cirr/val", "--dataset-path", f"{world}", "--device", "cpu"]
    compose = ["--clip", f"{models}/clip-small", "--clip2", f"{models}/clip-large"]
    compose += ["--phi", f"{models}/phi-small.pt", "--phi2", f"{models}/phi-large.pt"]
    sdxl = ["--model-path", f"{models}/sdxl", "--sdxl-repo", f"{models}/sdxl", "--vae-repo", f"{models}/sdxl/vae"]
    sdxl += ["--height", "64", "--width", "64", "--steps", "2", "--max-retries", "1", "--batch-size", "2"]
    sdxl += ["--brightness-thresh", f"{threshold}"]
    search = ["--search-clip", f"{models}/clip-small", "--search-phi", f"{models}/phi-small.pt"]
    extract = ["extract", *data, *compose, "--text-embeddings-dir", f"{out}", "--batch-size", "2"]
    generate = ["generate", *data, *sdxl, "--text-embeddings-dir", f"{world}/embeddings", "--save-path", f"{out}"]
    return {
        "extract": [extract],
        "generate": [generate],
        "run": [["run", *data, *compose, *sdxl, *search, "--out", f"{out}"]],
        "extract, two shards": [[*extract, "--shard", f"{i}/2"] for i in (1, 2)],
        "generate, two shards": [[*generate, "--shard", f"{i}/2"] for i in (1, 2)],
    }[verb]


VERBS = ("extract", "generate", "run", "extract, two shards", "generate, two shards")


# Running in a fork, and dying there


def fork(line: Sequence[str], before: Callable[[], object] = lambda: None) -> int:
    """The pid of a process that runs one command line, silently; its exit code is the line's."""
    pid = os.fork()
    if pid:
        return pid
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    errors = os.open(Path(tempfile.gettempdir()) / f"kills-{os.getpid()}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(errors, 2)
    code = 1
    try:
        before()
        cig(line)
    except SystemExit as done:
        code = int(done.code or 0)
    finally:
        os._exit(code)


def finish(pid: int) -> int:
    """Its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def whole(lines: Lines) -> None:
    for line, pid in [(line, fork(line)) for line in lines]:
        if code := finish(pid):
            told = (Path(tempfile.gettempdir()) / f"kills-{pid}.txt").read_text()
            raise SystemExit(f"exit code {code} of cig {' '.join(line)}:\n{told}")
        (Path(tempfile.gettempdir()) / f"kills-{pid}.txt").unlink()


def die_at(point: int, count: list[int]) -> None:
    """Patches this process so that the fail-point of that number is its end; counts them as they pass."""

    def passing(half: Callable[[], object] = lambda: None) -> None:
        count[0] += 1
        if count[0] == point:
            half()
            os.kill(os.getpid(), signal.SIGKILL)

    def guarded(act: Callable) -> Callable:
        def acting(*args: object, **options: object) -> object:
            passing()
            return act(*args, **options)

        return acting

    class Dying(io.BufferedWriter):
        def write(self, data: bytes) -> int:
            def half() -> None:
                super(Dying, self).write(data[: len(data) // 2])
                self.flush()

            passing(half)
            return super().write(data)

    opened = Path.open

    def opening(path: Path, mode: str = "r", *args: object, **options: object) -> object:
        if mode not in ("wb", "ab", "a"):
            return opened(path, mode, *args, **options)
        passing()
        raw = Dying(io.FileIO(path, mode.rstrip("b")))
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding="utf-8", write_through=True)

    os.fsync, os.replace, Path.open = guarded(os.fsync), guarded(os.replace), opening


def count_points(line: Sequence[str]) -> int:
    """How many fail-points a run of this line passes."""
    read, write = os.pipe()
    count = [0]

    def before() -> None:
        die_at(0, count)
        exit_now = os._exit
        os._exit = lambda code: (os.write(write, str(count[0]).encode()), exit_now(code))  # type: ignore[assignment]

    finish(fork(line, before))
    os.close(write)
    return int(os.read(read, 20))


# Trials


def outcome(out: Path) -> dict[str, object]:
    """Every file by name: its bytes, or, where these tell the time, what they say of results."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        if path.is_dir() or path.name == "cost.json":  # of the last run that made a picture: one in two may not have
            continue
        name = str(path.relative_to(out))
        found[name] = path.read_bytes() if path.name not in VOLATILE else None
        if path.name == "manifest.jsonl":  # in the order of completion; the last line of an id wins
            last = {line["id"]: line for line in map(json.loads, filter(str.strip, sound(path)))}
            found[name] = sorted(last.items())
        if path.name == "scores.json":
            told = json.loads(path.read_text())
            found[name] = {key: told[key] for key in ("scores", "intervals", "per_query", "missing", "changes")}
    found.pop("features/features.sqlite-journal", None)
    return found


def sound(path: Path) -> list[str]:
    """The lines that a kill did not tear."""
    lines = path.read_text().splitlines()
    return [line for line in lines if line.startswith("{") and line.endswith("}")]


def trial(lines: Lines, out: Path, rng: random.Random, points: int, seconds: float) -> str:
    """Kills one of the lines, lets the others end, reruns all; returns how it was killed."""
    while True:
        victim, at_point = rng.randrange(len(lines)), rng.random() < 0.5
        point, moment = rng.randint(1, points), rng.uniform(0, seconds)
        doom = (lambda: die_at(point, [0])) if at_point else (lambda: None)  # noqa: B023 - used in this turn alone
        pids = [fork(line, doom if i == victim else lambda: None) for i, line in enumerate(lines)]
        if not at_point:
            time.sleep(moment)
            os.kill(pids[victim], signal.SIGKILL)
        codes = [finish(pid) for pid in pids]
        if codes[victim] == -signal.SIGKILL:
            whole(lines)
            return f"at fail-point {point} of {points}" if at_point else f"after {moment:.2f} of {seconds:.2f} s"
        shutil.rmtree(out)  # it had ended before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        raise SystemExit(kill_all(asked.kills, rng, home))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def make_world(home: Path) -> tuple[Path, float]:
    """In a fork, too: the world, its embeddings, and a brightness that refuses some pictures at the first attempt."""
    world = home / "world"
    pid = os.fork()
    if not pid:
        sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
        import tiny

        tiny.make(world, queries=8, pictures=20)
        os._exit(0)
    finish(pid)
    whole([[*lines_of(world, "extract", world / "embeddings")[0]]])
    whole([[*lines_of(world, "generate", world / "pictures")[0]]])
    levels = [np.asarray(Image.open(path)).mean() for path in sorted((world / "pictures").glob("*.png"))]
    return world, float(statistics.median(levels))


def warm(line: Sequence[str], told: Path) -> None:
    """Imports what a run of this line does, once for all forks: else most kills would come while these import."""

    def before() -> None:
        exit_now = os._exit
        os._exit = lambda code: (told.write_text("\n".join(sys.modules)), exit_now(code))  # type: ignore[assignment]

    pid = fork(line, before)
    if finish(pid):
        raise SystemExit((Path(tempfile.gettempdir()) / f"kills-{pid}.txt").read_text())
    for name in told.read_text().splitlines():
        with contextlib.suppress(Exception):  # a few are made, not imported
            importlib.import_module(name)
    tokenizer._openai_bpe()  # parsed once here, not in every fork


def kill_all(kills: int, rng: random.Random, home: Path) -> int:
    quiet_transformers()
    world, threshold = make_world(home)
    warm(lines_of(world, "run", home / "warm")[0], home / "modules.txt")
    truth, points, seconds = {}, {}, {}
    for verb in VERBS:
        started = time.monotonic()
        whole(lines_of(world, verb, home / "whole" / verb, threshold))
        seconds[verb] = time.monotonic() - started
        truth[verb] = outcome(home / "whole" / verb)
        points[verb] = count_points(lines_of(world, verb, home / "count" / verb, threshold)[0])
    good = 0
    for number in range(kills):
        verb, out = VERBS[number % len(VERBS)], home / f"trial-{number}"
        how = trial(lines_of(world, verb, out, threshold), out, rng, points[verb], seconds[verb])
        same = outcome(out)
        differ = [name for name in {*same, *truth[verb]} if same.get(name) != truth[verb].get(name)]
        differ += [name for name in {*same} ^ {*truth[verb]} if name not in differ]
        good += not differ
        print(f"{number + 1:4d} {verb} killed {how}: {f'DIFFERENT: {differ}' if differ else 'the same'}", flush=True)
        shutil.rmtree(out)
    print(f"{good} of {kills} kills and reruns gave the same bytes")
    return 0 if good == kills else 1


if __name__ == "__main__":
    main()
