"""Vocabularies of names: a text file, a table, or Open Images' class names, which are downloaded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cig.config import user_cache
from cig.errors import InputError, NotFoundError, plain, some
from cig.io.addresses import named_hosts
from cig.io.digests import digest
from cig.io.files import read_bytes, write_bytes
from cig.io.http import Rules, Web, WebError, retried
from cig.io.tables import FORMS, each_row, read_rows
from cig.runtime import warn
from cig.training.data.concepts import FORMS as TABLES
from cig.training.data.concepts import PICTURE, read_concepts

OPEN_IMAGES = "open-images"
ADDRESS = "https://storage.googleapis.com/openimages/v7/oidv7-class-descriptions.csv"
NAME = "DisplayName"  # the column of Open Images' file
MOST = 8 * 2**20  # bytes; that file has half a MB


@dataclass(frozen=True)
class Vocabulary:
    """Distinct names, in the order of their file."""

    names: tuple[str, ...]
    identity: Mapping[str, Any]  # source, digest and count of names, counts of blank lines and of repeated names


def load_vocabulary(source: str | Path, address: str = ADDRESS) -> Vocabulary:
    """Load the names of a file: a line each, or the column DisplayName of a table; or "open-images".

    Names are stripped. Blank lines and repeated names are dropped and counted in a message.

    Args:
        address: of Open Images' file.

    Raises:
        NotFoundError: there is no such file.
        InputError: the file has no names, cannot be read, or cannot be downloaded.
    """
    path = open_images(address) if str(source) == OPEN_IMAGES else Path(source)
    return of_names(_lines(path), str(source))


def load_concepts(source: str, address: str = ADDRESS) -> tuple[str, ...]:
    """Return the distinct names in a table of concepts, in its order; else those of `load_vocabulary`."""
    path = Path(source)
    if path.suffix.lower() in TABLES and path.is_file() and PICTURE in next(each_row(path), ()):
        return tuple(dict.fromkeys(name for names in read_concepts(path).values() for name in names))
    return load_vocabulary(source, address).names


def of_names(lines: Iterable[str], source: str) -> Vocabulary:
    """Return the distinct names; raises InputError if there are none, or one has a lone surrogate, as JSON allows."""
    counts = Counter(line.strip() for line in lines)
    blank = counts.pop("", 0)
    again = {name: count for name, count in counts.items() if count > 1}
    if not counts:
        raise InputError(f"{source} has no names; give one a line")
    if odd := [name for name in counts if name.encode("utf-8", "replace").decode() != name]:
        raise InputError(f"{source}: {len(odd)} names are no text, the first of them {ascii(odd[0])[:60]}")
    if blank or again:
        named = some((plain(name, 60) for name in again), 5)
        warn(f"{source}: {blank} lines are blank, {len(again)} names come again and count once {named}".rstrip())
    content = {"source": source, "sha256": digest("\n".join(counts).encode())}
    return Vocabulary(tuple(counts), {**content, "names": len(counts), "blank": blank, "again": len(again)})


def _lines(path: Path) -> list[str]:
    if path.suffix.lower().removeprefix(".") in FORMS:
        rows = read_rows(path)
        for row in rows:
            if not isinstance(row.get(NAME), str):
                raise InputError(f"{path}: no name in the column {NAME}; its columns are {some(map(str, row))}")
        return [row[NAME] for row in rows]
    try:
        return read_bytes(path).decode("utf-8-sig").removesuffix("\n").split("\n")
    except NotFoundError as error:
        raise NotFoundError(f"{error}: give a file of names, or {OPEN_IMAGES}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from error


def open_images(address: str = ADDRESS) -> Path:
    """Return the file of Open Images V7's class names (Google, CC BY 4.0), downloaded once into the user's cache.

    Args:
        address: another address, which the user typed, may be http and on a private network.

    Raises:
        WebError: it cannot be downloaded.
        InputError: the response is something else.
    """
    name = "oidv7-class-descriptions" if address == ADDRESS else digest(address.encode())[:16]
    path = user_cache() / "vocabularies" / f"{name}.csv"
    if not path.is_file():
        write_bytes(path, _download(address))
    return path


def _download(address: str) -> bytes:
    rules = Rules(most=MOST, proxies=True)
    if address != ADDRESS:
        rules = replace(rules, schemes=("http", "https"), trusted=named_hosts([address]))
    try:
        with Web(rules) as web:
            ((_, data),) = web.each([address], lambda url: retried(lambda: web.body(url)))
    except WebError as error:
        hint = "fetch it by other means, and give the file with --vocabulary"
        raise WebError(f"{error}; {hint}", error.kind, error.again, after=error.after) from error
    if NAME.encode() not in data.partition(b"\n")[0]:
        raise InputError(f"{address} is no list of class names: its first line has no column {NAME}")
    return data
