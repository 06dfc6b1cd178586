"""Examples from files as scenes: a picture to draw, the view that conditions the generator, and captions."""

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
from cig.runtime import warn
from cig.training.data.framing import Frame
from cig.training.data.picture_checks import WORKERS, check_pictures

T = TypeVar("T")
LEAST_AREA = 0.5  # of a picture, in an augmented view
JITTER = 0.2  # range of brightness, contrast and colour, up and down


@dataclass(frozen=True)
class Example:
    """A picture to draw, its captions and its reference."""

    name: str  # for messages; unique
    picture: Path
    captions: tuple[str, ...]  # a step draws one; it may have none
    reference: Path | None = None  # None: the picture itself, augmented

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.picture, self.reference) if self.reference else (self.picture,)


class FileScenes:
    """Examples whose pictures can be read; the others are named, counted and left out.

    Args:
        data: the user's name for the data.
        ledger: a file that remembers which pictures were checked, so that a rerun does not decode them again.
        missing: names of examples that lack a file.
    """

    views = 1

    def __init__(
        self,
        data: str,
        examples: Sequence[Example],
        frame: Frame,
        *,
        ledger: Path | None = None,
        missing: Sequence[str] = (),
    ) -> None:
        self.frame, self.side = frame, frame.side
        wanted = dict.fromkeys(path for example in examples for path in example.paths)
        self.files, failed = check_pictures(wanted, frame, ledger)
        self.examples = [example for example in examples if not failed.keys() & example.paths]
        counts = {**_left_out(data, examples, failed, missing=missing), **_without_caption(data, self.examples)}
        self.identity = {"data": data, **self._content(), **counts}

    def __len__(self) -> int:
        return len(self.examples)

    def names(self, indices: Sequence[int]) -> list[str]:
        return [self.examples[index].name for index in indices]

    def pictures(self, indices: Sequence[int]) -> Tensor:
        def square(example: Example) -> Tensor:
            return self.frame.cut(read_picture(example.picture).image, example.name)

        return torch.stack(in_threads(square, [self.examples[index] for index in indices]))

    def framing(self, indices: Sequence[int]) -> Tensor:
        examples = [self.examples[index] for index in indices]
        rows = [self.frame.conditioning(self.files[example.picture].size, example.name) for example in examples]
        return torch.tensor(rows, dtype=torch.float32)

    def seen(self, indices: Sequence[int], view: int, side: int, *, rng: Random) -> Tensor:
        preprocess = Preprocess(side, rgb_first=True)  # the composer's
        return torch.stack(in_threads(lambda drawn: preprocess(_view(*drawn)), self._views(indices, rng)))

    def references(self, indices: Sequence[int], view: int, rng: Random) -> Tensor:
        views = self._views(indices, rng)
        return torch.stack(in_threads(lambda drawn: self.frame.cut(_view(*drawn), drawn[0].name), views))

    def said(self, indices: Sequence[int], view: int, rng: Random) -> list[str]:
        return [rng.choice(self.examples[index].captions or ("",)) for index in indices]

    def _views(self, indices: Sequence[int], rng: Random) -> list[tuple[Example, int]]:
        """Return the examples, each with the seed of its view."""
        return [(self.examples[index], rng.getrandbits(62)) for index in indices]

    def _content(self) -> dict[str, str]:
        rows = [
            [example.name, *(self.files[path].digest for path in example.paths), *example.captions]
            for example in self.examples
        ]
        framing = f"{self.side} pixels, {self.frame.crop} crops"
        return {"pictures": f"{len(rows)}", "framing": framing, "digest": digest_of(rows)}


def _left_out(
    data: str, examples: Sequence[Example], failed: Mapping[Path, str], *, missing: Sequence[str]
) -> dict[str, str]:
    """Report the examples that are left out; raises InputError if none remains."""
    names = [*missing, *(example.name for example in examples if failed.keys() & example.paths)]
    count = len(missing) + len(examples)
    whys = some([*failed.values(), *(f"{name}: no file" for name in missing)], 5)
    if len(names) == count:
        raise InputError(f"{data}: none of its {count} examples can be trained on: {whys}")
    if names:
        warn(f"{len(names)} of {count} examples of {data} are left out: {whys}")
    return {"left out": f"{len(names)}: {_listed(names)}"} if names else {}


def _without_caption(data: str, examples: Sequence[Example]) -> dict[str, str]:
    """Report the examples without a caption, which may be intended: the view alone conditions the generator."""
    names = [example.name for example in examples if not example.captions]
    if names:
        warn(f"{len(names)} of {len(examples)} examples of {data} have no caption: {some(names, 5)}")
    return {"without a caption": f"{len(names)}: {_listed(names)}"} if names else {}


def _listed(names: Sequence[str]) -> str:
    """Return names for the checkpoint, cut so that a message about it stays short."""
    return some(plain(name, 100) for name in names)


def _view(example: Example, seed: int) -> Image.Image:
    image = read_picture(example.reference or example.picture).image.convert("RGB")
    return image if example.reference else augmented(image, Random(seed))


def augmented(image: Image.Image, rng: Random) -> Image.Image:
    """Crop at least half of a picture's area, perhaps mirror it, and vary brightness, contrast and colour a little."""
    share = rng.uniform(LEAST_AREA, 1) ** 0.5
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height))
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    return image


def in_threads(read: Callable[[T], Tensor], items: Iterable[T]) -> list[Tensor]:
    """Read all items in threads; return the tensors in order."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(read, items))
