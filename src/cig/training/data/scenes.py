"""Pictures of files as scenes: what is drawn, what it is asked for from, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from cig.errors import InputError, plain, some
from cig.io.digests import digest_of
from cig.io.images import Preprocess, read_picture
from cig.runtime import say
from cig.training.data.framing import Frame
from cig.training.data.picture_checks import WORKERS, look_over

T = TypeVar("T")
LEAST_AREA = 0.5  # of a picture, in an augmented view
JITTER = 0.2  # of brightness, contrast and colour, up and down


@dataclass(frozen=True)
class Example:
    """Something to draw."""

    name: str  # for messages; unique
    picture: Path  # what is drawn
    captions: tuple[str, ...]  # of which one is said; none: nothing is
    reference: Path | None = None  # what it is asked for from; None: the picture itself, augmented

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.picture, self.reference) if self.reference else (self.picture,)


class FileScenes:
    """Examples whose pictures can be read; the others are named, counted and left out.

    Args:
        data: what the user calls it.
        ledger: a file that remembers which pictures were looked at, so that a rerun need not decode them again.
        missing: names of examples that lack a file.
    """

    views = 1

    def __init__(
        self,
        data: str,
        examples: Sequence[Example],
        frame: Frame,
        ledger: Path | None = None,
        missing: Sequence[str] = (),
    ) -> None:
        self.frame, self.side = frame, frame.side
        wanted = dict.fromkeys(path for one in examples for path in one.paths)
        self.files, failed = look_over(wanted, frame, ledger)
        self.examples = [one for one in examples if not failed.keys() & one.paths]
        told = {**_left_out(data, examples, failed, missing), **_silent(data, self.examples)}
        self.identity = {"data": data, **self._described(), **told}

    def __len__(self) -> int:
        return len(self.examples)

    def names(self, places: Sequence[int]) -> list[str]:
        return [self.examples[place].name for place in places]

    def pictures(self, places: Sequence[int]) -> Tensor:
        return torch.stack(in_threads(self._picture, [self.examples[place] for place in places]))

    def framing(self, places: Sequence[int]) -> Tensor:
        own = [self.examples[place] for place in places]
        rows = [self.frame.conditioning(self.files[one.picture].size, one.name) for one in own]
        return torch.tensor(rows, dtype=torch.float32)

    def seen(self, places: Sequence[int], view: int, side: int, rng: Random) -> Tensor:
        preprocess = Preprocess(side, rgb_first=True)  # as the composer's
        return torch.stack(in_threads(lambda job: preprocess(_view(*job)), self._drawn(places, rng)))

    def references(self, places: Sequence[int], view: int, rng: Random) -> Tensor:
        return torch.stack(in_threads(lambda job: self.frame.cut(_view(*job), job[0].name), self._drawn(places, rng)))

    def said(self, places: Sequence[int], view: int, rng: Random) -> list[str]:
        return [rng.choice(self.examples[place].captions or ("",)) for place in places]

    def _drawn(self, places: Sequence[int], rng: Random) -> list[tuple[Example, int]]:
        """Examples, and what their views are drawn from."""
        return [(self.examples[place], rng.getrandbits(62)) for place in places]

    def _picture(self, example: Example) -> Tensor:
        return self.frame.cut(read_picture(example.picture).image, example.name)

    def _described(self) -> dict[str, str]:
        rows = [[one.name, *(self.files[path].digest for path in one.paths), *one.captions] for one in self.examples]
        framing = f"{self.side} pixels, {self.frame.crop} crops"
        return {"pictures": f"{len(rows)}", "framing": framing, "digest": digest_of(rows)}


def _left_out(
    data: str, examples: Sequence[Example], failed: Mapping[Path, str], missing: Sequence[str]
) -> dict[str, str]:
    """Says so; raises InputError where nothing is left."""
    names = [*missing, *(one.name for one in examples if failed.keys() & one.paths)]
    count = len(missing) + len(examples)
    whys = some([*failed.values(), *(f"{name}: no file" for name in missing)], 5)
    if len(names) == count:
        raise InputError(f"{data}: none of its {count} examples can be trained on: {whys}")
    if names:
        say(f"{len(names)} of {count} examples of {data} are left out: {whys}")
    return {"left out": f"{len(names)}: {_told(names)}"} if names else {}


def _silent(data: str, examples: Sequence[Example]) -> dict[str, str]:
    """Examples that say nothing, which may be meant: they are drawn from a view alone."""
    names = [one.name for one in examples if not one.captions]
    if names:
        say(f"{len(names)} of {len(examples)} examples of {data} have no caption: {some(names, 5)}")
    return {"without a caption": f"{len(names)}: {_told(names)}"} if names else {}


def _told(names: Sequence[str]) -> str:
    """In a checkpoint, which is refused with texts of any length."""
    return some(plain(name, 100) for name in names)


def _view(example: Example, seed: int) -> Image.Image:
    image = read_picture(example.reference or example.picture).image.convert("RGB")
    return image if example.reference else augmented(image, Random(seed))


def augmented(image: Image.Image, rng: Random) -> Image.Image:
    """Half of it or more, perhaps mirrored, a little lighter or darker, paler or stronger."""
    share = rng.uniform(LEAST_AREA, 1) ** 0.5
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height))
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    return image


def in_threads(job: Callable[[T], Tensor], items: Iterable[T]) -> list[Tensor]:
    """In order."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(job, items))
