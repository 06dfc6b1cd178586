"""CIRCUS's labels (Attimonelli et al., arXiv 2605.14787): which queries a single modality does not solve.

The labels are of CIRR val, FashionIQ val, CIRCO val and LaSCo val. They have no licence, so they are fetched, and not
part of this package. A row names a query by its reference, text and target; it is joined to the query that has these.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cig.errors import InputError, NotFoundError
from cig.io.tables import Row, each_row
from cig.types import TARGET, Benchmark, Query

NEEDED = ("aggregate_label", "query_text", "query_image_ref", "primary_pos_cand_id")
SHORTCUT_FREE = ("composition_required", "unresolved", "shortcut_free")  # the second is solved by no model at all
VALIDATED = "validated"

Key = tuple[str, str]  # a reference and a text, both plain


@dataclass
class CircusLabels:
    """The labels of a benchmark's parts.

    Attributes:
        subsets: "shortcut-free" and "validated" -> title of a part -> ids of queries.
        unmatched: rows that are of this benchmark and name no query of it.
        without_target: rows whose target is no picture's name here, so that reference and text alone joined them.
    """

    subsets: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    rows: int = 0
    unmatched: int = 0
    without_target: int = 0

    def lines(self) -> Iterator[str]:
        """Say how many rows were joined."""
        joined = self.rows - self.unmatched
        yield f"CIRCUS: {joined:,} of {self.rows:,} rows name a query; unmatched: {self.unmatched:,}"
        if self.without_target:
            yield f"CIRCUS: joined by reference and text alone: {self.without_target:,}"


def read_labels(folder: Path, parts: Sequence[Benchmark]) -> CircusLabels:
    """Read the CSV files below a folder, and join those that are of this benchmark.

    A file is of the benchmark if its name has the benchmark's, or if one of its rows names a query.

    Raises:
        NotFoundError: no such folder, or none of its files names a query.
        InputError: a file without one of the columns.
    """
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.csv"))
    if not paths:
        raise NotFoundError(f"{folder} has no labels of CIRCUS (*.csv); get them by: cig download circus")
    index, labels = _QueryIndex(parts), CircusLabels({"shortcut-free": {}, VALIDATED: {}})
    family = re.sub("[^a-z]", "", parts[0].name.partition("/")[0])
    for path in paths:
        rows = [row for row in each_row(path) if _has_columns(row, path)]
        joined = [(row, *index.find(row)) for row in rows]
        is_named = family in re.sub("[^a-z]", "", path.stem.lower())
        if not is_named and not any(query for _, query, _ in joined):
            continue
        labels.rows += len(rows)
        for row, query, has_target in joined:
            labels.unmatched += query is None
            labels.without_target += bool(query) and not has_target
            if query:
                _note(labels, row, query, file_is_validated=VALIDATED in path.stem.lower())
    if not any(labels.subsets.values()):
        raise NotFoundError(f"no row of the labels in {folder} names a query of {parts[0].name}")
    return labels


def _has_columns(row: Row, path: Path) -> bool:
    lacking = [column for column in NEEDED if column not in row]
    if lacking:
        raise InputError(f"{path} has no column {lacking[0]}; labels of CIRCUS have {', '.join(NEEDED)}")
    return True


def _note(labels: CircusLabels, row: Row, query: tuple[str, str], *, file_is_validated: bool) -> None:
    """Add a query to its subsets; what people validated is among what no single modality solves."""
    part, name = query
    cells = {str(value).strip().lower() for value in row.values()}
    is_validated = file_is_validated or VALIDATED in cells
    if is_validated or str(row["aggregate_label"]).strip().lower() in SHORTCUT_FREE:
        labels.subsets["shortcut-free"].setdefault(part, set()).add(name)
    if is_validated:
        labels.subsets[VALIDATED].setdefault(part, set()).add(name)


class _QueryIndex:
    """Queries by reference and text, with their targets."""

    def __init__(self, parts: Sequence[Benchmark]) -> None:
        self.queries: dict[Key, list[tuple[str, Query]]] = defaultdict(list)
        self.names = {_plain_name(name) for part in parts for name in part.gallery}
        for part in parts:
            for query in part.queries:
                for text in dict.fromkeys(_texts(query)):
                    self.queries[_plain_name(query.reference), text].append((part.title, query))

    def find(self, row: Mapping[str, object]) -> tuple[tuple[str, str] | None, bool]:
        """Return the (part, id) of the one query that a row names, and whether its target was compared."""
        candidates = self.queries.get(
            (_plain_name(str(row["query_image_ref"])), _plain_text(str(row["query_text"]))), []
        )
        target = _plain_name(str(row["primary_pos_cand_id"]))
        if target in self.names:
            candidates = [(part, query) for part, query in candidates if target in _targets(query)]
        if len(candidates) != 1:
            return None, False
        part, query = candidates[0]
        return (part, query.id), target in self.names


def _targets(query: Query) -> set[str]:
    return {_plain_name(name) for name, grade in query.relevant.items() if grade == TARGET}


def _texts(query: Query) -> Iterator[str]:
    """Yield a query's texts as the labels may have them: each caption, and all of them in either order."""
    for order in (query.captions, query.captions[::-1]):
        yield _plain_text(" and ".join(order))
    yield from map(_plain_text, query.captions)


def _plain_text(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _plain_name(name: str) -> str:
    """Return a picture's name without folders and suffix; COCO's ids without their padding."""
    last = PurePosixPath(name.strip().replace("\\", "/")).name
    stem = re.sub(r"\.(jpe?g|png|webp)$", "", last, flags=re.IGNORECASE)
    number = re.fullmatch(r"(?:COCO_[a-z]+\d{4}_)?(\d{6,})", stem)
    return str(int(number[1])) if number else stem
