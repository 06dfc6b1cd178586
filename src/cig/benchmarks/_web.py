"""Fetch references from the web: https only, no private address, bounded, and kept only if they decode whole."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cig.errors import PictureError
from cig.io import images
from cig.io.files import write_bytes
from cig.io.http import Resolve, Rules, Web, WebError, retried
from cig.io.images import decode_picture
from cig.runtime import progress

if TYPE_CHECKING:
    import httpx

RULES = Rules(accept="image/*")
WAITS = (0.5, 2.0)  # seconds before the second and the third try


def is_url(name: str) -> bool:
    return "://" in name


def fetch_pictures(
    urls: Iterable[str],
    folder: Path,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    resolve: Resolve | None = None,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Fetch each https address once, into a file named by its digest; existing files are kept.

    Args:
        transport, resolve: as in Web.

    Returns:
        ({url: picture}, {url: why it was refused or cannot be fetched})
    """
    names = {url: hashlib.sha256(url.encode("utf-8", "backslashreplace")).hexdigest() for url in urls}
    existing = {path.stem: path for path in folder.glob("[0-9a-f]*.*")} if folder.is_dir() else {}
    pictures = {url: existing[name] for url, name in names.items() if name in existing}
    failed: dict[str, str] = {}
    todo = [url for url in names if url not in pictures]
    if not todo:
        return pictures, failed
    with Web(RULES, transport, resolve) as web:

        async def get(url: str) -> tuple[bytes, str] | str:
            """Return (content, suffix), or what is wrong."""
            try:
                data = await retried(lambda: web.body(url), WAITS)
                return data, await asyncio.to_thread(suffix_of, data)
            except WebError as error:
                return str(error)
            except PictureError as error:
                return f"{url}: {error}"

        with contextlib.closing(web.each(todo, get)) as answers:  # cancels the others on an error or interrupt
            for url, got in progress(answers, len(todo), "fetch references", unit="picture"):
                if isinstance(got, str):
                    failed[url] = got
                    continue
                data, suffix = got
                pictures[url] = folder / f"{names[url]}{suffix}"
                write_bytes(pictures[url], data)
    ordered = {url: pictures[url] for url in names if url in pictures}  # answers come in any order
    return ordered, {url: failed[url] for url in names if url in failed}


def suffix_of(data: bytes) -> str:
    """Return the suffix of a picture's format; raises PictureError unless it decodes whole."""
    return images.suffix_of(decode_picture(data).image)
