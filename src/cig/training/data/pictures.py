"""Pictures to learn from, without captions: a folder of any depth (ImageNet's layout is one), or a benchmark's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cig import registry
from cig.benchmarks import load_benchmarks
from cig.errors import MismatchError, NotFoundError, UsageError
from cig.io.dataset_paths import walk_pictures
from cig.io.digests import digest
from cig.io.images import Preprocess
from cig.training import processes
from cig.training.data import has_pairs, load_pairs
from cig.training.data.decoding import UNREADABLE, Decoder, Unreadable
from cig.training.step import Order, Step
from cig.types import Benchmark, Pairs


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


def is_text(name: str) -> bool:
    """Whether it is UTF-8: disks take any bytes in a name, and Python shows them as halves of characters."""
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


def _of_folder(home: Path) -> dict[str, Path]:
    found = sorted(Path(entry.path).relative_to(home).as_posix() for entry in walk_pictures(home))
    return {name: home / name for name in found}


def _of_benchmark(source: str, root: Path | None) -> Mapping[str, Path]:
    family, _, split = source.partition("/")
    try:
        module = registry.load("benchmarks", family)
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
    rows = (f"{name}\0{_size(path)}" for name, path in zip(names, paths, strict=True))
    return digest("\n".join(rows).encode("utf-8", "surrogateescape"))


def _size(path: Path) -> str:
    """In bytes; "" of a link to nothing, which is named when it is read."""
    try:
        return str(path.stat().st_size)
    except OSError:
        return ""


@dataclass(frozen=True)
class PixelBatch:
    """What a process sees of a step."""

    pixels: Tensor  # [b, 3, S, S], preprocessed: of this process's own share of the step
    names: tuple[str, ...]  # [b]
    same: Tensor  # [B, B] bool, of all of the step: where a picture is there twice, each is right for the other's words


class PixelSource(Protocol):
    """What a phi learns from that is taught by pictures."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Source, count, digest."""

    @property
    def per_pass(self) -> int:
        """How many there are; 0 where they have no end."""

    def of(self, step: Step, count: int) -> PixelBatch:
        """This process's share of the `count` pictures of a step."""


@dataclass(frozen=True)
class DrawnPictures:
    """Of a benchmark whose pictures are made anew at every step."""

    pairs: Pairs
    size: int  # of the pixels that the CLIP sees
    per_pass = 0

    @property
    def identity(self) -> Mapping[str, str]:
        return self.pairs.identity

    def of(self, step: Step, count: int) -> PixelBatch:
        """Raises MismatchError where the CLIP sees pictures of another size than the benchmark draws."""
        batch, own = self.pairs.batch(count, step.rng), step.own(count)
        need_size(batch.pixels, self.size, self.identity["data"])
        drawn = torch.eye(count, dtype=torch.bool)  # each of its own, also of one icon
        return PixelBatch(batch.pixels[own], batch.ids[own], drawn)


@dataclass(frozen=True)
class ListedPictures:
    """Of a list: each once a pass, in an order that is drawn anew for it."""

    pictures: Pictures
    decoder: Decoder
    order: Order

    @property
    def identity(self) -> Mapping[str, str]:
        return self.pictures.identity

    @property
    def per_pass(self) -> int:
        return len(self.pictures)

    def of(self, step: Step, count: int) -> PixelBatch:
        """Raises UsageError where a step has more pictures than there are."""
        need_enough(len(self.pictures), count, "pictures")
        now, following = (
            self.order.places(number, count)[step.own(count)] for number in (step.number, step.number + 1)
        )
        places, pixels = self.decoder.read(now, following)
        every = torch.tensor(processes.everyones(places))  # twice: where a pass ends, or in an unreadable one's place
        return PixelBatch(pixels, tuple(self.pictures.names[place] for place in places), every[:, None] == every)


def need_size(pixels: Tensor, size: int, source: str) -> None:
    """Raises MismatchError."""
    drawn = pixels.shape[-1]
    if drawn != size:
        raise MismatchError(
            f"the CLIP sees pictures of {size} pixels, and those of {source} have {drawn}; take another CLIP, or bring "
            f"pictures of your own"
        )


def need_enough(there: int, wanted: int, what: str) -> None:
    """Raises UsageError: most of a step would be the same."""
    if wanted > there:
        raise UsageError(f"--batch-size {wanted} is more than the {there} {what}; give --batch-size {there} or less")


def pixel_source(
    source: str, size: int, out: Path, root: Path | None = None, seed: int = 0, workers: int = 4
) -> PixelSource:
    """Pictures by a folder or a benchmark's name; a benchmark with pairs makes them anew at every step.

    Args:
        size: of the pixels that the CLIP sees; the preprocessing is CLIP's.
        out: gets the names of those that cannot be read.
        seed: of the order in which they are seen.
        workers: threads that decode them.
    """
    if has_pairs(source) and not os.path.isdir(source):
        return DrawnPictures(load_pairs(source), size)
    found = load_pictures(source, root)
    unreadable = Unreadable(out / UNREADABLE)
    decoder = Decoder(found.names, found.paths.__getitem__, Preprocess(size), unreadable, workers)
    return ListedPictures(found, decoder, Order(len(found), seed))
