"""How long it takes to list a folder with hundreds of thousands of pictures, and how much memory.

    python benchmarks/listing.py build/listing --pictures 300000

The files are empty: none is opened. Each listing is a process of its own; the first finds the disk's cache as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

LIST = """
import json, resource, sys, time
import cig.benchmarks.folder as folder
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
(bench,) = folder.load(__import__("pathlib").Path(sys.argv[1]), "val")
spent = time.monotonic() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"pictures": len(bench.gallery), "seconds": round(spent, 2), "more MB": (peak - before) // 1024}))
"""


def make(home: Path, pictures: int) -> None:
    """1,000 files a folder."""
    for start in range(0, pictures, 1000):
        folder = home / f"{start // 1000:04d}"
        if folder.is_dir():
            continue
        folder.mkdir(parents=True)
        for i in range(start, min(start + 1000, pictures)):
            (folder / f"product-{i:07d}.jpg").touch()
    (home / "queries.csv").write_text("reference,caption,target\n0000/product-0000001,is red,0000/product-0000002\n")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("home", type=Path)
    arguments.add_argument("--pictures", type=int, default=300_000)
    asked = arguments.parse_args()
    make(asked.home, asked.pictures)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", LIST, str(asked.home)], capture_output=True, text=True, check=True)
        print(json.loads(done.stdout))


if __name__ == "__main__":
    main()
