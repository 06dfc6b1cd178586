"""CIRR test1 at its real size, with drawn pictures and tiny models: memory by the number of queries, and a second run.

    python benchmarks/full_scale.py PATH/TO/ANNOTATIONS/cirr build/full_scale

The folder of annotations is the release's `cirr/` (captions/, image_splits/). Three runs of `cig run`, each in a
process of its own: 400 queries; all 4,148; all again, in which decoding a picture or loading a model is an error.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from tiny import Sizes, draw, make_models

FEW = 400
# Freed memory goes back to the machine: else what the allocator keeps, by chance, drowns the difference to be seen
STEADY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
NEVER = """
import cig.models.clip, cig.generators.sdxl, cig.io.images, cig.evaluation.html
def never(*args, **options): raise AssertionError("a picture was decoded, or a model loaded")
cig.io.images.read_picture = cig.evaluation.html.read_picture = never
cig.models.clip.load_clip = cig.generators.sdxl.load = never
"""


def main() -> None:
    annotations, root = Path(sys.argv[1]), Path(sys.argv[2])
    whole, few = make_trees(annotations, root)
    lines = [
        ("400 queries", few, root / "out-400", ""),
        ("4,148 queries", whole, root / "out-4148", ""),
        ("4,148 queries again", whole, root / "out-4148", NEVER),
    ]
    peaks = {}
    for what, home, out, before in lines:
        peaks[what], seconds = measure(command(root / "models", home, out), before)
        print(f"{what:20}  peak memory {peaks[what] / 1e6:7.1f} MB  {seconds:7.1f} s", flush=True)
    print(f"peak with 4,148 queries / with 400: {peaks['4,148 queries'] / peaks['400 queries']:.3f}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")


def make_trees(annotations: Path, root: Path) -> tuple[Path, Path]:
    """The dataset with all queries and with the first 400, over the same pictures; made once."""
    names = json.loads((annotations / "image_splits/split.rc2.test1.json").read_text())
    queries = json.loads((annotations / "captions/cap.rc2.test1.json").read_text())
    rng = random.Random(0)
    if not (root / "models").exists():
        make_models(root / "models", 0, Sizes())
    for name in names:
        if not (picture := root / "whole/test1" / f"{name}.png").exists():
            draw(rng, picture)
    for home, own in ((root / "whole", queries), (root / "few", queries[:FEW])):
        for file, content in (("image_splits/split", names), ("captions/cap", own)):
            path = home / f"cirr/{file}.rc2.test1.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
    if not (root / "few/test1").exists():
        (root / "few/test1").symlink_to((root / "whole/test1").absolute())
    return root / "whole", root / "few"


def command(models: Path, home: Path, out: Path) -> list[str]:
    compose = ["--clip", f"{models}/clip-small", "--clip2", f"{models}/clip-large"]
    compose += ["--phi", f"{models}/phi-small.pt", "--phi2", f"{models}/phi-large.pt"]
    sdxl = ["--model-path", f"{models}/sdxl", "--sdxl-repo", f"{models}/sdxl", "--vae-repo", f"{models}/sdxl/vae"]
    sdxl += ["--height", "32", "--width", "32", "--steps", "2", "--batch-size", "8", "--search-batch-size", "8"]
    sdxl += ["--brightness-thresh", "0"]
    search = ["--search-clip", f"{models}/clip-small", "--search-phi", f"{models}/phi-small.pt"]
    data = ["cirr/test1", "--dataset-path", f"{home}", "--device", "cpu", "--out", f"{out}"]
    return ["run", *data, *compose, *sdxl, *search]


def measure(words: list[str], before: str) -> tuple[int, float]:
    """(peak resident bytes, seconds) of one command line in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    started = time.monotonic()
    code = f"{before}\nfrom cig.cli.main import main\nmain({words!r})"
    pid = os.spawnve(os.P_NOWAIT, sys.executable, [sys.executable, "-c", code], {**os.environ, **STEADY})
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"failed: cig {' '.join(words)}")
    return usage.ru_maxrss * 1024, time.monotonic() - started


if __name__ == "__main__":
    main()
