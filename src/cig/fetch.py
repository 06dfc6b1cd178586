"""Pictures from the web, fetched as hostile things: https only, no private address, bounded, and kept only if whole.

The address that was checked is the one that is connected to, so that a name which changes its address in between
(DNS rebinding) gains nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from cig.errors import PictureError, UsageError, reason
from cig.formats import make_folder, write_bytes
from cig.images import decode_picture
from cig.runtime import progress

if TYPE_CHECKING:
    import httpx

MOST = 32 * 2**20  # bytes
PATIENCE = 60.0  # seconds, for all of one picture
REDIRECTS = 3
WAITS = (0.5, 2.0)  # seconds before the second and the third try
CARRYING = [  # IPv6 addresses that lead to an IPv4 address, or to a site
    *map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "fec0::/10"))
]
Resolve = Callable[[str, int], list[str]]


class FetchError(PictureError):
    """A picture that cannot be had; `again` where another try may help."""

    def __init__(self, message: str, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


def is_url(name: str) -> bool:
    return "://" in name


def fetch_pictures(
    urls: Iterable[str], folder: Path, transport: httpx.BaseTransport | None = None, resolve: Resolve | None = None
) -> tuple[dict[str, Path], dict[str, str]]:
    """Each https address once, into a file named by it; what is there is not fetched again.

    Args:
        transport: httpx's, by default; no redirect is followed by it, and no cookies or credentials are sent.
        resolve: (host, port) -> its addresses.

    Returns:
        ({url: picture}, {url: why it was refused or cannot be had})
    """
    names = {url: hashlib.sha256(url.encode("utf-8", "backslashreplace")).hexdigest() for url in urls}
    there = {path.stem: path for path in folder.glob("[0-9a-f]*.*")} if folder.is_dir() else {}
    found = {url: there[name] for url, name in names.items() if name in there}
    failed: dict[str, str] = {}
    todo = [url for url in names if url not in found]
    for url in progress(todo, len(todo), "fetch references", "picture"):
        try:
            with _limited(transport) as client:
                data = _patiently(url, client, resolve or _addresses)
            path = make_folder(folder) / f"{names[url]}{_suffix(url, data)}"
        except FetchError as error:
            failed[url] = str(error)
            continue
        write_bytes(path, data)
        found[url] = path
    return found, failed


@contextlib.contextmanager
def _limited(transport: httpx.BaseTransport | None) -> Iterator[httpx.Client]:
    """A client that is closed when the time is over, whatever it waits for then: a slow drip of headers, too."""
    try:
        import httpx
    except ImportError as error:
        raise UsageError("references by URL need httpx: pip install 'cig[data]'") from error
    options: dict[str, Any] = {"transport": transport, "timeout": 15, "follow_redirects": False}
    with httpx.Client(**options, trust_env=False) as client:  # a proxy would choose the address
        bell = threading.Timer(PATIENCE, client.close)
        bell.daemon = True
        bell.start()
        try:
            yield client
        finally:
            bell.cancel()


def _patiently(url: str, client: httpx.Client, resolve: Resolve) -> bytes:
    deadline = time.monotonic() + PATIENCE
    for wait in (*WAITS, None):
        try:
            return _follow(url, client, resolve, deadline)
        except FetchError as error:
            if time.monotonic() > deadline:
                raise FetchError(f"{url}: not done after {PATIENCE:.0f} seconds") from error
            if wait is None or not error.again or time.monotonic() + wait > deadline:
                raise
        time.sleep(wait)
    raise AssertionError  # the last try returned or raised


def _follow(url: str, client: httpx.Client, resolve: Resolve, deadline: float) -> bytes:
    at = url
    for _ in range(REDIRECTS + 1):
        with _asked(at, client, resolve) as response:
            if not response.is_redirect:
                return _read(url, response, deadline)
            at = _next(url, at, response.headers.get("location", ""))
    raise FetchError(f"{url}: more than {REDIRECTS} redirects")


def _next(url: str, at: str, location: str) -> str:
    try:
        return urljoin(at, location)
    except ValueError as error:
        raise FetchError(f"{url} leads to no address: {reason(error)}") from error


@contextlib.contextmanager
def _asked(url: str, client: httpx.Client, resolve: Resolve) -> Iterator[httpx.Response]:
    """The answer to one request, at an address that was looked at."""
    import httpx

    host, port, address = _public_address(url, resolve)
    parts = urlsplit(url)
    shown = f"[{address}]" if ":" in address else address
    target = parts._replace(netloc=f"{shown}:{port}", fragment="").geturl()
    headers = {
        "Host": host if port == 443 else f"{host}:{port}",
        "User-Agent": "cig",
        "Accept": "image/*",
        "Accept-Encoding": "identity",
    }
    try:
        with client.stream("GET", target, headers=headers, extensions={"sni_hostname": host}) as response:
            yield response
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, RuntimeError) as error:
        raise FetchError(f"{url} cannot be fetched: {reason(error)}", again=True) from error


def _public_address(url: str, resolve: Resolve) -> tuple[str, int, str]:
    """(host, port, address); raises FetchError for what is no https address of the public internet."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port or 443
    except ValueError as error:
        raise FetchError(f"{url} is no address: {reason(error)}") from error
    if parts.scheme != "https" or not host or parts.username is not None:
        raise FetchError(f"{url}: only https addresses without a user name are fetched")
    try:
        addresses = resolve(host, port)
    except OSError as error:
        raise FetchError(f"{url}: no address of {host}: {reason(error)}", again=True) from error
    private = [own for own in addresses if not _is_public(own)]
    if private or not addresses:
        raise FetchError(
            f"{url}: {host} is {private[0] if private else 'nowhere'}, not on the public internet; refused"
        )
    return host, port, addresses[0]


def _addresses(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _is_public(address: str) -> bool:
    own = ipaddress.ip_address(address.partition("%")[0])
    if own.version == 6 and any(own in network for network in CARRYING):
        return False
    own = getattr(own, "ipv4_mapped", None) or own
    return own.is_global and not own.is_multicast and not own.is_reserved


def _read(url: str, response: httpx.Response, deadline: float) -> bytes:
    if response.status_code != 200:
        again = response.status_code == 429 or response.status_code >= 500
        raise FetchError(f"{url}: the server answers {response.status_code}", again)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise FetchError(f"{url}: the answer is packed, which nobody asked for; refused")
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > MOST:
            raise FetchError(f"{url}: over {MOST // 2**20} MB; refused")
        if time.monotonic() > deadline:
            raise FetchError(f"{url}: not done after {PATIENCE:.0f} seconds")
    return bytes(data)


def _suffix(url: str, data: bytes) -> str:
    """By what the content is, decoded whole; raises FetchError if it is no picture."""
    try:
        image = decode_picture(data).image
    except PictureError as error:
        raise FetchError(f"{url}: {error}") from error
    return {"JPEG": ".jpg", "WEBP": ".webp"}.get(image.format or "", ".png")
