"""M-BEIR's CIRR (task 7): another benchmark than CIRR's own; see _mbeir."""

from __future__ import annotations

from pathlib import Path

from cig.benchmarks._mbeir import bring, load_task
from cig.types import Benchmark

SPLITS = {"val": "val", "test": "val"}
ODDITIES = ("queries, gallery and measures are M-BEIR's: scores do not compare with those of cirr/val",)


def load(root: Path, split: str) -> tuple[Benchmark]:
    """Load `query/test/` and `cand_pool/local/` of M-BEIR's tree."""
    return load_task(root, "mbeir-cirr", "cirr")


def mend(part: Benchmark) -> str:
    """Return what brings missing pictures."""
    return bring("cirr")
