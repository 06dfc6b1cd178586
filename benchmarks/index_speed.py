"""How long the index takes to build, open, add to and search, beside bare libraries, in one run.

    python benchmarks/index_speed.py build/index-speed --rows 10000 100000 1000000 --stores exact milvus

Rows are random unit features of a ViT-B/32's width (512). A search is one query, k = 10; times are medians of 20.
numpy, torch and faiss search the same matrix in memory: exact search without names, metadata and durability.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from cig.io.text_table import text_table
from cig.retrieval.filters import Condition
from cig.retrieval.index import IndexEntry, Row, Selection, open_engine
from cig.retrieval.index._order import ranked

WIDTH, K, CHUNK, REPEATS = 512, 10, 5000, 20
Matrix = NDArray[np.float32]


def features_of(rows: int) -> Matrix:
    """Random unit rows [rows, WIDTH]."""
    features = np.random.default_rng(0).standard_normal((rows, WIDTH), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def seconds(work: Callable[[int], object], repeats: int = REPEATS) -> float:
    """Median seconds of a call; it gets the number of the repeat."""
    spent = []
    for i in range(repeats):
        started = time.perf_counter()
        work(i)
        spent.append(time.perf_counter() - started)
    return median(spent)


def row_of(i: int, feature: Matrix) -> Row:
    return Row(IndexEntry(f"{i // 1000:04}/{i:07}.jpg", f"{i}", "", "", {"price": i % 100}), feature)


def of_engine(store: str, home: Path, features: Matrix) -> list[str]:
    """One line of the table."""
    folder = home / store.partition(":")[0]
    shutil.rmtree(folder, ignore_errors=True)
    store = store if ":" in store or store == "exact" else f"{store}:{folder / 'rows.db'}"
    engine = open_engine(store, folder, WIDTH)
    started = time.perf_counter()
    for start in range(0, len(features), CHUNK):
        engine.put([row_of(i, features[i]) for i in range(start, min(start + CHUNK, len(features)))])
    built = time.perf_counter() - started
    engine.close()
    started = time.perf_counter()
    engine = open_engine(store, folder)
    opened = time.perf_counter() - started
    cheap = Selection(where=(Condition.parse("price<50"),))

    def search(i: int, select: Selection = Selection()) -> object:  # noqa: B008
        query = features[i : i + 1]
        return ranked(query[0], engine.nearest(query, K, select)[0])[:K]

    first = seconds(search, 1)
    found, filtered = seconds(search), seconds(lambda i: search(i, cheap), 5)
    added = seconds(lambda i: engine.put([row_of(len(features) + i, features[i])]))
    engine.close()
    times = [built, opened, first, found, filtered, added]
    return [store.partition(":")[0], *(f"{value:.4f}" for value in times)]


def of_libraries(features: Matrix) -> list[list[str]]:
    """A line for each bare library that is there."""
    rows = torch.from_numpy(features)
    ways: dict[str, Callable[[int], object]] = {
        "torch": lambda i: (rows @ rows[i]).topk(K),
        "numpy": lambda i: np.argpartition(-(features @ features[i]), K)[:K],
    }
    try:
        import faiss
    except ImportError:
        print("no faiss on this machine")
    else:
        flat = faiss.IndexFlatIP(WIDTH)
        flat.add(features)
        ways["faiss flat"] = lambda i: flat.search(features[i : i + 1], K)
    return [[name, "", "", "", f"{seconds(search):.4f}", "", ""] for name, search in ways.items()]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("home", type=Path)
    arguments.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    arguments.add_argument("--stores", nargs="+", default=["exact", "milvus"])
    given = arguments.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, width {WIDTH}, k = {K}, in seconds"
    )
    for count in given.rows:
        features = features_of(count)
        lines = [["rows", "", "build", "open", "first search", "search", "filtered", "add one"]]
        for store in given.stores:
            lines.append([f"{count:,}", *of_engine(store, given.home, features)])
        lines += [[f"{count:,}", *line] for line in of_libraries(features)]
        print("\n".join(text_table(lines)))
        print(f"most memory of this process so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
