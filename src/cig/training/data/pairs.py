"""Pictures with captions to learn from: a table of one's own, or those of a benchmark."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor

from cig.errors import InputError, NotFoundError, some
from cig.io.dataset_paths import stays_below
from cig.io.digests import digest
from cig.io.files import UNSAYABLE
from cig.io.images import Preprocess
from cig.io.tables import FORMS, each_row
from cig.training import processes
from cig.training.data import load_pairs
from cig.training.data.captions import COLUMNS, Packed, column_of, sampled
from cig.training.data.decoding import UNREADABLE, Decoder, Unreadable
from cig.training.data.pictures import need_enough, need_size
from cig.training.step import Order, Step
from cig.types import PairBatch, Pairs

PICTURES = ("picture", "image")  # columns that a table's pictures are looked for in


class PairSource(Protocol):
    """What a CLIP is trained on."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Source, count, digest, and what was left out."""

    def of(self, step: Step, count: int) -> PairBatch:
        """This process's share of the `count` pairs of a step, but the positives [count, count] of all."""

    def captions(self, count: int, rng: Random) -> list[str]:
        """Some captions alone: what a tokenizer is trained on."""


@dataclass(frozen=True)
class DrawnPairs:
    """Of a benchmark whose pairs are made anew at every step."""

    pairs: Pairs
    size: int  # of the pixels that the CLIP sees

    @property
    def identity(self) -> Mapping[str, str]:
        return self.pairs.identity

    def of(self, step: Step, count: int) -> PairBatch:
        """Raises MismatchError where the CLIP sees pictures of another size than the benchmark draws."""
        batch, own = self.pairs.batch(count, step.rng), step.own(count)
        need_size(batch.pixels, self.size, self.identity["data"])
        return replace(batch, pixels=batch.pixels[own], captions=batch.captions[own], ids=batch.ids[own])

    def captions(self, count: int, rng: Random) -> list[str]:
        return self.pairs.captions(count, rng)


@dataclass(frozen=True)
class TablePairs:
    """Of a table: each once a pass, in an order that is drawn anew for it; the preprocessing is CLIP's.

    A caption is true of its own picture, of the same picture in another row, and of pictures with the same caption.
    """

    names: Sequence[str]
    texts: Sequence[str]
    identity: Mapping[str, str]
    decoder: Decoder
    order: Order

    def of(self, step: Step, count: int) -> PairBatch:
        """Raises UsageError where a step has more pairs than there are."""
        need_enough(len(self.names), count, "pairs")
        own = step.own(count)
        places, following = (self.order.places(number, count) for number in (step.number, step.number + 1))
        seen, pixels = self.decoder.read(places[own], following[own])
        places = processes.everyones(seen)
        names, texts = (tuple(listed[place] for place in places) for listed in (self.names, self.texts))
        return PairBatch(pixels, texts[own], _same(names) | _same(texts), names[own])

    def captions(self, count: int, rng: Random) -> list[str]:
        return sampled(self.texts, count, rng)


def pair_source(
    source: str, size: int, out: Path, column: str | None = None, seed: int = 0, workers: int = 4
) -> PairSource:
    """Pairs by a table's file, or by a benchmark's NAME/SPLIT: icons/train.

    A table is CSV, TSV, JSON, JSONL or Parquet, with columns picture (or image) and caption (or text); a picture is a
    path below the table's folder.

    Args:
        size: of the pixels that the CLIP sees.
        out: gets the names of pictures that cannot be read.
        column: of the captions.
        seed: of the order in which pairs are seen.
        workers: threads that decode pictures.

    Raises:
        NotFoundError: no such file.
        UsageError: it has no such columns.
        InputError: it cannot be read, has no pair with a picture, or names a picture outside of its folder.
    """
    path = Path(source)
    if not os.path.isfile(path):
        if path.suffix.lower().removeprefix(".") in FORMS or os.path.isdir(path):
            raise NotFoundError(f"{source} is not a file; pairs come as a table ({', '.join(FORMS)}), or a benchmark's")
        return DrawnPairs(load_pairs(source), size)
    names, texts, identity = _read(path, column)
    unreadable = Unreadable(out / UNREADABLE)
    decoder = Decoder(names, lambda place: path.parent / names[place], Preprocess(size), unreadable, workers)
    return TablePairs(names, texts, identity, decoder, Order(len(names), seed))


def _read(path: Path, column: str | None) -> tuple[Packed, Packed, dict[str, str]]:
    """Pictures, captions, and what they are called in results."""
    names, texts = Packed(), Packed()
    left_out: dict[str, list[str]] = {"without a caption": [], "whose picture is not there": []}
    there: dict[str, bool] = {}
    for number, name, text in _rows(path, column):
        if name not in there:
            there[name] = os.path.isfile(path.parent / name)
        if not text:
            left_out["without a caption"].append(f"row {number}")
        elif not there[name]:
            left_out["whose picture is not there"].append(name)
        else:
            names.append(name)
            texts.append(text)
    told = "; ".join(f"{len(rows)} {why}: {some(rows, 5)}" for why, rows in left_out.items() if rows)
    if not names:
        raise InputError(f"{path} has no pair with a picture ({told})")
    content = digest(f"{names.digest} {texts.digest}".encode())
    identity = {"data": str(path), "pairs": f"{len(names)}", "digest": content}
    return names, texts, {**identity, "left out": told} if told else identity


def _rows(path: Path, column: str | None) -> Iterator[tuple[int, str, str]]:
    """Number, picture and caption ("" for none) of each row."""
    captions, rows = column_of(each_row(path), path, column, COLUMNS)
    pictures, rows = column_of(rows, path, None, PICTURES)
    for number, row in enumerate(rows, 1):
        text = row.get(captions)
        yield number, _inside(row.get(pictures), f"{path}, row {number}"), text.strip() if isinstance(text, str) else ""


def _inside(name: Any, place: str) -> str:
    """A picture's path below the table's folder; raises InputError for any other."""
    if not isinstance(name, str) or not name or UNSAYABLE.search(name):
        raise InputError(f"{place}: the picture should be a path, found {str(name)[:80]!r}")
    if not stays_below(name):
        raise InputError(f"{place}: {name[:80]!r} is not below the table's folder; write the path from there on")
    return name


def _same(values: Sequence[str]) -> Tensor:
    """[B, B] bool: which are equal."""
    numbers: dict[str, int] = {}
    keys = torch.tensor([numbers.setdefault(value, len(numbers)) for value in values])
    return keys[:, None] == keys
