"""Pictures with captions to learn from: the rows of a table, or a benchmark's pairs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor

from cig.errors import InputError, MismatchError, NotFoundError, some
from cig.io.dataset_paths import stays_below
from cig.io.digests import digest
from cig.io.files import UNPRINTABLE
from cig.io.images import Preprocess
from cig.io.tables import FORMS, each_row
from cig.models.preprocessing import ClipPreprocess, from_published
from cig.training.data import load_pairs
from cig.training.data.captions import COLUMNS, PackedTexts, select_column
from cig.training.data.decoding import UNREADABLE, Decoder, UnreadablePictures
from cig.training.step import Order, Step
from cig.types import PairBatch, Pairs

PICTURES = ("picture", "image")  # columns of a table, which may name the pictures


class PairSource(Protocol):
    """A source of pictures with captions for a CLIP."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Return source, count, digest, and the pairs that were left out."""

    def of(self, step: Step, count: int) -> PairBatch:
        """Return this process's share of the `count` pairs of a step, with the positives [count, count] of all."""

    def captions(self, count: int, rng: Random) -> list[str]:
        """Return some captions alone, which a tokenizer is trained on."""


@dataclass(frozen=True)
class DrawnPairs:
    """The pairs of a benchmark that makes new ones at every step."""

    pairs: Pairs
    size: int  # of the CLIP's input, in pixels
    preprocess: ClipPreprocess | None = None  # the CLIP's, where it is not the published one

    @property
    def identity(self) -> Mapping[str, str]:
        return self.pairs.identity

    def of(self, step: Step, count: int) -> PairBatch:
        """Raise MismatchError if the CLIP reads pictures of another size than the benchmark makes."""
        batch, share = self.pairs.batch(count, step.rng), step.rank_slice(count)
        drawn = batch.pixels.shape[-1]
        if drawn != self.size:
            raise MismatchError(
                f"the CLIP sees pictures of {self.size} pixels, and those of {self.identity['data']} have {drawn}; "
                f"take another CLIP, or bring pictures of your own"
            )
        pixels = from_published(batch.pixels[share], self.preprocess)
        return replace(batch, pixels=pixels, captions=batch.captions[share], ids=batch.ids[share])

    def captions(self, count: int, rng: Random) -> list[str]:
        return self.pairs.captions(count, rng)


@dataclass(frozen=True)
class TablePairs:
    """The pairs of a table: each once a pass, in an order that is shuffled anew for it.

    A caption is true of its own picture, of the same picture in another row, and of pictures with the same caption.
    """

    names: Sequence[str]
    texts: Sequence[str]
    identity: Mapping[str, str]
    decoder: Decoder
    order: Order

    def of(self, step: Step, count: int) -> PairBatch:
        """Raise UsageError if a step has more pairs than the table."""
        pixels, indices, share = self.decoder.read_step(self.order, step, count, what="pairs")
        names, texts = (tuple(column[index] for index in indices) for column in (self.names, self.texts))
        positives = _equal(names) | _equal(texts)
        return PairBatch(pixels, captions=texts[share], positives=positives, ids=names[share])

    def captions(self, count: int, rng: Random) -> list[str]:
        return [self.texts[index] for index in rng.sample(range(len(self.texts)), min(count, len(self.texts)))]


def pair_source(
    source: str,
    size: int,
    out: Path,
    *,
    column: str | None = None,
    seed: int = 0,
    workers: int = 4,
    preprocess: ClipPreprocess | None = None,
) -> PairSource:
    """Return the pairs of a table, or of a benchmark by NAME/SPLIT: icons/train.

    A table is CSV, TSV, JSON, JSONL or Parquet, with columns picture (or image) and caption (or text); a picture is a
    path below the table's folder.

    Args:
        size: of the CLIP's input, in pixels.
        out: gets the names of pictures that cannot be read.
        column: of the captions.
        seed: of the order of pairs.
        workers: threads that decode pictures.
        preprocess: the CLIP's. Default: the published one.

    Raises:
        NotFoundError: there is no such file.
        UsageError: the table has no such columns.
        InputError: it cannot be read, has no pair with a picture, or names a picture outside of its folder.
    """
    path, preprocess = Path(source), preprocess or Preprocess(size)
    if not os.path.isfile(path):
        if path.suffix.lower().removeprefix(".") in FORMS or os.path.isdir(path):
            raise NotFoundError(f"{source} is not a file; pairs come as a table ({', '.join(FORMS)}), or a benchmark's")
        return DrawnPairs(load_pairs(source), size, preprocess)
    names, texts, identity = _read(path, column)
    decoder = Decoder(
        names,
        lambda index: path.parent / names[index],
        preprocess,
        unreadable=UnreadablePictures(out / UNREADABLE),
        workers=workers,
    )
    return TablePairs(names, texts, identity, decoder=decoder, order=Order(len(names), seed))


def _read(path: Path, column: str | None) -> tuple[PackedTexts, PackedTexts, dict[str, str]]:
    """Return the names of pictures, their captions, and the identity of both."""
    names, texts = PackedTexts(), PackedTexts()
    left_out: dict[str, list[str]] = {"without a caption": [], "whose picture is not there": []}
    exists: dict[str, bool] = {}
    for number, name, text in _rows(path, column):
        if name not in exists:
            exists[name] = os.path.isfile(path.parent / name)
        if not text:
            left_out["without a caption"].append(f"row {number}")
        elif not exists[name]:
            left_out["whose picture is not there"].append(name)
        else:
            names.append(name)
            texts.append(text)
    summary = "; ".join(f"{len(rows)} {why}: {some(rows, 5)}" for why, rows in left_out.items() if rows)
    if not names:
        raise InputError(f"{path} has no pair with a picture ({summary})")
    content = digest(f"{names.digest} {texts.digest}".encode())
    identity = {"data": str(path), "pairs": f"{len(names)}", "digest": content}
    return names, texts, {**identity, "left out": summary} if summary else identity


def _rows(path: Path, column: str | None) -> Iterator[tuple[int, str, str]]:
    """Yield the number, picture and caption ("" for none) of each row."""
    captions, rows = select_column(each_row(path), path, column, defaults=COLUMNS)
    pictures, rows = select_column(rows, path, None, defaults=PICTURES)
    for number, row in enumerate(rows, 1):
        text = row.get(captions)
        name = _safe_path(row.get(pictures), f"{path}, row {number}")
        yield number, name, text.strip() if isinstance(text, str) else ""


def _safe_path(name: Any, row: str) -> str:
    """Return a picture's path below the table's folder; raises InputError for any other value."""
    if not isinstance(name, str) or not name or UNPRINTABLE.search(name):
        raise InputError(f"{row}: the picture should be a path, found {str(name)[:80]!r}")
    if not stays_below(name):
        raise InputError(f"{row}: {name[:80]!r} is not below the table's folder; write the path from there on")
    return name


def _equal(values: Sequence[str]) -> Tensor:
    """Return which values are equal: [B, B] bool."""
    numbers: dict[str, int] = {}
    keys = torch.tensor([numbers.setdefault(value, len(numbers)) for value in values])
    return keys[:, None] == keys
