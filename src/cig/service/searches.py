"""A search as it is sent, and as it is answered."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cig.errors import PixelsError
from cig.io.files import write_bytes
from cig.io.images import most_pixels, suffix_of
from cig.pipelines.index import Hit, Index
from cig.retrieval.finder import ComposedQuery, Wanted, need_sight
from cig.service.settings import MOST_PICTURES
from cig.service.uploads import Form, decoded, finite_rows, wrong

MOST_LETTERS = 4000  # of a text; a CLIP reads 77 tokens
MOST_HITS = 1000
SEVERAL = {"picture": MOST_PICTURES, "where": 50}  # how many


@dataclass(frozen=True)
class SearchFields:
    """The fields of `POST /v1/search`, checked."""

    images: tuple[bytes, ...] = ()
    picture: tuple[str, ...] = ()
    text: str = ""
    without: str = ""
    k: int = 10
    where: tuple[str, ...] = ()
    group_by: str = ""
    min_score: float | None = None
    imagine: bool = False

    @staticmethod
    def of(form: Form) -> SearchFields:
        """Check a form; raise a Problem that names the wrong field."""
        form.check(tuple(CHECKS), ("image",))
        values = {name: [one for one in given if one is not None] for name, given in form.grouped().items()}
        if "where" in values:
            values["where"] = [text for text in values["where"] if text != ""]  # a form's field that was left empty
        for name, given in values.items():
            if len(given) > 1 and name not in SEVERAL:
                raise wrong(f"{name} is given {len(given)} times")
        checked = {name: CHECKS[name](given, name) for name, given in values.items() if given}
        fields = SearchFields(images=tuple(data for _, data in form.files), **checked)
        if not (fields.images or fields.picture or fields.text):
            raise wrong("what is looked for? Give image, picture or text")
        if fields.imagine and not (fields.text and (fields.images or fields.picture)):
            raise wrong("imagine makes a picture of a picture and a text: give both")
        return fields


def _texts(values: Sequence[Any], name: str) -> tuple[str, ...]:
    if len(values) > SEVERAL[name]:
        raise wrong(f"{name}: at most {SEVERAL[name]}")
    return tuple(_text([value], name) for value in values)


def _text(values: Sequence[Any], name: str) -> str:
    value = values[0]
    if not isinstance(value, str) or len(value) > MOST_LETTERS or "\0" in value:
        raise wrong(f"{name} should be a text of at most {MOST_LETTERS} letters")
    return value


def _whole(values: Sequence[Any], name: str) -> int:
    number = _number(values, name)
    if number != int(number) or not 1 <= number <= MOST_HITS:
        raise wrong(f"{name} should be a whole number, 1 to {MOST_HITS}")
    return int(number)


def _number(values: Sequence[Any], name: str) -> float:
    try:
        number = float("" if isinstance(values[0], bool) else values[0])
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong(f"{name} should be a number") from error
    if not math.isfinite(number):
        raise wrong(f"{name} should be a finite number")
    return number


def _flag(values: Sequence[Any], name: str) -> bool:
    word = str(values[0]).lower()
    if word not in ("true", "false", "1", "0"):
        raise wrong(f"{name} should be true or false")
    return word in ("true", "1")


CHECKS: dict[str, Callable[[Sequence[Any], str], Any]] = {
    "picture": _texts,
    "text": _text,
    "without": _text,
    "k": _whole,
    "where": _texts,
    "group_by": _text,
    "min_score": _number,
    "imagine": _flag,
}


class Uploads:
    """The pictures that came with a query, in a temporary folder of their own, under our names."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.pixels = 0

    async def write(self, images: Sequence[bytes]) -> tuple[Path, ...]:
        """Write pictures and return their paths; raises PictureError for what is none, or too many pixels together."""
        if images:
            self._folder = temporary_folder()
        return tuple([await self._write(number, data) for number, data in enumerate(images)])

    async def _write(self, number: int, data: bytes) -> Path:
        assert self._folder
        image = (await decoded(data)).image
        self.pixels += image.width * image.height
        if self.pixels > most_pixels():
            raise PixelsError(f"the pictures have more than {most_pixels()} pixels together (--max-pixels)")
        path = Path(self._folder.name) / f"{number}{suffix_of(image)}"
        write_bytes(path, data, sync=False)
        return path

    def cleanup(self) -> None:
        if self._folder:
            self._folder.cleanup()


def composed(fields: SearchFields, index: Index, images: Sequence[Path]) -> tuple[ComposedQuery, Wanted]:
    """Return the query, and the hits that are wanted: without the pictures of the index that it starts from."""
    entries = {name: index.get(name) for name in fields.picture}
    for name, entry in entries.items():
        if entry is None:
            raise wrong(f"picture: the index has no {name[:100]!r}")
    named = {name: index.path_of(entry) for name, entry in entries.items() if entry}
    for name, path in named.items():
        if not path.is_file():
            raise wrong(f"picture: the file of {name[:100]!r} is gone")
    paths = [*images, *named.values()]
    need_sight(index.method, paths)
    wanted = index.wanted(fields.k, fields.where, group_by=fields.group_by or None, min_score=fields.min_score)
    wanted = replace(wanted, select=replace(wanted.select, leave_out=fields.picture))
    return ComposedQuery(tuple(paths), fields.text, fields.without), wanted


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cig-serve-", ignore_cleanup_errors=True)


def thumbnail_address(name: str) -> str:
    return f"/v1/pictures/{quote(name)}/thumbnail"


def shown(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Return hits as the service answers them."""
    return [
        {
            "name": hit.name,
            "score": hit.score,
            "metadata": finite_rows(hit.metadata),
            "thumbnail": thumbnail_address(hit.name),
        }
        for hit in hits
    ]
