"""The user's own pictures: a folder, and a CSV, JSON, JSONL or Parquet file of queries. See docs/folder.md.

A picture's name is its path below the folder; a queries file may omit the suffix. References may be https addresses,
which are fetched into the hidden folder `.fetched`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from cig.benchmarks import name_of, need_names, unique
from cig.benchmarks._web import count_reasons, fetch_pictures, is_url
from cig.errors import InputError, NotFoundError, UsageError, did_you_mean, some
from cig.io.dataset_paths import PassedOver, walk_pictures
from cig.io.files import UNPRINTABLE, read_bytes
from cig.io.spellings import Spellings
from cig.io.tables import FORMS, Row, read_rows
from cig.types import ALSO_CORRECT, TARGET, Benchmark, Query

SPLITS = {"val": "val", "train": "train", "test": "test"}
COLUMNS = ("id", "reference", "caption", "target", "also_correct", "negatives", "tags", "cluster")
ALIASES = {"captions": "caption", "targets": "target", "negative": "negatives", "tag": "tags"}
GUESSED = 5  # names without a picture that a near one is looked for


def load(root: Path, split: str, queries: str | Path | None = None) -> tuple[Benchmark]:
    """Load pictures from `root/images`, else `root`; queries from `root/{split}.csv`, say, else `root/queries.csv`.

    Args:
        queries: another file of queries.

    Raises:
        NotFoundError: no such folder or file.
        InputError: a malformed file; the message names the row.
    """
    if not os.path.isdir(root):
        raise NotFoundError(f"{root} is not a folder; give that of your pictures with --dataset-path")
    pictures = Pictures(root / "images" if os.path.isdir(root / "images") else root)
    source = Path(queries) if queries else _find_queries(root, split)
    rows = _rows(source)
    parsed = unique([_query(i, row, pictures, source=source) for i, row in enumerate(rows)], source)
    hidden = _hidden(parsed, source)
    failed = pictures.fetch([query.reference for query in parsed], root / ".fetched")
    gallery = _listed(root / "gallery.txt", pictures) or tuple(pictures.names)
    unknown = pictures.unknown(name for query in parsed for name in (query.reference, *query.relevant))
    keep_reference = any(query.reference in query.relevant for query in parsed)
    several = any(len(query.relevant) > 1 for query in parsed)
    without = "" if keep_reference else ", without the query's reference"
    benchmark = Benchmark(
        name=f"folder/{split}",
        queries=parsed,
        images=pictures,
        gallery=gallery,
        measures=(*(f"recall@{k}" for k in (1, 5, 10, 50)), *(["map@10"] if several else [])),
        drop_reference=not keep_reference,
        weight=0.7,
        weight_source="no published value for pictures of your own; that of CIRCO test",
        hidden=hidden,
        protocol={
            "gallery": f"{len(gallery)} pictures of {pictures.home}{without}",
            **({"names left out": f"{pictures.unprintable} with control characters"} if pictures.unprintable else {}),
            **({"passed over": some(pictures.passed.lines, 10)} if pictures.passed.lines else {}),
            **_ignored(rows),
            **({"names without a picture": f"{len(unknown)}: {some(unknown, GUESSED)}"} if unknown else {}),
            **({"references not fetched": count_reasons(failed)} if failed else {}),
        },
        not_fetched=failed,
    )
    return (benchmark,)


class Pictures(Mapping[str, Path]):
    """Map names to paths, for every picture below a folder and every fetched one.

    Paths are made on access: of a large folder, names take less memory than Path objects.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.fetched, self._by_stem = home, dict[str, Path](), dict[str, list[str]]()
        self.names: dict[str, None] = {}
        self.unprintable, start = 0, len(os.path.join(home, ""))
        self.passed = PassedOver()
        for entry in walk_pictures(home, self.passed):
            name = entry.path[start:].replace(os.sep, "/")
            if UNPRINTABLE.search(name):
                self.unprintable += 1
            else:
                self.names[name] = None

    def __getitem__(self, name: str) -> Path:
        if name in self.names:
            return self.home / name
        return self.fetched[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.names
        yield from self.fetched

    def __len__(self) -> int:
        return len(self.names) + len(self.fetched)

    def resolve(self, name: str) -> str:
        """Return the gallery's name for a name, which may lack the suffix or be spelt otherwise.

        Raises:
            InputError: several pictures may be meant.
        """
        if name in self.names or is_url(name.strip()):
            return name if name in self.names else name.strip()
        if not self._by_stem:
            for full_name in self.names:
                self._by_stem.setdefault(str(PurePosixPath(full_name).with_suffix("")), []).append(full_name)
        candidates = self._by_stem.get(name) or self._spellings.find(name)
        if len(candidates) > 1:
            raise InputError(f"{name} may be {some(candidates)}; write the suffix, and the name as it is in the folder")
        return candidates[0] if candidates else name

    @cached_property
    def _spellings(self) -> Spellings:
        return Spellings(self.names, self.home)

    def unknown(self, names: Iterable[str]) -> list[str]:
        """List the names that no picture has, each with the nearest that one has."""
        lacking = [name for name in dict.fromkeys(names) if name not in self and not is_url(name)]
        guessed = [f"{name}{self._spellings.guess(name)}" for name in lacking[:GUESSED]]
        return [*guessed, *lacking[GUESSED:]]

    def fetch(self, names: Iterable[str], folder: Path) -> dict[str, str]:
        """Fetch the names that are addresses, and return why some could not be fetched."""
        fetched, failed = fetch_pictures([name for name in names if is_url(name)], folder)
        self.fetched |= fetched
        return failed


def _find_queries(root: Path, split: str) -> Path:
    stems = [split, "queries"]
    paths = [path for stem in stems for form in FORMS if (path := root / f"{stem}.{form}").is_file()]
    paths = [path for path in paths if path.stem == split] or paths
    if len(paths) > 1:
        raise UsageError(f"{root} has {some(map(str, paths))}; say which with --queries")
    if not paths:
        wanted = " or ".join(f"{stem}.csv" for stem in stems)
        raise NotFoundError(f"{root} has no {wanted} (or {', '.join(FORMS[1:])}); give the queries with --queries FILE")
    return paths[0]


def _hidden(queries: Sequence[Query], source: Path) -> bool:
    """Tell whether no query has a target; raise InputError if only some have, as their mean would mean nothing."""
    without = [query.id for query in queries if TARGET not in query.relevant.values()]
    if len(without) == len(queries) and any(query.relevant for query in queries):
        raise InputError(f"{source}: also_correct goes with a target; call the first of them target")
    if without and len(without) < len(queries):
        raise InputError(
            f"{source}: {len(without)} of {len(queries)} queries have no target ({some(without, 5)}); give them one, "
            f"or put them into a file of their own"
        )
    return bool(without)


def _listed(path: Path, pictures: Pictures) -> tuple[str, ...]:
    """Read gallery.txt, one name a line; empty if there is no such file."""
    if not path.exists():
        return ()
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from error
    return need_names([pictures.resolve(name_of(line.strip(), str(path))) for line in lines if line.strip()], path)


# Queries


def _query(position: int, row: Row, pictures: Pictures, *, source: Path) -> Query:
    try:
        names = {key: _names(value, key) for key, value in row.items() if key in COLUMNS and key != "caption"}
        single = {key: names.get(key, ()) for key in ("id", "reference", "cluster")}
        several = next((key for key, values in single.items() if len(values) > 1), None)
        if several:
            raise InputError(f"one {several} a query, found {some(single[several])}")
        if not single["reference"]:
            raise InputError("no reference")
        grades = {"also_correct": ALSO_CORRECT, "target": TARGET}
        return Query(
            id=single["id"][0] if single["id"] else str(position),
            reference=pictures.resolve(single["reference"][0]),
            captions=_captions(row.get("caption")),
            relevant={pictures.resolve(name): grade for key, grade in grades.items() for name in names.get(key, ())},
            negatives=tuple(map(pictures.resolve, names.get("negatives", ()))),
            tags=names.get("tags", ()),
            cluster=single["cluster"][0] if single["cluster"] else "",
        )
    except InputError as error:
        raise InputError(f"{source}, query {position} (counting from 0): {error}") from error


def _captions(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    texts = [text.strip() for text in listed if isinstance(text, str) and text.strip()]
    if not texts or len(texts) < len([text for text in listed if text is not None]):
        raise InputError(f"the caption should be a text, or several, found {str(value)[:80]!r}")
    return tuple(texts)


def _names(value: Any, what: str) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    names = (name_of(item, what) for item in (value if isinstance(value, list) else [value]))
    return tuple(name.strip() if what in ("id", "tags", "cluster") else name for name in names)


def _ignored(rows: Sequence[Row]) -> dict[str, str]:
    unknown = dict.fromkeys(key for row in rows for key in row if key not in COLUMNS)
    return {"columns not used": some(unknown, 5)} if unknown else {}


def _rows(path: Path) -> list[Row]:
    """Read the rows, with aliases of columns resolved and several values as lists."""
    rows = [_rename_columns(row, path) for row in read_rows(path)]
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = [_cells(row) for row in rows]
    columns = dict.fromkeys(key for row in rows for key in row)
    for column in ("reference", "caption"):
        if column not in columns:
            raise InputError(f"{path} has no column {column}.{did_you_mean(column, columns)}")
    for column in columns:
        near = difflib.get_close_matches(column.strip().casefold(), COLUMNS, n=1, cutoff=0.8)
        if column not in COLUMNS and near and near[0] not in columns:
            raise InputError(f'{path} has a column "{column}", which is not used. Did you mean "{near[0]}"? Rename it')
    return rows


def _rename_columns(row: Row, path: Path) -> Row:
    named = {_column(str(key)): value for key, value in row.items()}
    if len(named) < len(row):
        raise InputError(f"{path} has two columns for one thing ({some(map(str, row))}); keep one of them")
    return named


def _column(name: str) -> str:
    """Return our name of a column, whose case, spaces and hyphens do not count; any other as it is."""
    plain = re.sub(r"[\s-]+", "_", name.strip().casefold())
    plain = ALIASES.get(plain, re.sub(r"^caption_(\d+)$", r"caption\1", plain))
    return plain if plain in COLUMNS or re.fullmatch(r"caption\d+", plain) else name


def _cells(row: Row) -> Row:
    """Split texts that stand for several values; caption, caption2, ... are the captions of one query."""
    further = [key for key in row if key.startswith("caption") and key[7:].isdecimal()]
    cells: Row = {key: _cell(key, text) for key, text in row.items() if key not in further}
    if further:
        cells["caption"] = [text for text in (cells.get("caption"), *(row[key] for key in further)) if text]
    return cells


def _cell(column: str, text: str) -> Any:
    """Parse a list in JSON, or between bars where the column may hold several values."""
    if text.startswith("["):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return value if isinstance(value, list) else text
    several = column in ("target", "also_correct", "negatives", "tags")
    return [value.strip() for value in text.split("|") if value.strip()] if several else text
