"""i-CIR (Psomas et al., NeurIPS 2025): particular objects, each with a database of its own and hard negatives.

A query is a picture of an instance and a text. Correct are the pictures of its instance's database with that text. The
score is the mean over instances of the mean AP of their queries; AP is over the whole database, by the trapezoid rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from cig.benchmarks import NO_WEIGHT, need_names, unique
from cig.errors import InputError
from cig.io.dataset_paths import find_home, walk_pictures
from cig.io.tables import each_line
from cig.types import TARGET, Benchmark, Query

SPLITS = {"val": "all", "all": "all", "test": "all"}
QUERIES, DATABASE = "query_files.csv", "database_files.csv"
FOLDERS = ("query", "database")
ODDITIES = ("queries of one instance are not independent: whole instances are resampled",)


def load(root: Path, split: str) -> tuple[Benchmark]:
    """Load the release's two lists and `query/` and `database/` beside them."""
    home = find_home(root, "icir", [QUERIES, f"annotations/{QUERIES}"])
    folder = home if (home / QUERIES).exists() else home / "annotations"
    database: dict[str, list[str]] = defaultdict(list)
    correct: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for name, text, instance in _rows(folder / DATABASE):
        database[instance].append(name)
        correct[instance, text][name] = TARGET
    galleries = {instance: tuple(dict.fromkeys(names)) for instance, names in database.items()}
    queries = unique(
        (
            Query(str(i), name, (text,), correct.get((instance, text), {}), cluster=instance)
            for i, (name, text, instance) in enumerate(_rows(folder / QUERIES))
        ),
        folder / QUERIES,
    )
    benchmark = Benchmark(
        name="icir/val",
        queries=queries,
        images=_pictures(home),
        gallery=need_names([name for names in database.values() for name in names], folder / DATABASE),
        measures=("trapezoid_map",),
        drop_reference=False,
        weight=0.7,
        weight_source=NO_WEIGHT,
        protocol={
            "gallery": f"{len(galleries)} databases, one an instance",
            "mean": "over instances of the mean over their queries",
            "relevance": "AP over the whole database by the trapezoid rule",
        },
        galleries={query.id: galleries.get(query.cluster, ()) for query in queries},
        macro=True,
    )
    return (benchmark,)


def mend(part: Benchmark) -> str:
    """Return what brings missing pictures."""
    return "get icir_v1.0.0.tar.gz (its address is in docs/icir.md), check its sha256, and unpack it"


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield name, text and instance of a list; the release's lists have no header."""
    for number, line in enumerate(each_line(path), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip() or (number == 1 and cells[0] in ("image_path", "path")):
            continue
        if len(cells) != 3 or not all(cells):
            raise InputError(f"{path}, line {number}: expected a path, a text and an instance, found {line[:80]!r}")
        yield _name(cells[0], path), cells[1], cells[2]


def _name(text: str, path: Path) -> str:
    """Return the path below the home, from `query/` or `database/` on, whatever the list has before it."""
    parts = PurePosixPath(text).parts
    start = next((i for i, part in enumerate(parts) if part in FOLDERS), None)
    if start is None or ".." in parts:
        raise InputError(f"{path}: {text[:80]!r} is not below {' or '.join(FOLDERS)}")
    return "/".join(parts[start:])


def _pictures(home: Path) -> Mapping[str, Path]:
    folders = [home / name for name in FOLDERS if (home / name).is_dir()]
    entries = (entry for folder in folders for entry in walk_pictures(folder))
    return {Path(entry.path).relative_to(home).as_posix(): Path(entry.path) for entry in entries}
