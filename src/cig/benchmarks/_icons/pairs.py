"""Icons to train on: batches of painted drawings and captions, made anew at every step from the step's seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cig.benchmarks._icons.captions import caption, distracted
from cig.benchmarks._icons.corpus import INKS, Icon, picture_name, read_split
from cig.io.digests import digest
from cig.io.images import MEAN, STD
from cig.types import PairBatch

SIBLINGS = 3  # icons of the same object beside each drawn one: they differ in what captions say
SAME_INK = 0.5  # share of siblings in the ink of the first
WEIGHTS_OF_ONE = {"ph": 0.45}  # draws fewer icons from a set with five weights of each
INK_NOISE = 0.06
SIDE = 64  # of a drawing, in pixels


class IconPairs:
    """The training split as (picture, caption) pairs.

    Args:
        made_up_words: in half of a batch's captions. They come late (recipes/icons/train.sh): a CLIP that reads
            them from the start is worse for textual inversion.
    """

    def __init__(self, made_up_words: bool = True) -> None:
        self.icons, drawings = read_split("train")
        self.made_up_words = made_up_words
        name = "icons/train" if made_up_words else "icons/plain"
        self.identity = {"data": name, "digest": digest(drawings.tobytes() + repr(self.icons).encode())}
        self.drawings = torch.from_numpy(drawings)
        weights = np.array([WEIGHTS_OF_ONE.get(icon.prefix, 1.0) for icon in self.icons])
        self.cumulative = weights.cumsum() / weights.sum()
        families: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, icon in enumerate(self.icons):
            families[icon.prefix, icon.object].append(row)
        self.siblings = [families[icon.prefix, icon.object] for icon in self.icons]
        self.badges = {
            family: sorted({self.icons[row].badge for row in rows} - {""}) for family, rows in families.items()
        }

    def captions(self, count: int, rng: Random) -> list[str]:
        """Write captions of random icons, for a tokenizer or a text-only objective."""
        return [self._caption(self._draw(rng), rng.choice(list(INKS)), rng) for _ in range(count)]

    def batch(self, size: int, rng: Random) -> PairBatch:
        """Draw `size` pairs; a picture is right for every caption that is true of it."""
        rows: list[int] = []
        inks: list[str] = []
        while len(rows) < size:
            first, ink = self._draw(rng), rng.choice(list(INKS))
            siblings = self.siblings[first]
            family = [first, *(rng.sample(siblings, SIBLINGS) if len(siblings) > SIBLINGS else siblings)]
            for number, row in enumerate(family[: size - len(rows)]):
                rows.append(row)
                inks.append(ink if number == 0 or rng.random() < SAME_INK else rng.choice(list(INKS)))
        captions = [self._caption(row, ink, rng) for row, ink in zip(rows, inks, strict=True)]
        if self.made_up_words:
            captions = [distracted(text, rng) for text in captions]
        icons = [self.icons[row] for row in rows]
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        pixels = normalised(augmented(self.drawings[rows], inks, generator))
        names = tuple(map(picture_name, icons, inks))
        return PairBatch(pixels, tuple(captions), true_of(captions, icons, inks), names)

    def _draw(self, rng: Random) -> int:
        return int(np.searchsorted(self.cumulative, rng.random()))

    def _caption(self, row: int, ink: str, rng: Random) -> str:
        icon = self.icons[row]
        others = self.badges[icon.prefix, icon.object]
        return caption(icon, ink, rng, without=rng.choice(others) if others else "")


def true_of(captions: Sequence[str], icons: Sequence[Icon], inks: Sequence[str]) -> Tensor:
    """Tell whether caption i is true of picture j: [B, B] bool; style and ink may be omitted, all else must agree."""
    keys = _numbered([icon.key[:4] for icon in icons])
    styles, colours = _numbered([icon.style for icon in icons]), _numbered(inks)
    said = [set(text.replace(",", "").split()) for text in captions]
    says_style = torch.tensor([icon.style in words for icon, words in zip(icons, said, strict=True)])
    says_ink = torch.tensor([ink in words for ink, words in zip(inks, said, strict=True)])
    same: Tensor = keys[:, None] == keys
    same &= (styles[:, None] == styles) | ~says_style[:, None]
    return same & ((colours[:, None] == colours) | ~says_ink[:, None])


def _numbered(values: Sequence[object]) -> Tensor:
    numbers: dict[object, int] = {}
    return torch.tensor([numbers.setdefault(value, len(numbers)) for value in values])


def augmented(drawings: Tensor, inks: Sequence[str], generator: torch.Generator) -> Tensor:
    """Scale, turn and shift drawings, vary strokes and inks: [B, 64, 64] uint8 -> [B, 3, 64, 64] in 0..1."""
    count = len(drawings)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    scale, angle = 1 / (0.82 + 0.28 * uniform(count)), 0.1 * (uniform(count) - 0.5)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale * torch.cos(angle)
    matrix[:, 1, 0] = scale * torch.sin(angle)
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    matrix[:, :, 2] = 0.16 * (uniform(count, 2) - 0.5)
    shares = drawings.float()[:, None] / 255
    shares = functional.grid_sample(
        shares, functional.affine_grid(matrix, list(shares.shape), align_corners=False), align_corners=False
    )
    stroke = uniform(count)
    bolder, thinner = stroke < 0.2, stroke > 0.88
    shares[bolder] = functional.max_pool2d(shares[bolder], 3, 1, 1)
    shares[thinner] = 0.5 * shares[thinner] - 0.5 * functional.max_pool2d(-shares[thinner], 3, 1, 1)
    exact = colours(inks)
    near = (exact + INK_NOISE * torch.randn(exact.shape, generator=generator)).clamp(0, 1)
    return painted(shares, near)


def viewed(drawings: Tensor, inks: Sequence[str], side: int, *, rng: Random) -> Tensor:
    """Augment and preprocess drawings for a CLIP: [B, 64, 64] uint8 -> [B, 3, side, side]."""
    generator = torch.Generator().manual_seed(rng.getrandbits(62))
    shown = normalised(augmented(drawings, inks, generator))
    return shown if shown.shape[-1] == side else functional.interpolate(shown, size=(side, side), mode="bilinear")


def plain(drawings: Tensor, inks: Sequence[str]) -> Tensor:
    """Paint drawings for a VAE: [B, 64, 64] uint8 -> [B, 3, 64, 64] in -1..1."""
    return painted(drawings.float()[:, None] / 255, colours(inks)) * 2 - 1


def uncropped(count: int) -> Tensor:
    """Return the framing of whole square pictures, as in `Scenes.framing`: [count, 6]."""
    return torch.tensor([[SIDE, SIDE, 0.0, 0.0, SIDE, SIDE]]).expand(count, -1)


def painted(shares: Tensor, colours: Tensor) -> Tensor:
    """Paint shares of ink [B, 1, H, W] with inks [B, 3] on white paper: [B, 3, H, W], all in 0..1."""
    return 1 - shares * (1 - colours[:, :, None, None])


def normalised(pictures: Tensor) -> Tensor:
    """Normalise pictures as CLIP does: [B, 3, H, W] in 0..1."""
    return (pictures - torch.from_numpy(MEAN)[:, None, None]) / torch.from_numpy(STD)[:, None, None]


def colours(inks: Sequence[str]) -> Tensor:
    """Return the colours of inks: [B, 3] in 0..1."""
    return torch.tensor([INKS[ink] for ink in inks], dtype=torch.float32) / 255
