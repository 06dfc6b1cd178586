"""How a picture of any shape becomes a square to draw, and what SDXL is told of it (Podell et al., 2023, section 2.2).

Its short side is resized to the resolution, and a square is cut out, from the middle or anywhere.
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
    """A square of so many pixels.

    Attributes:
        crop: "random" is drawn from the picture's name: the same at every step, and in every process.
    """

    side: int = 1024
    crop: Crop = "centre"

    def __post_init__(self) -> None:
        if self.side % 8 or self.side < 8:
            raise UsageError(f"--resolution {self.side}: SDXL's VAE wants a multiple of 8, such as 512 or 1024")

    def resized(self, size: Size) -> Size:
        """Raises PixelsError for a picture so long that it would have too many pixels."""
        short = min(size)
        width, height = (max(self.side, round(own * self.side / short)) for own in size)
        check_pixels(width, height, "resized, it would be ")
        return width, height

    def corner(self, size: Size, name: str) -> Size:
        """Left and top of the crop, in the picture resized."""
        left, top = (own - self.side for own in self.resized(size))
        if self.crop == "centre":
            return left // 2, top // 2
        rng = Random(f"crop of {name}".encode("utf-8", "surrogateescape"))
        return rng.randint(0, left), rng.randint(0, top)

    def cut(self, image: Image.Image, name: str) -> Tensor:
        """[3, side, side] in -1..1."""
        left, top = self.corner(image.size, name)
        resized = image.convert("RGB").resize(self.resized(image.size), Image.Resampling.LANCZOS)
        square = resized.crop((left, top, left + self.side, top + self.side))
        pixels = np.asarray(square, dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def conditioning(self, size: Size, name: str) -> tuple[int, int, int, int, int, int]:
        """Original height and width, top and left of the crop, height and width drawn."""
        (width, height), (left, top) = size, self.corner(size, name)
        return height, width, top, left, self.side, self.side
