"""The icons that are shipped, as an index: a gallery on which anyone can try a search, without a network."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from cig.benchmarks import Data
from cig.io.files import write_bytes
from cig.pipelines.demo import ASKED, BENCHMARK
from cig.pipelines.index import Index
from cig.pipelines.open import open_place
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute

NAME = "icons"  # in the place of a folder


def open_icons(searching: OwnSearching, compute: Compute) -> Index:
    """Open the gallery of icons/val, painted in the user's cache; each icon's set, drawing and ink are its metadata."""
    (part,) = Data(BENCHMARK, limit=1).load("val")
    folder = part.images[part.gallery[0]].parents[1]
    index = open_place(folder, searching if searching.chosen else _by_default(searching), compute, build=False)
    index.build(_table(folder, part.gallery), compute)
    return index


def _by_default(searching: OwnSearching) -> OwnSearching:
    return OwnSearching(
        method=ASKED, feature_cache=searching.feature_cache, reference_weight=searching.reference_weight
    )


def _table(folder: Path, names: tuple[str, ...]) -> Path:
    """Write what the names say into a table beside the folder; a name is SET/DRAWING.INK.png."""
    path, buffer = folder.with_name(f"{folder.name}.csv"), io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(("name", "set", "drawing", "ink"))
    for name in names:
        group, _, rest = name.partition("/")
        rows.writerow((name, group, *rest.split(".")[:2]))
    content = buffer.getvalue().encode()
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)
    return path
