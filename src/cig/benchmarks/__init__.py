"""Benchmarks, one file each: `SPLITS` (name -> the release's name), `load(root, split, **options)` -> parts.

To add one, add a file (or name a module of your own: `my_package.my_benchmark/val`); the contract tests find it.
"""

from __future__ import annotations

import inspect
import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cig import config, registry
from cig.errors import InputError, NotFoundError, UsageError, did_you_mean
from cig.io.files import UNPRINTABLE
from cig.io.json_files import locate_entry, read_entries
from cig.io.query_files import picture_name
from cig.types import Benchmark, Query

ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def split_name(name: str, default: str) -> tuple[str, str]:
    """("cirr", "test1") from "cirr/test"; a name without a split takes the default.

    Raises:
        NotFoundError: no such benchmark or split; the message lists what there is.
    """
    family, _, split = name.partition("/")
    splits = registry.load("benchmarks", family).SPLITS
    if (split or default) not in splits:
        raise NotFoundError(f'{family} has no split "{split or default}".{did_you_mean(split or default, splits)}')
    return family, splits[split or default]


def load_benchmarks(name: str, root: str | Path | None = None, **options: Any) -> tuple[Benchmark, ...]:
    """All parts of a benchmark: one for most, one per category for FashionIQ.

    Args:
        name: "cirr/val", or a dotted module of your own with a split.
        root: the dataset's folder or its parent; by default the published place, or cig.toml's.
        options: what the benchmark takes, e.g. FashionIQ's categories and gallery.
    """
    family, split = split_name(name, "val")
    load = registry.load("benchmarks", family).load
    takes = set(inspect.signature(load).parameters) - {"root", "split"}
    unknown = sorted(set(options) - takes)
    if unknown:
        raise UsageError(f"{family} takes no --{unknown[0]}; it takes {', '.join(sorted(takes)) or 'no options'}")
    parts: tuple[Benchmark, ...] = load(Path(root) if root else config.path(family), split, **options)
    return parts


def load_benchmark(name: str, root: str | Path | None = None, **options: Any) -> Benchmark:
    """A benchmark of one part.

    Raises:
        UsageError: it has several; name one (FashionIQ: categories=["dress"]) or use load_benchmarks.
    """
    parts = load_benchmarks(name, root, **options)
    if len(parts) > 1:
        names = ", ".join(part.part for part in parts)
        raise UsageError(f'{name} has {len(parts)} parts ({names}); pass categories=["{parts[0].part}"] or load all')
    return parts[0]


def read_queries(path: Path, keys: Sequence[str], make: Callable[[int, dict[str, Any]], Query]) -> tuple[Query, ...]:
    """The queries of an annotation file, from its entries; what make refuses is told with file, line and entry."""
    queries = []
    for position, entry in enumerate(read_entries(path, keys)):
        try:
            queries.append(make(position, entry))
        except InputError as error:
            raise InputError(f"{locate_entry(path, position)}: {error}") from error
    if not queries:
        raise InputError(f"{path} has no entries")
    return unique(queries, path)


def name_of(value: Any, what: str) -> str:
    """The name of a picture or query, which annotations write as a text or a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int) or UNPRINTABLE.search(str(value)):
        raise InputError(f"{what} should be a name, found {reprlib.repr(value)}")
    return str(value)


def names_of(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"{what} should be a list of names, found {reprlib.repr(value)}")
    return tuple(name_of(item, f"an item of {what}") for item in value)


def unique(queries: Iterable[Query], source: Path) -> tuple[Query, ...]:
    """The queries, once no id occurs twice (a result per id would hide one) and each can name a file."""
    seen: dict[str, Query] = {}
    for query in queries:
        if not ID.fullmatch(query.id):
            raise InputError(f"{source}: query id {query.id!r} cannot name a file; letters, digits, . _ - will do")
        if query.id in seen:
            raise InputError(f"{source}: query id {query.id} occurs twice; remove one of its entries")
        seen[query.id] = query
    files: dict[str, str] = {}
    for name in seen:
        other = files.setdefault(picture_name(name), name)
        if other != name:
            raise InputError(
                f"{source}: the ids {other} and {name} would share the file {picture_name(name)}; change one"
            )
    return tuple(seen.values())


@dataclass(frozen=True)
class Data:
    """Which queries over which pictures."""

    name: str  # "cirr" or "cirr/val"
    path: Path | None = None  # the dataset's own folder or its parent; by default the published place
    categories: tuple[str, ...] = ()  # FashionIQ
    gallery: str | None = None  # FashionIQ: full or val
    queries: Path | None = None  # folder: a file of queries
    limit: int | None = None  # icons: the first so many queries

    def load(self, default_split: str) -> tuple[Benchmark, ...]:
        family, split = split_name(self.name, default_split)
        options = {
            "categories": self.categories or None,
            "gallery": self.gallery,
            "queries": self.queries,
            "limit": self.limit,
        }
        given = {key: value for key, value in options.items() if value is not None}
        return load_benchmarks(f"{family}/{split}", self.path, **given)

    @property
    def family(self) -> str:
        """ "cirr" of "cirr/val"."""
        return self.name.partition("/")[0]

    @property
    def module(self) -> ModuleType:
        """The benchmark's own file, for what it offers beside load."""
        return registry.load("benchmarks", self.family)

    @property
    def has_server(self) -> bool:
        """Whether an official server judges submissions."""
        return hasattr(self.module, "submission")

    def default_folder(self, key: str, default_split: str) -> Path:
        """`./outputs/embeddings/cirr_test1`, say."""
        return config.path(key) / "_".join(split_name(self.name, default_split))
