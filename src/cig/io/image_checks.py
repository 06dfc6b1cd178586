"""What a picture's file is at a look, without a model: whole, or what else; blank, or a hash of what it shows.

The hash is dHash (Krawetz, 2013): grey, 9 x 8 pixels, and a bit for each pixel that is darker than its right neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cig.errors import CigError, PictureError, PixelsError, reason
from cig.io.files import read_bytes
from cig.io.images import Picture, decode_picture
from cig.runtime import batches, progress

BATCH = 64
SMALLEST = 8  # pixels a side: smaller ones count visits, and show nothing
BITS = 64  # of a hash
ROWS = 4  # of hashes that are compared at once with all others: more leave the processor's cache
PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body|\?xml)", re.I | re.S)
MARKS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")  # how pictures begin

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Look:
    """At a picture that can be decoded whole."""

    digest: str  # sha256 of the file
    size: tuple[int, int]
    blank: bool  # one colour all over, as models see it: without transparency
    hash: int  # dHash, 64 bits; says nothing of a blank picture

    @property
    def suspicious(self) -> str:
        return suspicion(self.size, self.blank)


@dataclass(frozen=True)
class Trouble:
    """At a file that cannot be."""

    kind: str  # "empty", "web page", "no picture" (any other content), "too large", "damaged" (cut off, unreadable)
    why: str  # the file, and what more there is to say


def look(path: Path) -> Look | Trouble:
    try:
        data = read_bytes(path)
    except CigError as error:
        return Trouble("damaged", str(error))
    try:
        picture = decode_picture(data)
        image = as_seen(picture)
    except PictureError as error:
        kind = kind_of(data, error)
        return Trouble(kind, f"{path}: {error}" if kind in ("too large", "damaged") else str(path))
    return Look(picture.digest, image.size, is_blank(image), difference_hash(image))


def as_seen(picture: Picture) -> Image.Image:
    """RGB, as models see it: without transparency; raises PictureError where it cannot be."""
    try:
        return picture.image.convert("RGB")
    except Exception as error:  # converters raise whatever a strange mode makes them
        raise PictureError(f"cannot be converted ({picture.image.mode}): {reason(error)}") from error


def is_blank(image: Image.Image) -> bool:
    """Of an RGB picture: one colour all over."""
    return image.getcolors(1) is not None


def suspicion(size: tuple[int, int], blank: bool) -> str:
    """ "tiny" or "one colour" of what is a placeholder in all likelihood; "" of a picture that shows something."""
    return "tiny" if min(size) < SMALLEST else "one colour" if blank else ""


def look_at(paths: Iterable[Path], workers: int, what: str) -> dict[Path, Look | Trouble]:
    """Each distinct path once, in threads; a stop is heeded between batches."""
    distinct = list(dict.fromkeys(paths))
    seen: dict[Path, Look | Trouble] = {}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for batch in progress(batches(distinct, BATCH), -(-len(distinct) // BATCH), what, "batch"):
            seen |= zip(batch, pool.map(look, batch), strict=True)
    return seen


def kind_of(data: bytes, error: PictureError) -> str:
    """What it is that cannot be decoded, as in Trouble."""
    if isinstance(error, PixelsError):
        return "too large"
    if not data:
        return "empty"
    if PAGE.match(data[:2048]):
        return "web page"
    unknown = isinstance(error.__cause__, UnidentifiedImageError) and not data.startswith(MARKS)
    return "no picture" if unknown else "damaged"


def difference_hash(image: Image.Image) -> int:
    """dHash of an RGB picture: two that show the same, at any size and quality, differ in few of its 64 bits."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes(), "big")


def near(hashes: Hashes, most: int) -> NDArray[np.intp]:
    """[N]: for each of the hashes the place of another one at most so many bits away, -1 where there is none.

    All pairs are compared, which is exact, and takes 123,403 pictures (CIRCO) some 20 seconds.
    """
    found = np.full(len(hashes), -1, dtype=np.intp)
    for start in range(0, len(hashes), ROWS):
        rows = hashes[start : start + ROWS]
        close = np.bitwise_count(rows[:, None] ^ hashes[None, start:]) <= most
        close[:, : len(rows)] &= np.triu(np.ones((len(rows), len(rows)), dtype=np.bool_), 1)  # each pair once
        if close.any():
            earlier, later = np.flatnonzero(close.any(axis=1)), np.flatnonzero(close.any(axis=0))
            found[start + later] = start + close[:, later].argmax(axis=0)
            found[start + earlier] = start + close[earlier].argmax(axis=1)
    return found
