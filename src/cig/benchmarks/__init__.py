"""Benchmarks, one file each: `SPLITS` (name -> the release's name), `load(root, split, **options)` -> parts.

To add one, copy `circo.py` (the contract tests run on it), or name a module of yours: `my_package.my_benchmark/val`.
"""

from __future__ import annotations

import inspect
import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, NoneType
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from cig import config, registry
from cig.errors import InputError, UsageError, WrongNameError, at_least_1, check_type, did_you_mean
from cig.io.files import UNPRINTABLE
from cig.io.json_files import locate_entry, read_entries
from cig.io.query_files import picture_name
from cig.types import Benchmark, Query

NO_WEIGHT = "none published; that of CIRCO test"  # the source of a weight of 0.7
ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def split_name(name: str, default: str) -> tuple[str, str]:
    """Parse ("cirr", "test1") from "cirr/test"; a name without a split takes the default.

    Raises:
        WrongNameError: no such benchmark or split; the message lists those that exist.
    """
    family, _, split = name.partition("/")
    splits = registry.load("benchmarks", family).SPLITS
    if (split or default) not in splits:
        raise WrongNameError(f'{family} has no split "{split or default}".{did_you_mean(split or default, splits)}')
    return family, splits[split or default]


def load_benchmarks(name: str, root: str | Path | None = None, **options: Any) -> tuple[Benchmark, ...]:
    """Load all parts of a benchmark: one for most, one per category for FashionIQ.

    Args:
        name: "cirr/val", or a dotted module of your own with a split.
        root: the dataset's folder or its parent; by default the published path, or cig.toml's.
        options: those of the benchmark, e.g. FashionIQ's categories and gallery.
    """
    check_type(name, str, name="name", wanted='a name, such as "cirr/val"')
    check_type(root, (str, Path, NoneType), name="root", wanted="the path of a folder")
    family, split = split_name(name, "val")
    load = registry.load("benchmarks", family).load
    takes = set(inspect.signature(load).parameters) - {"root", "split"}
    unknown = sorted(set(options) - takes)
    if unknown:
        raise UsageError(f"{family} takes no --{unknown[0]}; it takes {', '.join(sorted(takes)) or 'no options'}")
    parts: tuple[Benchmark, ...] = load(Path(root) if root else config.path(family), split, **options)
    return parts


def load_benchmark(name: str, root: str | Path | None = None, **options: Any) -> Benchmark:
    """Load a benchmark of one part.

    Raises:
        UsageError: it has several; name one (FashionIQ: categories=["dress"]) or use load_benchmarks.
    """
    parts = load_benchmarks(name, root, **options)
    if len(parts) > 1:
        names = ", ".join(part.part for part in parts)
        raise UsageError(f'{name} has {len(parts)} parts ({names}); pass categories=["{parts[0].part}"] or load all')
    return parts[0]


def read_queries(path: Path, keys: Sequence[str], make: Callable[[int, dict[str, Any]], Query]) -> tuple[Query, ...]:
    """Make the queries of an annotation file from its entries; errors of `make` get the file, line and entry."""
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
    """Return the name of a picture or query, which annotations write as a text or a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int) or UNPRINTABLE.search(str(value)):
        raise InputError(f"{what} should be a name, found {reprlib.repr(value)}")
    return str(value)


def names_of(value: Any, what: str) -> tuple[str, ...]:
    """Return a list of names; raise InputError for anything else."""
    if not isinstance(value, list):
        raise InputError(f"{what} should be a list of names, found {reprlib.repr(value)}")
    return tuple(name_of(item, f"an item of {what}") for item in value)


def need_names(names: Sequence[str], path: Path) -> tuple[str, ...]:
    """Return the names of a gallery's list, each once; raise InputError if there is none."""
    if not names:
        raise InputError(f"{path} lists no picture, so there is no gallery; put the release's file in its place")
    return tuple(dict.fromkeys(names))


def found_gallery(names: Sequence[str], listing: Path) -> str:
    """Say in the protocol that the gallery is the pictures found, for lack of its list."""
    return f"the {len(names):,} pictures found, not the official ones, for lack of {listing.name}"


def unique(queries: Iterable[Query], source: Path) -> tuple[Query, ...]:
    """Return the queries if no id occurs twice (results by id would hide one) and each id can name a file."""
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
    """A benchmark to load: which queries over which pictures."""

    name: Annotated[str, Parameter(parse=False)] = ""
    "cirr or cirr/val: the first argument of a verb, or --dataset and --split."
    dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None
    "The dataset's own folder, or its parent. Default: ./datasets/NAME, or cig.toml's."
    categories: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
    "FashionIQ: some of dress, shirt, toptee. Default: all."
    gallery: Annotated[Literal["full", "val"] | None, Parameter(parse=False)] = None
    "FashionIQ: all names of the split file (full, the default), or the union of references and targets (val)."
    queries: Path | None = None
    "folder: the file of queries. Default: queries.csv (.json, .jsonl, .parquet) in the folder, or SPLIT.csv."
    shared_concept: Annotated[bool, Parameter(negative="")] = False
    "CIRCO: captions say what both pictures show, too, as MagicLens and BGE-VL are asked. Another protocol."
    limit: int | None = None
    "icons: the first so many queries, which are in a random order. Default: all."

    def __post_init__(self) -> None:
        if self.limit is not None:
            at_least_1("--limit", self.limit)

    def load(self, default_split: str) -> tuple[Benchmark, ...]:
        """Load the parts, of the default split unless the name has one."""
        family, split = split_name(self.name, default_split)
        options = {
            "categories": self.categories or None,
            "gallery": self.gallery,
            "queries": self.queries,
            "shared_concept": self.shared_concept or None,
            "limit": self.limit,
        }
        given = {key: value for key, value in options.items() if value is not None}
        return load_benchmarks(f"{family}/{split}", self.dataset_path, **given)

    @property
    def family(self) -> str:
        """ "cirr" of "cirr/val"."""
        return self.name.partition("/")[0]

    @property
    def module(self) -> ModuleType:
        """The benchmark's module, for what it offers beside load."""
        return registry.load("benchmarks", self.family)

    @property
    def has_server(self) -> bool:
        """Whether an official server judges submissions."""
        return hasattr(self.module, "submission")

    def default_folder(self, key: str, default_split: str) -> Path:
        """`./outputs/embeddings/cirr_test1`, say."""
        return config.path(key) / "_".join(split_name(self.name, default_split))
