"""References from the web: https only, no private address, bounded, and kept only if they are whole pictures."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cig.errors import PictureError
from cig.io import images
from cig.io.files import write_bytes
from cig.io.http import Resolve, Rules, Web, WebError, retried
from cig.io.images import decode_picture
from cig.runtime import progress

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
RULES = Rules(accept="image/*")
WAITS = (0.5, 2.0)  # seconds before the second and the third try


def is_url(name: str) -> bool:
    return "://" in name


def fetch_pictures(
    urls: Iterable[str], folder: Path, transport: httpx.AsyncBaseTransport | None = None, resolve: Resolve | None = None
) -> tuple[dict[str, Path], dict[str, str]]:
    """Each https address once, into a file named by it; what is there is not fetched again.

    Args:
        transport, resolve: as in Web.

    Returns:
        ({url: picture}, {url: why it was refused or cannot be had})
    """
    names = {url: hashlib.sha256(url.encode("utf-8", "backslashreplace")).hexdigest() for url in urls}
    there = {path.stem: path for path in folder.glob("[0-9a-f]*.*")} if folder.is_dir() else {}
    found = {url: there[name] for url, name in names.items() if name in there}
    failed: dict[str, str] = {}
    todo = [url for url in names if url not in found]
    if not todo:
        return found, failed
    with Web(RULES, transport, resolve) as web:

        async def get(url: str) -> tuple[bytes, str] | str:
            """(content, suffix), or what is wrong."""
            try:
                data = await retried(lambda: web.body(url), WAITS)
                return data, await asyncio.to_thread(suffix_of, data)
            except WebError as error:
                return str(error)
            except PictureError as error:
                return f"{url}: {error}"

        with contextlib.closing(web.each(todo, get)) as answers:  # also where it stops
            for url, got in progress(answers, len(todo), "fetch references", "picture"):
                if isinstance(got, str):
                    failed[url] = got
                    continue
                data, suffix = got
                found[url] = folder / f"{names[url]}{suffix}"
                write_bytes(found[url], data)
    return _in_order(found, names), _in_order(failed, names)


def _in_order(known: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    return {name: known[name] for name in names if name in known}


def suffix_of(data: bytes) -> str:
    """By what the content is, decoded whole; raises PictureError if it is no picture."""
    return images.suffix_of(decode_picture(data).image)
