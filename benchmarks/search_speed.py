"""How long a search over 100,000 pictures takes, and how much memory: in a warm process, and as a call from the shell.

    python benchmarks/search_speed.py build/search --pictures 100000

The pictures are files of a few bytes that are never decoded: random features of a ViT-B/32's width (512) are put into
the feature cache by their content, as if they had been embedded. The CLIP is B/32's architecture with random weights,
the method is `sum`. Everything else is what `cig search` does: listing, comparing with the index, embedding a text that
nobody asked with before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

WARM = """
import json, os, resource, sys, time
from pathlib import Path
from cig.pipelines.open import open_place
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute
home = Path(sys.argv[1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
spent = {}
started = time.monotonic()
searching = OwnSearching("sum", clip=str(home / "clip"), feature_cache=home / "cache")
index = open_place(home / "pictures", searching, Compute(device="cpu"))
spent["open"] = time.monotonic() - started
asked = {"first query": "red", "second query": "blue", "third query": "two dogs", "the third again": "two dogs"}
for name, text in asked.items():
    text += f" {os.getpid()}"  # nobody has asked with it
    started = time.monotonic()
    hits = index.search(home / "reference.png", text)
    spent[name] = time.monotonic() - started
spent = {name: round(own, 3) for name, own in spent.items()}
print(json.dumps({"pictures": len(index), **spent, "peak MB": peak()}))
"""


def make(home: Path, pictures: int) -> None:
    """The CLIP, the pictures, and their features in the cache."""
    if (home / "made").exists():
        return
    torch.manual_seed(0)
    CLIPModel(CLIPConfig()).save_pretrained(home / "clip")
    Image.new("RGB", (300, 200), "red").save(home / "reference.png")
    paths = []
    for i in range(pictures):
        path = home / "pictures" / f"{i // 1000:03d}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"picture {i}".encode())
        paths.append(path)
    time.sleep(0.1)  # what changed a moment ago is not remembered
    remember(home, paths)
    (home / "made").touch()


def remember(home: Path, paths: list[Path]) -> None:
    from cig.io.digests import digest
    from cig.io.feature_cache import FeatureCache
    from cig.pipelines.open import load_own
    from cig.retrieval.features import picture_space
    from cig.retrieval.requests import OwnSearching
    from cig.runtime import Compute

    cache, searching = FeatureCache(home / "cache"), OwnSearching("sum", clip=str(home / "clip"))
    space = cache.space(picture_space(load_own(searching, Compute(device="cpu"), cache)), "synthetic pictures")
    since = time.time()
    digests = {path: digest(path.read_bytes()) for path in paths}
    rows = np.random.default_rng(0).normal(size=(len(paths), 512)).astype(np.float32)
    cache.write(space, dict(zip(digests.values(), rows, strict=True)))
    cache.write_digests(digests, since)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("home", type=Path)
    arguments.add_argument("--pictures", type=int, default=100_000)
    asked = arguments.parse_args()
    home: Path = asked.home
    make(home, asked.pictures)
    about = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {about}")
    for name in ("the index is made", "the index is there", "again"):
        done = subprocess.run([sys.executable, "-c", WARM, str(home)], capture_output=True, text=True, check=True)
        print(f"{name}: {json.loads(done.stdout)}")
    places = ["--gallery", home / "pictures", "--feature-cache", home / "cache", "--clip", home / "clip"]
    for text in (f"a new text {os.getpid()}", f"a new text {os.getpid()}"):
        started = time.monotonic()
        line = [sys.executable, "-m", "cig", "search", *map(str, places), "--method", "sum", "--text", text]
        subprocess.run(line, capture_output=True, check=True)
        print(f"cig search from the shell, {text!r}: {time.monotonic() - started:.2f} s")


if __name__ == "__main__":
    main()
