"""Lists of the addresses of FashionIQ's pictures: `asin2url.{category}.txt` (`ASIN \\t URL`) and `{category}.json`.

Valid lines are kept as they are; every other line is reported with its number. Ids become names of files, so only
letters and digits pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cig.errors import InputError, UsageError, reason, some
from cig.io.files import read_bytes
from cig.io.json_files import read_json
from cig.io.outputs import write_output

ASIN = re.compile(r"[A-Za-z0-9]{1,32}")
LONGEST = 2048  # characters of an address
BRAND = "/images/G/01/"  # the shop's own pictures: logos and brands, not the product


@dataclass(frozen=True)
class UrlList:
    """Attributes:
    urls: id -> address, in the list's order.
    lines: how many lines are valid; an id may be repeated with the same address.
    refused: the other lines, each with its number and what is wrong.
    """

    urls: Mapping[str, str]
    lines: int
    refused: tuple[str, ...]

    def shared(self) -> dict[str, list[str]]:
        """Map each address that serves several ids to these."""
        asins: dict[str, list[str]] = {}
        for asin, url in self.urls.items():
            asins.setdefault(url, []).append(asin)
        return {url: names for url, names in asins.items() if len(names) > 1}

    def branded(self) -> list[str]:
        """List the ids whose address is a picture of the brand, not of the product."""
        return [asin for asin, url in self.urls.items() if BRAND in url]


def check_list(data: bytes) -> None:
    """Raise InputError for a web page, or other content without a valid line."""
    if not _collect(_text_entries(data)).urls:
        raise InputError("no list of addresses: no line is `ASIN, tab, URL`")


def read_urls(path: Path) -> UrlList:
    """Read a list; raises UsageError for another suffix than .txt and .json, InputError for another content."""
    if path.suffix == ".txt":
        return _collect(_text_entries(read_bytes(path)))
    if path.suffix == ".json":
        return _collect(_json_entries(path))
    raise UsageError(f"{path}: a list of addresses is a .txt (ASIN, tab, URL) or a .json ([{{asin, url}}, ...])")


def write_urls(path: Path, urls: Mapping[str, str]) -> None:
    """Write a list, as .txt or .json by its suffix."""
    if path.suffix not in (".txt", ".json"):
        raise UsageError(f"{path}: a list of addresses is written as .txt or .json")
    entries = [{"asin": asin, "url": url} for asin, url in urls.items()]
    text = "".join(f"{asin} \t {url}\n" for asin, url in urls.items())
    write_output(path, (json.dumps(entries, indent=1) + "\n" if path.suffix == ".json" else text).encode())


def convert(source: Path, target: Path) -> UrlList:
    """Write the valid lines of a list to another file, in the same form or the other.

    Raises:
        InputError: no line is valid; the target is left as it is.
    """
    listed = read_urls(source)
    if not listed.urls:
        wrong = f": {some(listed.refused, 3)}" if listed.refused else ", as it is empty"
        raise InputError(f"{source} has no valid id with an address{wrong}; {target} is not written")
    write_urls(target, listed.urls)
    return listed


def entry_problem(asin: Any, url: Any) -> str:
    """Say what is wrong with an entry; "" if nothing is."""
    if not isinstance(asin, str) or not ASIN.fullmatch(asin):
        return f"no id of letters and digits: {str(asin)[:40]!r}"
    if not isinstance(url, str) or not url:
        return "no address"
    if len(url) > LONGEST or not url.isprintable() or "\ufffd" in url:  # which replaces undecodable bytes
        return f"no address: {url[:60]!r}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError as error:
        return f"no address: {reason(error)}"
    return "" if usable else f"no http or https address: {url[:60]!r}"


UrlEntry = tuple[str, Any, Any]  # its position in words, id, address


def _text_entries(data: bytes) -> Iterator[UrlEntry]:
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        asin, *rest = (part.decode("utf-8", "replace") for part in raw.strip().split(None, 1))
        yield f"line {number}", asin, "".join(rest)


def _json_entries(path: Path) -> Iterator[UrlEntry]:
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: expected a list of {{asin, url}}, found {type(entries).__name__}")
    for number, entry in enumerate(entries):
        pair = entry if isinstance(entry, dict) else {}
        yield f"entry {number}", pair.get("asin"), pair.get("url")


def _collect(entries: Iterable[UrlEntry]) -> UrlList:
    urls: dict[str, str] = {}
    refused: list[str] = []
    lines = 0
    for position, asin, url in entries:
        wrong = entry_problem(asin, url)
        if not wrong and urls.setdefault(asin, url) != url:
            wrong = f"{asin} has another address already"
        if wrong:
            refused.append(f"{position}: {wrong}")
        else:
            lines += 1
    return UrlList(urls, lines, tuple(refused))
