"""Pictures to learn from, without captions: a folder of any depth (such as ImageNet's), or a benchmark's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cig import registry
from cig.benchmarks import load_benchmarks
from cig.errors import NotFoundError
from cig.io.dataset_paths import PassedOver, walk_pictures
from cig.io.digests import digest
from cig.io.images import Preprocess
from cig.models.preprocessing import ClipPreprocess
from cig.runtime import say
from cig.training.data import has_pairs, load_pairs
from cig.training.data.decoding import UNREADABLE, Decoder, UnreadablePictures
from cig.training.data.pairs import DrawnPairs
from cig.training.step import Order, Step


@dataclass(frozen=True)
class PictureList:
    """Pictures with distinct names."""

    names: tuple[str, ...]  # in a folder: the paths below it, in POSIX form
    paths: tuple[Path, ...]
    identity: Mapping[str, str]  # source, count, digest of names and file sizes

    def __len__(self) -> int:
        return len(self.names)


def load_pictures(source: str, root: Path | None = None, limit: int | None = None) -> PictureList:
    """Load the pictures of a folder, or of a benchmark by NAME/SPLIT.

    A benchmark's pictures are its gallery and references, or its training pictures (icons/train).

    Args:
        root: the benchmark's folder.
        limit: take the first so many; a folder's are in the order of their names.

    Raises:
        NotFoundError: it is neither a folder with pictures nor a benchmark.
    """
    passed = PassedOver()
    if os.path.isdir(source):
        pictures = walk_pictures(Path(source), passed)
        names = sorted(Path(entry.path).relative_to(source).as_posix() for entry in pictures)
        named: Mapping[str, Path] = {name: Path(source, name) for name in names}
    else:
        named = _of_benchmark(source, root)
    if not named:
        raise NotFoundError(f"{source} has no pictures{passed}")
    if passed.lines:
        say(f"{source}: {len(named)} pictures{passed}")
    return _listed(source, {name: named[name] for name in tuple(named)[:limit]})


def load_references(source: str, root: Path | None = None, limit: int | None = None) -> PictureList:
    """Load the reference pictures of a benchmark's queries, by NAME/SPLIT.

    Args:
        limit: take those of the first so many queries of each part.

    Raises:
        NotFoundError: there is no such benchmark, or none of these pictures.
    """
    parts = load_benchmarks(source, root)
    wanted = {query.reference: part.images for part in parts for query in part.queries[:limit]}
    named = {name: images[name] for name, images in wanted.items() if name in images}
    if not named:
        raise NotFoundError(f"{source}: none of the {len(wanted)} references is there; see cig check")
    return _listed(f"{source}, references", named)


def is_utf8(name: str) -> bool:
    """Tell whether a name is UTF-8; file systems allow any bytes, which Python reads as lone surrogates."""
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


def _of_benchmark(source: str, root: Path | None) -> Mapping[str, Path]:
    family, _, split = source.partition("/")
    try:
        module = registry.load("benchmarks", family)
    except NotFoundError as error:
        raise NotFoundError(f"{source} is neither a folder of pictures nor a benchmark; {error}") from error
    if hasattr(module, "pictures") and split not in module.SPLITS:
        pictures: Mapping[str, Path] = module.pictures(split)
        return pictures
    parts = load_benchmarks(source, root)
    wanted = ((part, name) for part in parts for name in (*part.gallery, *(query.reference for query in part.queries)))
    return {name: part.images[name] for part, name in wanted if name in part.images}


def _listed(source: str, named: Mapping[str, Path]) -> PictureList:
    names, paths = tuple(named), tuple(named.values())
    rows = "\n".join(f"{name}\0{_size(path)}" for name, path in named.items())
    content = digest(rows.encode("utf-8", "surrogateescape"))
    return PictureList(names, paths, {"data": source, "pictures": f"{len(names)}", "digest": content})


def _size(path: Path) -> str:
    """Return the size in bytes; "" for a broken link, which is reported when it is read."""
    try:
        return str(path.stat().st_size)
    except OSError:
        return ""


@dataclass(frozen=True)
class PixelBatch:
    """A process's pictures of a step."""

    pixels: Tensor  # [b, 3, S, S], preprocessed: this process's share of the step
    names: tuple[str, ...]  # [b]
    same: Tensor  # [B, B] bool, of the whole step: which items are the same picture, and so true of each other's words


class PixelSource(Protocol):
    """A source of pictures for a phi."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Return source, count and digest."""

    @property
    def per_pass(self) -> int:
        """Return the number of pictures; 0 if they have no end."""

    def of(self, step: Step, count: int) -> PixelBatch:
        """Return this process's share of the `count` pictures of a step."""


@dataclass(frozen=True)
class DrawnPictures:
    """The pictures of a benchmark that makes new ones at every step."""

    pairs: DrawnPairs
    per_pass = 0

    @property
    def identity(self) -> Mapping[str, str]:
        return self.pairs.identity

    def of(self, step: Step, count: int) -> PixelBatch:
        batch = self.pairs.of(step, count)
        distinct = torch.eye(count, dtype=torch.bool)  # two drawings of one icon differ, too
        return PixelBatch(batch.pixels, batch.ids, distinct)


@dataclass(frozen=True)
class ListedPictures:
    """The pictures of a list: each once a pass, in an order that is shuffled anew for it."""

    pictures: PictureList
    decoder: Decoder
    order: Order

    @property
    def identity(self) -> Mapping[str, str]:
        return self.pictures.identity

    @property
    def per_pass(self) -> int:
        return len(self.pictures)

    def of(self, step: Step, count: int) -> PixelBatch:
        """Raise UsageError if a step has more pictures than the list."""
        pixels, indices, share = self.decoder.read_step(self.order, step, count, what="pictures")
        # A picture can come twice in a step: at the end of one pass and the start of the next, or as a replacement.
        every = torch.tensor(indices)
        names = tuple(self.pictures.names[index] for index in indices[share])
        return PixelBatch(pixels, names, every[:, None] == every)


def pixel_source(
    source: str,
    size: int,
    out: Path,
    *,
    root: Path | None = None,
    seed: int = 0,
    workers: int = 4,
    preprocess: ClipPreprocess | None = None,
) -> PixelSource:
    """Return the pictures of a folder or of a benchmark by name; one with pairs makes new ones at every step.

    Args:
        size: of the CLIP's input, in pixels.
        out: gets the names of pictures that cannot be read.
        seed: of the order of pictures.
        workers: threads that decode pictures.
        preprocess: the CLIP's. Default: the published one.
    """
    preprocess = preprocess or Preprocess(size)
    if has_pairs(source) and not os.path.isdir(source):
        return DrawnPictures(DrawnPairs(load_pairs(source), size, preprocess))
    pictures = load_pictures(source, root)
    unreadable = UnreadablePictures(out / UNREADABLE)
    path_at = pictures.paths.__getitem__
    decoder = Decoder(pictures.names, path_at, preprocess, unreadable=unreadable, workers=workers)
    return ListedPictures(pictures, decoder, Order(len(pictures), seed))
