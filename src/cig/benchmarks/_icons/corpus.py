"""The packed corpus: 64 x 64 drawings in 4-bit grey, their names and attributes; painting applies an ink.

`recipes/icons/build.py` builds it from public icon sets; docs/icons.md is its datasheet.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from cig.errors import InputError

SIDE = 64
PACKED = SIDE * SIDE // 2  # bytes of a drawing
INKS = {
    "black": (20, 20, 20),
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "green": (40, 160, 60),
    "blue": (40, 90, 220),
    "purple": (140, 60, 190),
    "brown": (130, 80, 40),
    "pink": (240, 110, 180),
}
SPLITS = {
    "train": ("mdi", "ph", "material-symbols", "lucide", "carbon", "bi", "mingcute", "iconoir", "hugeicons"),
    "val": ("tabler", "fluent"),
    "test": ("tdesign", "mynaui", "clarity", "f7", "majesticons", "stash", "proicons"),
}


@dataclass(frozen=True)
class Icon:
    """The parsed name of a drawing: an object and four attributes, "" where it has none.

    Attributes:
        prefix: its set, e.g. "tabler".
        variant: tells apart drawings of the same thing within a set; they are interchangeable.
    """

    prefix: str
    name: str
    object: str
    badge: str = ""
    enclosure: str = ""
    direction: str = ""
    style: str = "outlined"
    variant: str = ""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What the icon depicts: icons with the same key are interchangeable."""
        return self.object, self.badge, self.enclosure, self.direction, self.style


def assets() -> Traversable:
    """Return the folder of icons in the package."""
    return resources.files("cig").joinpath("assets", "icons")


def pack(drawings: np.ndarray) -> bytes:
    """Compress drawings [N, 64, 64] uint8 to 4 bits a pixel; grey levels become multiples of 17."""
    levels = ((drawings.astype(np.uint16) + 8) // 17).astype(np.uint8)
    return compress(((levels[:, :, 0::2] << 4) | levels[:, :, 1::2]).tobytes())


def compress(content: bytes) -> bytes:
    """Compress to xz, as small as possible: slow, but done once for what is shipped."""
    smallest = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "nice_len": 273}
    return lzma.compress(content, filters=[smallest])


def unpack(content: bytes, count: int) -> np.ndarray:
    """Decompress `count` drawings from pack.

    Raises:
        InputError: the content is broken, or holds another number of drawings.
    """
    try:
        raw = lzma.LZMADecompressor(memlimit=1 << 28).decompress(content, max_length=count * PACKED + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise InputError(f"the packed drawings are broken: {error}; install cig again") from error
    if len(raw) != count * PACKED:
        raise InputError(f"the packed drawings hold {len(raw) / PACKED:.2f} icons, not {count}; install cig again")
    halves = np.frombuffer(raw, np.uint8).reshape(count, SIDE, SIDE // 2)
    return np.stack([halves >> 4, halves & 15], axis=-1).reshape(count, SIDE, SIDE) * np.uint8(17)


@cache
def _contents() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(lzma.decompress(assets().joinpath("corpus.json.xz").read_bytes()))
    return content


@cache
def read_set(prefix: str) -> tuple[tuple[Icon, ...], np.ndarray]:
    """Read the icons of one set, and their drawings [N, 64, 64] uint8."""
    icons = tuple(Icon(prefix, *row) for row in _contents()["sets"][prefix]["icons"])
    return icons, unpack(assets().joinpath(f"{prefix}.xz").read_bytes(), len(icons))


def read_split(split: str) -> tuple[tuple[Icon, ...], np.ndarray]:
    """Read the icons of train, val or test, and their drawings [N, 64, 64] uint8."""
    icons, drawings = zip(*map(read_set, SPLITS[split]), strict=True)
    return tuple(chain.from_iterable(icons)), np.concatenate(drawings)


def licences() -> dict[str, dict[str, str]]:
    """Map each set to its title, author, version, licence and address."""
    return {prefix: content["about"] for prefix, content in _contents()["sets"].items()}


def paint(drawing: np.ndarray, ink: str) -> Image.Image:
    """Paint a drawing [64, 64] in an ink on white paper."""
    share = drawing.astype(np.float32)[..., None] / 255
    colours = 255 + share * (np.array(INKS[ink], np.float32) - 255)
    return Image.fromarray(np.round(colours).astype(np.uint8))


def picture_name(icon: Icon, ink: str) -> str:
    """ "tabler/folder-lock.red.png" """
    return f"{icon.prefix}/{icon.name}.{ink}.png"


def rows(icons: Iterable[Icon]) -> Iterator[Sequence[str]]:
    """Yield the rows of corpus.json."""
    for icon in icons:
        yield icon.name, *icon.key, icon.variant
