"""Pictures to learn from, without captions: a folder of any depth (ImageNet's layout is one), or a benchmark's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cig import plugins
from cig.benchmarks import load_benchmarks
from cig.errors import NotFoundError
from cig.formats import digest
from cig.layout import walk_pictures
from cig.types import Benchmark


@dataclass(frozen=True)
class Pictures:
    """Named pictures; a name tells a picture from every other one."""

    names: tuple[str, ...]  # in a folder: its path below it, in POSIX form
    paths: tuple[Path, ...]
    identity: Mapping[str, str]  # source, count, digest of names and, where they are files of yours, sizes

    def __len__(self) -> int:
        return len(self.names)


def load_pictures(source: str, root: Path | None = None, limit: int | None = None) -> Pictures:
    """The pictures of a folder, or of a benchmark by NAME/SPLIT: its gallery and references, or what it
    has to train on (icons/train).

    Args:
        root: the benchmark's folder, as elsewhere.
        limit: the first so many; a folder's are in the order of their names.

    Raises:
        NotFoundError: neither a folder with pictures nor a benchmark.
    """
    named = _of_folder(Path(source)) if os.path.isdir(source) else _of_benchmark(source, root)
    if not named:
        raise NotFoundError(f"{source} has no pictures (.jpg, .jpeg, .png, .webp)")
    return _pictures(source, {name: named[name] for name in tuple(named)[:limit]})


def load_references(source: str, root: Path | None = None, limit: int | None = None) -> Pictures:
    """The references of a benchmark's queries, by NAME/SPLIT: what searches ask with.

    Args:
        limit: those of the first so many queries of each part.

    Raises:
        NotFoundError: no such benchmark, or none of these pictures is there.
    """
    parts = load_benchmarks(source, root)
    wanted = {query.reference: part.images for part in parts for query in part.queries[:limit]}
    named = {name: images[name] for name, images in wanted.items() if name in images}
    if not named:
        raise NotFoundError(f"{source}: none of the {len(wanted)} references is there; see cig check")
    return _pictures(f"{source}, references", named)


def _of_folder(home: Path) -> dict[str, Path]:
    found = sorted(Path(entry.path).relative_to(home).as_posix() for entry in walk_pictures(home))
    return {name: home / name for name in found}


def _of_benchmark(source: str, root: Path | None) -> Mapping[str, Path]:
    family, _, split = source.partition("/")
    try:
        module = plugins.load("benchmarks", family)
    except NotFoundError as error:
        raise NotFoundError(f"{source} is neither a folder of pictures nor a benchmark; {error}") from error
    if hasattr(module, "pictures") and split not in module.SPLITS:
        own: Mapping[str, Path] = module.pictures(split)
        return own
    parts = load_benchmarks(source, root)
    wanted = ((part, name) for part in parts for name in (*part.gallery, *_references(part)))
    return {name: part.images[name] for part, name in wanted if name in part.images}


def _references(part: Benchmark) -> Iterator[str]:
    return (query.reference for query in part.queries)


def _pictures(source: str, named: Mapping[str, Path]) -> Pictures:
    names, paths = tuple(named), tuple(named.values())
    return Pictures(names, paths, {"data": source, "pictures": f"{len(names)}", "digest": _digest(names, paths)})


def _digest(names: Sequence[str], paths: Sequence[Path]) -> str:
    rows = (f"{name}\0{path.stat().st_size}" for name, path in zip(names, paths, strict=True))
    return digest("\n".join(rows).encode("utf-8", "surrogateescape"))
