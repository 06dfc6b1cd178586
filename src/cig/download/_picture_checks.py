"""Check pictures from a server or a folder: accept whole pictures, and say what anything else is.

Contents are hostile until checked: files are bounded before they are read, and pixels before they are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cig.errors import CigError, PictureError
from cig.io.files import read_bytes, stat_file
from cig.io.image_checks import failure_kind, is_blank, suspicion, to_rgb
from cig.io.images import decode_picture, evaluation_pixel_limit, suffix_of
from cig.runtime import batches

DECODERS = 4  # threads; each holds a decoded picture
REASONS = {  # where the decoder's error says less than the kind
    "web page": "a web page in the place of a picture",
    "no picture": "other content in the place of a picture",
    "empty": "nothing in it",
}


class Refused(PictureError):
    """Content that is not kept as a picture.

    Attributes:
        kind: "empty", "web page", "no picture" (any other content), "damaged" (cut off or broken), "too large",
            "tiny", "one colour".
        path: the file, if it is one.
    """

    def __init__(self, message: str, kind: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.kind, self.path = kind, path


@dataclass(frozen=True)
class Content:
    """A picture that decodes whole, as received."""

    data: bytes
    suffix: str  # by content
    digest: str  # sha256
    suspicious: str = ""  # "tiny" or "one colour": probably a placeholder


def examine(data: bytes) -> Content:
    """Check a new picture; raises Refused for anything but a whole picture that shows something."""
    content, (width, height) = _decode(data)
    if content.suspicious:
        reasons = {"tiny": f"a picture of {width} x {height} pixels", "one colour": "one colour all over"}
        raise Refused(reasons[content.suspicious], content.suspicious)
    return content


def _decode(data: bytes) -> tuple[Content, tuple[int, int]]:
    """Decode a whole picture, even a blank one, and return it with its size."""
    try:
        picture = decode_picture(data)
        image = to_rgb(picture)
    except PictureError as error:
        kind = failure_kind(data, error)
        raise Refused(REASONS.get(kind, str(error)), kind) from error
    suspicious = suspicion(image.size, is_blank(image))
    return Content(data, suffix_of(picture.image), picture.digest, suspicious), image.size


def examine_file(path: Path, most: int) -> Content | Refused:
    """Check a new file. Args: most: bytes; a larger file is not read."""
    try:
        size = stat_file(path).st_size
    except CigError as error:
        return Refused(str(error), "damaged", path)
    return Refused(f"{size:,} bytes, over {most:,}", "too large", path) if size > most else _file(path, examine)


def examine_files(paths: Iterable[Path], most: int) -> Iterator[tuple[Path, Content | Refused]]:
    """Check new files in threads, a few ahead of their use."""
    return _each(paths, lambda path: examine_file(path, most))


def check_files(paths: Iterable[Path]) -> Iterator[tuple[Path, Content | Refused]]:
    """Check existing files in threads: an evaluation would read any that decodes, even a blank one."""
    with evaluation_pixel_limit():
        yield from _each(paths, lambda path: _file(path, lambda data: _decode(data)[0]))


def _file(path: Path, check: Callable[[bytes], Content]) -> Content | Refused:
    try:
        return check(read_bytes(path))
    except Refused as error:
        return Refused(str(error), error.kind, path)
    except CigError as error:
        return Refused(str(error), "damaged", path)


def _each(
    paths: Iterable[Path], check: Callable[[Path], Content | Refused]
) -> Iterator[tuple[Path, Content | Refused]]:
    with ThreadPoolExecutor(DECODERS) as pool:
        for batch in batches(list(paths), 2 * DECODERS):
            yield from zip(batch, pool.map(check, batch), strict=True)
