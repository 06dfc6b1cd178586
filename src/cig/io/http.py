"""Asking strangers' servers: addresses that are looked at, bounded answers, patience; nothing they say is believed.

The address that was checked is the one that is connected to, so that a name which changes its address in between
(DNS rebinding) gains nothing. Requests run on a thread of their own: callers need no async, and may be in a notebook.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

from cig.errors import InputError, UsageError, reason

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
R = TypeVar("R")
Resolve = Callable[[str, int], list[str]]
Mind = Callable[[str], contextlib.AbstractAsyncContextManager[object]]
Kind = Literal[
    "address", "unreachable", "redirects", "gone", "refused", "busy", "failing", "packed", "too large", "slow", "range"
]
PORTS = {"http": 80, "https": 443}
NO_COOKIES = DefaultCookiePolicy(allowed_domains=[])
KINDS: Mapping[int, Kind] = {404: "gone", 410: "gone", 416: "range", 429: "busy", 503: "busy"}
CARRYING = [  # IPv6 addresses that lead to an IPv4 address, or to a site
    *map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "fec0::/10"))
]


class WebError(InputError):
    """What cannot be had.

    Attributes:
        again: whether another try may help.
        after: seconds that the server asked to wait before it.
    """

    def __init__(self, message: str, kind: Kind, again: bool = False, after: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.again, self.after = kind, again, after


@dataclass(frozen=True)
class Rules:
    """What may be asked, and how much is taken.

    Attributes:
        trusted: hosts (`name` or `name:port`) that the user named: they may be on a private network.
        most: bytes of a body.
        patience: seconds for one answer, its body included; each redirect has as many.
        per_host: requests to one host at a time.
    """

    schemes: tuple[str, ...] = ("https",)
    trusted: frozenset[str] = frozenset()
    most: int = 32 * 2**20
    patience: float = 60.0
    redirects: int = 3
    per_host: int = 8
    accept: str = "*/*"


@dataclass
class _Host:
    """One server: its connections are not another's, though they may share an address."""

    client: httpx.AsyncClient
    gate: asyncio.Semaphore
    address: str = ""  # where it was found; asked for again after a failure


@dataclass
class Web:
    """A place to ask from; use it in a `with`, which ends its thread and connections.

    Args:
        transport: httpx's, by default; no redirect is followed by it, and no cookies or credentials are sent.
        resolve: (host, port) -> its addresses.
        mind: entered with a host's name for each request to it, redirects too, once it is its turn: may wait, or refuse
            by a WebError; sees how it went.
    """

    rules: Rules
    transport: httpx.AsyncBaseTransport | None = None
    resolve: Resolve | None = None
    mind: Mind = contextlib.nullcontext
    _hosts: dict[str, _Host] = field(default_factory=dict)

    def __enter__(self) -> Web:
        try:
            import httpx  # noqa: F401
        except ImportError as error:
            raise UsageError("this asks the web, and needs httpx: pip install 'cig[data]'") from error
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._start(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def read(self, url: str) -> bytes:
        """The whole body of one answer; raises WebError."""
        return self._start(self.body(url)).result()

    def each(
        self, items: Iterable[T], ask: Callable[[T], Coroutine[Any, Any, R]], at_once: int = 32
    ) -> Generator[tuple[T, R]]:
        """(item, what `ask` returned), as they come; at most so many are under way, so a long list costs no memory."""
        waiting, running = iter(items), dict[Future[R], T]()
        try:
            while True:
                for item in itertools.islice(waiting, at_once - len(running)):
                    running[self._start(ask(item))] = item
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        finally:
            for left in running:
                left.cancel()
            wait(running)

    def beats(self, work: Coroutine[Any, Any, object], every: float = 0.5) -> Generator[None]:
        """One so many seconds while `work` is under way, whose error is raised; it ends when this is closed."""
        task = self._start(_begun(work)).result()
        try:
            while not self._start(_ended(task, every)).result():
                yield
            task.result()
        finally:
            self._loop.call_soon_threadsafe(task.cancel)
            self._start(_ended(task)).result()

    async def body(self, url: str) -> bytes:
        """For `each`: the whole body of one answer; raises WebError."""
        async with self.answer(url) as response:
            return b"".join([chunk async for chunk in chunks(url, response, self.rules.most)])

    @contextlib.asynccontextmanager
    async def answer(
        self, url: str, headers: Mapping[str, str] | None = None, large: bool = False
    ) -> AsyncIterator[httpx.Response]:
        """An answer with a body that was not read yet; redirects are followed to places that may be asked, too.

        Args:
            large: the body may take as long as it takes; what comes before it may not.

        Raises:
            WebError: anything but a 2xx answer, also where the body is read within.
        """
        at = url
        for _ in range(self.rules.redirects + 1):
            async with self._asked(url, at, headers or {}, large) as response:
                if not response.has_redirect_location:
                    check(url, response)
                    yield response
                    return
                at = _next(url, at, response.headers["location"])
        raise WebError(f"{url}: more than {self.rules.redirects} redirects", "redirects")

    @contextlib.asynccontextmanager
    async def _asked(self, url: str, at: str, headers: Mapping[str, str], large: bool) -> AsyncIterator[httpx.Response]:
        parts, name, port = self._place(url, at)
        host = self._host(f"{name}:{port}")
        said = name if port == PORTS[parts.scheme] else f"{name}:{port}"
        async with host.gate, self.mind(said), self._telling(url):
            async with asyncio.timeout(self.rules.patience) as clock:  # whose turn it is not yet is not slow
                host.address = host.address or await self._address(url, name, port)
                shown = f"[{host.address}]" if ":" in host.address else host.address
                asked = {
                    "Host": said,
                    "User-Agent": "cig",
                    "Accept": self.rules.accept,
                    "Accept-Encoding": "identity",
                    **headers,
                }
                target = parts._replace(netloc=f"{shown}:{port}", fragment="").geturl()
                known = {"sni_hostname": name}
                async with host.client.stream("GET", target, headers=asked, extensions=known) as response:
                    if large:
                        clock.reschedule(None)
                    yield response

    @contextlib.asynccontextmanager
    async def _telling(self, url: str) -> AsyncIterator[None]:
        """What goes wrong on the way, as a WebError."""
        import httpx

        try:
            yield
        except TimeoutError as error:
            raise WebError(f"{url}: not done after {self.rules.patience:.0f} seconds", "slow", again=True) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            self._forget_addresses()
            raise WebError(f"{url} cannot be fetched: {reason(error)}", "unreachable", again=True) from error

    def _place(self, url: str, at: str) -> tuple[SplitResult, str, int]:
        """(parts, host, port); raises WebError for what is no address that may be asked."""
        try:
            parts = urlsplit(at)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port or PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise WebError(f"{url} is no address: {reason(error)}", "address") from error
        if parts.scheme not in self.rules.schemes or not host or parts.username is not None:
            allowed = " and ".join(self.rules.schemes)
            raise WebError(f"{url}: only {allowed} addresses without a user name are fetched", "address")
        return parts, host, port

    async def _address(self, url: str, host: str, port: int) -> str:
        """An address of a host, if all of them may be asked."""
        try:
            addresses = await asyncio.to_thread(self.resolve or _addresses, host, port)
        except (OSError, UnicodeError) as error:
            raise WebError(f"{url}: no address of {host}: {reason(error)}", "unreachable", again=True) from error
        trusted = {host, f"{host}:{port}"} & self.rules.trusted
        private = [own for own in addresses if not trusted and not is_public(own)]
        if private or not addresses:
            where = private[0] if private else "nowhere"
            raise WebError(f"{url}: {host} is {where}, not on the public internet; refused", "address")
        return addresses[0]

    def _host(self, name: str) -> _Host:
        import httpx

        if name not in self._hosts:
            # A proxy of the environment would choose the address.
            options: dict[str, Any] = {"timeout": 15, "follow_redirects": False, "trust_env": False}
            client = httpx.AsyncClient(transport=self.transport, cookies=CookieJar(NO_COOKIES), **options)
            self._hosts[name] = _Host(client, asyncio.Semaphore(self.rules.per_host))
        return self._hosts[name]

    def _forget_addresses(self) -> None:
        for host in self._hosts.values():
            host.address = ""

    def _start(self, work: Coroutine[Any, Any, R]) -> Future[R]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _close(self) -> None:
        for host in self._hosts.values():
            await host.client.aclose()


async def _begun(work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
    return asyncio.ensure_future(work)


async def _ended(task: asyncio.Task, within: float | None = None) -> bool:
    return bool((await asyncio.wait([task], timeout=within))[0])


async def chunks(url: str, response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    """A body, bounded; raises WebError where it is larger, or says that it will be."""
    too_large = WebError(f"{url}: over {most // 2**20} MB; refused", "too large")
    said, size = response.headers.get("content-length", ""), 0
    if said.isascii() and said.isdecimal() and int(said[:18]) > most:
        raise too_large
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > most:
            raise too_large
        yield chunk


async def retried(ask: Callable[[], Awaitable[R]], waits: Iterable[float] = (0.5, 2.0), longest: float = 60.0) -> R:
    """Asks again where that may help, after each of the waits, or after what the server asked for.

    Args:
        longest: seconds; a server that asks for more is not waited for.
    """
    for pause in waits:
        try:
            return await ask()
        except WebError as error:
            if not error.again or error.after > longest:
                raise
            await asyncio.sleep(max(pause, error.after))
    return await ask()


def named_hosts(addresses: Iterable[str]) -> frozenset[str]:
    """The hosts of addresses that the user typed, for Rules.trusted; raises UsageError for what is no address."""
    hosts = set()
    for address in addresses:
        try:
            parts = urlsplit(address)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError as error:
            raise UsageError(f"{address} is no address: {reason(error)}") from error
        hosts.add(f"{host}:{port or PORTS.get(parts.scheme, 0)}")
    return frozenset(hosts)


def check(url: str, response: httpx.Response) -> None:
    """Raises WebError for an answer that is none."""
    status = response.status_code
    if not 200 <= status < 300:
        kind: Kind = KINDS.get(status, "failing" if status >= 500 else "refused")
        again = status == 429 or status >= 500
        raise WebError(f"{url}: the server answers {status}", kind, again, _retry_after(response.headers))
    if response.headers.get("content-encoding", "identity") != "identity":
        raise WebError(f"{url}: the answer is packed, which nobody asked for; refused", "packed")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from a number or a date; 0 where nothing sensible is said."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdecimal():
        return float(said[:9])
    try:
        return min(max(0.0, parsedate_to_datetime(said).timestamp() - time.time()), 1e9)
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _next(url: str, at: str, location: str) -> str:
    try:
        return urljoin(at, location)
    except ValueError as error:
        raise WebError(f"{url} leads to no address: {reason(error)}", "address") from error


def _addresses(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    own = ipaddress.ip_address(address.partition("%")[0])
    if own.version == 6 and any(own in network for network in CARRYING):
        return False
    own = getattr(own, "ipv4_mapped", None) or own
    return own.is_global and not own.is_multicast and not own.is_reserved
