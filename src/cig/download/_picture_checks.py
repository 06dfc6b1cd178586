"""What a body or a file is: a whole picture, or what else; who looks at it is never harmed by it."""

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
    suspicious: str = ""  # "tiny", "one colour": a placeholder in all likelihood


def examine(data: bytes) -> Content:
    """Of a picture that is to be taken: raises Refused for anything but a whole one that shows something."""
    content, (width, height) = _decode(data)
    if content.suspicious:
        told = {"tiny": f"a picture of {width} x {height} pixels", "one colour": "one colour all over"}
        raise Refused(told[content.suspicious], content.suspicious)
    return content


def _decode(data: bytes) -> tuple[Content, tuple[int, int]]:
    """(a whole picture, whatever it shows; its size)"""
    try:
        picture = decode_picture(data)
        image = to_rgb(picture)
    except PictureError as error:
        kind = failure_kind(data, error)
        raise Refused(INSTEAD.get(kind, str(error)), kind) from error
    suspicious = suspicion(image.size, is_blank(image))
    return Content(data, suffix_of(picture.image), picture.digest, suspicious), image.size


def examine_file(path: Path, most: int) -> Content | Refused:
    """Of a file that is to be taken. Args: most: bytes; a larger file is not read."""
    try:
        size = stat_file(path).st_size
    except CigError as error:
        return Refused(str(error), "damaged", path)
    return Refused(f"{size:,} bytes, over {most:,}", "too large", path) if size > most else _file(path, examine)


def examine_files(paths: Iterable[Path], most: int) -> Iterator[tuple[Path, Content | Refused]]:
    """In threads, a few files ahead of their use."""
    return _each(paths, lambda path: examine_file(path, most))


def look_at_files(paths: Iterable[Path]) -> Iterator[tuple[Path, Content | Refused]]:
    """Of files that lie there already: what an evaluation would read is a picture, whatever it shows; in threads."""
    with evaluation_pixel_limit():
        yield from _each(paths, lambda path: _file(path, lambda data: _decode(data)[0]))


def _file(path: Path, judge: Callable[[bytes], Content]) -> Content | Refused:
    try:
        return judge(read_bytes(path))
    except Refused as error:
        return Refused(str(error), error.kind, path)
    except CigError as error:
        return Refused(str(error), "damaged", path)


def _each(
    paths: Iterable[Path], judge: Callable[[Path], Content | Refused]
) -> Iterator[tuple[Path, Content | Refused]]:
    with ThreadPoolExecutor(DECODERS) as pool:
        for batch in batches(list(paths), 2 * DECODERS):
            yield from zip(batch, pool.map(judge, batch), strict=True)
