"""Check image files without a model: whether they decode, whether they are blank, and which look alike.

Pictures are compared by dHash (Krawetz, 2013): scale to 9 x 8 grey pixels, and set a bit for each pixel that is darker
than its right neighbour.
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
SMALLEST = 8  # pixels a side: smaller pictures are tracking pixels and show nothing
BITS = 64  # of a hash
ROWS = 4  # hashes compared at once with all others: more of them overflow the processor's cache
PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body|\?xml)", re.I | re.S)
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")  # the first bytes of picture files

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class ReadableImage:
    """An image file that decodes whole."""

    digest: str  # sha256 of the file
    size: tuple[int, int]
    blank: bool  # one colour everywhere, as models see it: without transparency
    hash: int  # dHash, 64 bits; meaningless for a blank picture

    @property
    def suspicious(self) -> str:
        return suspicion(self.size, self.blank)


@dataclass(frozen=True)
class UnreadableImage:
    """A file that does not decode as an image."""

    kind: str  # "empty", "web page", "no picture" (any other content), "too large", "damaged" (cut off, unreadable)
    why: str  # the file, and the error if it says more than the kind


def check_image(path: Path) -> ReadableImage | UnreadableImage:
    try:
        data = read_bytes(path)
    except CigError as error:
        return UnreadableImage("damaged", str(error))
    try:
        picture = decode_picture(data)
        image = to_rgb(picture)
    except PictureError as error:
        kind = failure_kind(data, error)
        return UnreadableImage(kind, f"{path}: {error}" if kind in ("too large", "damaged") else str(path))
    return ReadableImage(picture.digest, image.size, blank=is_blank(image), hash=difference_hash(image))


def to_rgb(picture: Picture) -> Image.Image:
    """Convert to RGB, as models see a picture: without transparency; raises PictureError if that fails."""
    try:
        return picture.image.convert("RGB")
    except Exception as error:  # Pillow raises many kinds of errors for unusual modes
        raise PictureError(f"cannot be converted ({picture.image.mode}): {reason(error)}") from error


def is_blank(image: Image.Image) -> bool:
    """Tell whether an RGB picture has one colour everywhere."""
    return image.getcolors(1) is not None


def suspicion(size: tuple[int, int], blank: bool) -> str:
    """Return "tiny" or "one colour" for a picture that is probably a placeholder, "" for any other."""
    return "tiny" if min(size) < SMALLEST else "one colour" if blank else ""


def check_images(paths: Iterable[Path], workers: int, what: str) -> dict[Path, ReadableImage | UnreadableImage]:
    """Check each distinct path once, in threads; an interrupt takes effect between batches."""
    distinct = list(dict.fromkeys(paths))
    checks: dict[Path, ReadableImage | UnreadableImage] = {}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for batch in progress(batches(distinct, BATCH), -(-len(distinct) // BATCH), what, unit="batch"):
            checks |= zip(batch, pool.map(check_image, batch), strict=True)
    return checks


def failure_kind(data: bytes, error: PictureError) -> str:
    """Classify a content that did not decode, as UnreadableImage.kind."""
    if isinstance(error, PixelsError):
        return "too large"
    if not data:
        return "empty"
    if PAGE.match(data[:2048]):
        return "web page"
    unknown = isinstance(error.__cause__, UnidentifiedImageError) and not data.startswith(MAGIC)
    return "no picture" if unknown else "damaged"


def difference_hash(image: Image.Image) -> int:
    """Compute the dHash of an RGB picture: copies of one picture, at any size and quality, differ in few bits."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes(), "big")


def near_duplicates(hashes: Hashes, most: int) -> NDArray[np.intp]:
    """Return, for each of N hashes, the index of another at most so many bits away, or -1: [N].

    The search compares all pairs, so it is exact; 123,403 pictures (CIRCO) take some 20 seconds.
    """
    neighbours = np.full(len(hashes), -1, dtype=np.intp)
    for start in range(0, len(hashes), ROWS):
        rows = hashes[start : start + ROWS]
        close = np.bitwise_count(rows[:, None] ^ hashes[None, start:]) <= most
        close[:, : len(rows)] &= np.triu(np.ones((len(rows), len(rows)), dtype=np.bool_), 1)  # each pair once
        if close.any():
            earlier, later = np.flatnonzero(close.any(axis=1)), np.flatnonzero(close.any(axis=0))
            neighbours[start + later] = start + close[:, later].argmax(axis=0)
            neighbours[start + earlier] = start + close[earlier].argmax(axis=1)
    return neighbours
