"""Framing: a square is cut from a picture of any shape, and conditions SDXL (Podell et al., 2023, section 2.2).

The short side is resized to the resolution, and a square is cropped from the middle or from a random position.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cig.errors import UsageError
from cig.io.images import check_pixels

Crop = Literal["centre", "random"]
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Frame:
    """A square of `side` pixels.

    Attributes:
        crop: "random" depends on the picture's name alone: the same at every step, and in every process.
    """

    side: int = 1024
    crop: Crop = "centre"

    def __post_init__(self) -> None:
        if self.side % 8 or self.side < 8:
            raise UsageError(f"--resolution {self.side}: SDXL's VAE wants a multiple of 8, such as 512 or 1024")

    def resized(self, size: Size) -> Size:
        """Return the size after resizing; raises PixelsError if a long picture would have too many pixels."""
        short = min(size)
        width, height = (max(self.side, round(length * self.side / short)) for length in size)
        check_pixels(width, height, "resized, it would be ")
        return width, height

    def corner(self, size: Size, name: str) -> Size:
        """Return left and top of the crop in the resized picture."""
        left, top = (length - self.side for length in self.resized(size))
        if self.crop == "centre":
            return left // 2, top // 2
        rng = Random(f"crop of {name}".encode("utf-8", "surrogateescape"))
        return rng.randint(0, left), rng.randint(0, top)

    def cut(self, image: Image.Image, name: str) -> Tensor:
        """Return the square [3, side, side] in -1..1."""
        left, top = self.corner(image.size, name)
        resized = image.convert("RGB").resize(self.resized(image.size), Image.Resampling.LANCZOS)
        square = resized.crop((left, top, left + self.side, top + self.side))
        pixels = np.asarray(square, dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def conditioning(self, size: Size, name: str) -> tuple[int, int, int, int, int, int]:
        """Return original height and width, top and left of the crop, height and width of the square."""
        (width, height), (left, top) = size, self.corner(size, name)
        return height, width, top, left, self.side, self.side
