"""Fetch references from the web: https only, no private address, bounded, and kept only if they decode whole."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cig.errors import InputError, plain
from cig.io import images
from cig.io.files import write_bytes
from cig.io.http import Resolve, Rules, Web, WebError, retried
from cig.io.images import decode_picture
from cig.runtime import progress

if TYPE_CHECKING:
    import httpx

K = TypeVar("K")
T = TypeVar("T")
RULES = Rules(accept="image/*")
LONGEST = 200  # letters of a reason
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
    todo = {url: url for url in names if url not in pictures}
    if not todo:
        return pictures, {}

    def read(data: bytes) -> tuple[bytes, str]:
        return data, suffix_of(data)

    def keep(url: str, picture: tuple[bytes, str]) -> None:
        data, suffix = picture
        pictures[url] = folder / f"{names[url]}{suffix}"
        write_bytes(pictures[url], data)

    with Web(RULES, transport, resolve) as web:
        failed = fetch_each(web, todo, read, keep=keep, waits=WAITS, what=("fetch references", "picture"))
    ordered = {url: pictures[url] for url in names if url in pictures}  # answers come in any order
    return ordered, {url: failed[url] for url in names if url in failed}


def fetch_each(
    web: Web,
    urls: Mapping[K, str],
    read: Callable[[bytes], T],
    *,
    keep: Callable[[K, T], object],
    waits: Sequence[float],
    what: tuple[str, str],
) -> dict[K, str]:
    """Fetch addresses side by side, and return why some cannot be fetched.

    Args:
        read: turns an answer into a result, in a thread; raises InputError for an unexpected content.
        keep: takes each key and result.
        waits: seconds before further tries.
        what: is fetched, and the unit to count it by.
    """
    failed: dict[K, str] = {}

    async def get(key: K) -> T | str:
        try:
            data = await retried(lambda: web.body(urls[key]), waits)
            return await asyncio.to_thread(read, data)
        except WebError as error:
            return str(error)
        except InputError as error:
            return f"{urls[key]}: {error}"

    # Closed here rather than when it is collected: an interrupt cancels what is under way before the connection closes.
    with contextlib.closing(web.each(urls, get)) as answers:
        for key, result in progress(answers, len(urls), what[0], unit=what[1]):
            if isinstance(result, str):
                failed[key] = result
            else:
                keep(key, result)
    return failed


def count_reasons(failed: Mapping[str, str]) -> str:
    """Sum up {address: why}: how many addresses, and each reason with its count, the most frequent first."""
    reasons = Counter(why.removeprefix(address).lstrip(": ") for address, why in failed.items())
    counted = "; ".join(f"{plain(why, LONGEST)}: {count:,}" for why, count in reasons.most_common())
    return f"{len(failed):,} ({counted})"


def suffix_of(data: bytes) -> str:
    """Return the suffix of a picture's format; raises PictureError unless it decodes whole."""
    return images.suffix_of(decode_picture(data).image)
