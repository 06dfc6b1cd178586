"""Pictures to learn from, without captions: a folder of any depth (ImageNet's layout is one), or a benchmark's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cig import plugins
from cig.benchmarks import load_benchmarks
from cig.errors import NotFoundError
from cig.formats import digest
from cig.layout import walk_pictures


@dataclass(frozen=True)
class Pictures:
    """Named pictures; a name tells a picture from every other one."""

    names: tuple[str, ...]  # in a folder: its path below it, in POSIX form
    paths: tuple[Path, ...]
    identity: Mapping[str, str]  # source, count, digest of names and, where they are files of yours, sizes

    def __len__(self) -> int:
        return len(self.names)


def load_pictures(source: str, root: Path | None = None, limit: int | None = None) -> Pictures:
    """The pictures of a folder, or of a benchmark by NAME/SPLIT: its gallery, or what it has to train on (icons/train).

    Args:
        root: the benchmark's folder, as elsewhere.
        limit: the first so many; a folder's are in the order of their names.

    Raises:
        NotFoundError: neither a folder with pictures nor a benchmark.
    """
    named = _of_folder(Path(source)) if os.path.isdir(source) else _of_benchmark(source, root)
    if not named:
        raise NotFoundError(f"{source} has no pictures (.jpg, .jpeg, .png, .webp)")
    names = tuple(named)[:limit]
    paths = tuple(named[name] for name in names)
    return Pictures(names, paths, {"data": source, "pictures": f"{len(names)}", "digest": _digest(names, paths)})


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
    return {name: part.images[name] for part in parts for name in part.gallery if name in part.images}


def _digest(names: Sequence[str], paths: Sequence[Path]) -> str:
    rows = (f"{name}\0{path.stat().st_size}" for name, path in zip(names, paths, strict=True))
    return digest("\n".join(rows).encode("utf-8", "surrogateescape"))
