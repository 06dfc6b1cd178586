"""What a body or a file is: a whole picture, or what else; who looks at it is never harmed by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cig.errors import CigError, PictureError, reason
from cig.formats import read_bytes, stat_file
from cig.images import decode_picture, suffix_of
from cig.looks import SMALLEST, kind_of
from cig.runtime import batches

DECODERS = 4  # threads; each holds a decoded picture
INSTEAD = {  # of what is no picture at all, a decoder has nothing better to say
    "web page": "a web page in the place of a picture",
    "no picture": "other content in the place of a picture",
    "empty": "nothing in it",
}


class Refused(PictureError):
    """What is no picture to keep.

    Attributes:
        kind: "empty", "web page", "no picture" (any other content), "damaged" (cut off or broken), "too large",
            "tiny", "one colour".
        path: of a file.
    """

    def __init__(self, message: str, kind: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.kind, self.path = kind, path


@dataclass(frozen=True)
class Content:
    """A picture that can be decoded whole, as received."""

    data: bytes
    suffix: str  # by content
    digest: str  # sha256


def examine(data: bytes) -> Content:
    """Raises Refused for anything but a whole picture that shows something."""
    try:
        picture = decode_picture(data)
    except PictureError as error:
        kind = kind_of(data, error)
        raise Refused(INSTEAD.get(kind, str(error)), kind) from error
    image = picture.image
    if min(image.size) < SMALLEST:
        raise Refused(f"a picture of {image.width} x {image.height} pixels", "tiny")
    if _is_blank(image):
        raise Refused("one colour all over", "one colour")
    return Content(data, suffix_of(image), picture.digest)


def examine_file(path: Path, most: int) -> Content | Refused:
    """Args: most: bytes; a larger file is not read."""
    try:
        size = stat_file(path).st_size
        if size > most:
            return Refused(f"{size:,} bytes, over {most:,}", "too large", path)
        return examine(read_bytes(path))
    except Refused as error:
        return Refused(str(error), error.kind, path)
    except CigError as error:
        return Refused(str(error), "damaged", path)


def examine_files(paths: Iterable[Path], most: int) -> Iterator[tuple[Path, Content | Refused]]:
    """In threads, a few files ahead of their use."""
    with ThreadPoolExecutor(DECODERS) as pool:
        for batch in batches(list(paths), 2 * DECODERS):
            yield from zip(batch, pool.map(lambda path: examine_file(path, most), batch), strict=True)


def _is_blank(image: Image.Image) -> bool:
    """One colour all over, as models see it: without transparency."""
    try:
        return all(low == high for low, high in map(Image.Image.getextrema, image.convert("RGB").split()))
    except Exception as error:  # converters raise whatever a strange mode makes them
        raise Refused(f"cannot be converted ({image.mode}): {reason(error)}", "damaged") from error
