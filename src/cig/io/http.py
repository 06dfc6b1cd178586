"""Fetch from untrusted servers: checked addresses, bounded bodies and times, a limit of requests for each host.

Requests run on a thread of their own, so callers need no async code and may run in a notebook.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import SplitResult, urljoin

from cig.errors import InputError, UsageError, reason
from cig.io.addresses import (
    PORTS,
    PrivateAddressError,
    certificate_problem,
    proxy_of,
    public_address,
    resolve_host,
    split_address,
)
from cig.io.retry_after import seconds_to_wait

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
R = TypeVar("R")
Resolve = Callable[[str, int], list[str]]
Guard = Callable[[str], contextlib.AbstractAsyncContextManager[object]]
Kind = Literal[
    "address",
    "unreachable",
    "certificate",
    "redirects",
    "gone",
    "refused",
    "busy",
    "failing",
    "packed",
    "too large",
    "slow",
    "range",
]
NO_COOKIES = DefaultCookiePolicy(allowed_domains=[])
KINDS: Mapping[int, Kind] = {404: "gone", 410: "gone", 416: "range", 429: "busy", 503: "busy"}


class WebError(InputError):
    """A request that failed or was refused.

    Attributes:
        again: whether a retry may help.
        after: seconds that the server asked to wait before it.
    """

    def __init__(self, message: str, kind: Kind, again: bool = False, *, after: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.again, self.after = kind, again, after


@dataclass(frozen=True)
class Rules:
    """The addresses that may be requested, and the limits of each request.

    Attributes:
        trusted: hosts (`name` or `name:port`) that the user named; they may be on a private network.
        most: bytes of a body.
        patience: seconds for a response, with its body; each redirect has as many.
        per_host: requests to one host at a time.
        proxies: use the environment's proxies. A proxy chooses the IP address itself, so none is checked: not for
            addresses from a list that anyone may have written.
    """

    schemes: tuple[str, ...] = ("https",)
    trusted: frozenset[str] = frozenset()
    most: int = 32 * 2**20
    patience: float = 60.0
    redirects: int = 3
    per_host: int = 8
    accept: str = "*/*"
    proxies: bool = False


@dataclass
class _Host:
    """One server; hosts share no connections, even at the same IP address."""

    client: httpx.AsyncClient
    gate: asyncio.Semaphore
    proxied: bool
    address: str = ""  # the checked IP address; looked up again after a failure


@dataclass
class Web:
    """A client for untrusted servers; use it in a `with`, which ends its thread and connections.

    Args:
        transport: httpx's own by default; it follows no redirects and sends no cookies or credentials.
        resolve: (host, port) -> IP addresses.
        guard: host -> a context around each request to it, redirects too, entered when the request's turn comes. It
            may wait, may refuse with a WebError, and sees the request's errors.
    """

    # A server's address comes from a list that anyone may have written, so it could point at this machine or its
    # network (a router, a cloud's metadata service). Hence: only the schemes of the rules; every IP address of a host
    # must be public, unless the user named the host; and the connection goes to the very IP address that was checked,
    # so that a name which resolves to another one a moment later (DNS rebinding) gains nothing. Redirects go through
    # the same checks, and proxies of the environment are ignored unless the rules allow them, because they would choose
    # the IP address themselves.

    rules: Rules
    transport: httpx.AsyncBaseTransport | None = None
    resolve: Resolve | None = None
    guard: Guard = contextlib.nullcontext
    _hosts: dict[str, _Host] = field(default_factory=dict)

    def __enter__(self) -> Web:
        try:
            import httpx

            self._trust = httpx.create_ssl_context()  # SSL_CERT_FILE of the environment counts
        except ImportError as error:
            raise UsageError("this asks the web, and needs httpx: pip install 'cig[data]'") from error
        except OSError as error:
            raise UsageError(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {reason(error)}") from error
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
        """Fetch a whole body; raises WebError."""
        return self._start(self.body(url)).result()

    def each(
        self, items: Iterable[T], fetch: Callable[[T], Coroutine[Any, Any, R]], at_once: int = 32
    ) -> Generator[tuple[T, R]]:
        """Yield (item, result of `fetch`) as they complete; items are drawn as needed, so a long list costs nothing."""
        waiting, running = iter(items), dict[Future[R], T]()
        try:
            while True:
                for item in itertools.islice(waiting, at_once - len(running)):
                    running[self._start(fetch(item))] = item
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        finally:
            for future in running:
                future.cancel()
            wait(running)

    def poll(self, work: Coroutine[Any, Any, object], every: float = 0.5) -> Generator[None]:
        """Run a coroutine and yield every so many seconds until it ends; raise its error. Closing this cancels it."""

        async def start() -> asyncio.Task[object]:
            return asyncio.ensure_future(work)

        async def is_done(within: float | None) -> bool:
            return bool((await asyncio.wait([task], timeout=within))[0])

        task = self._start(start()).result()
        try:
            while not self._start(is_done(every)).result():
                yield
            task.result()
        finally:
            self._loop.call_soon_threadsafe(task.cancel)
            self._start(is_done(None)).result()

    async def body(self, url: str) -> bytes:
        """Fetch a whole body, in a coroutine for `each`; raises WebError."""
        async with self.answer(url) as response:
            return b"".join([chunk async for chunk in chunks(url, response, self.rules.most)])

    @contextlib.asynccontextmanager
    async def answer(
        self, url: str, headers: Mapping[str, str] | None = None, large: bool = False
    ) -> AsyncIterator[httpx.Response]:
        """Request an address, following redirects under the same rules; the body is not read yet.

        Args:
            large: limit the time until the body begins, not the time that the body takes.

        Raises:
            WebError: for anything but a 2xx response, and for errors while the caller reads the body.
        """
        location = url
        for _ in range(self.rules.redirects + 1):
            async with self._request(url, location, headers or {}, large=large) as response:
                if not response.has_redirect_location:
                    check(url, response)
                    yield response
                    return
                try:
                    location = urljoin(location, response.headers["location"])
                except ValueError as error:
                    raise WebError(f"{url} leads to no address: {reason(error)}", "address") from error
        raise WebError(f"{url}: more than {self.rules.redirects} redirects", "redirects")

    @contextlib.asynccontextmanager
    async def _request(
        self, url: str, location: str, headers: Mapping[str, str], *, large: bool
    ) -> AsyncIterator[httpx.Response]:
        parts, name, port = self._allowed(url, location)
        host = self._host(parts.scheme, name, port)
        authority = name if port == PORTS[parts.scheme] else f"{name}:{port}"
        fields = {
            "Host": authority,
            "User-Agent": "cig",
            "Accept": self.rules.accept,
            "Accept-Encoding": "identity",
            **headers,
        }
        async with host.gate, self.guard(authority), self._web_errors(url):
            async with asyncio.timeout(self.rules.patience) as clock:  # starts here: a request in the queue is not slow
                target = parts._replace(fragment="").geturl()
                if not host.proxied:
                    host.address = host.address or await self._public_address(url, name, port)
                    literal = f"[{host.address}]" if ":" in host.address else host.address
                    # The IP address replaces the name in the URL; Host and SNI still carry the name.
                    target = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
                sni = {"sni_hostname": name}
                async with host.client.stream("GET", target, headers=fields, extensions=sni) as response:
                    if large:
                        clock.reschedule(None)
                    yield response

    @contextlib.asynccontextmanager
    async def _web_errors(self, url: str) -> AsyncIterator[None]:
        """Turn errors of the connection within the context into a WebError."""
        import httpx

        try:
            yield
        except TimeoutError as error:
            raise WebError(f"{url}: not done after {self.rules.patience:.0f} seconds", "slow", again=True) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            for host in self._hosts.values():
                host.address = ""
            if untrusted := certificate_problem(error):
                raise WebError(f"{url}: {untrusted}", "certificate") from error
            if isinstance(error, httpx.ProxyError) and str(error).startswith("4"):  # a status of 4xx
                raise WebError(f"{url}: the environment's proxy refuses it: {reason(error)}", "refused") from error
            raise WebError(f"{url} cannot be fetched: {reason(error)}", "unreachable", again=True) from error

    def _allowed(self, url: str, location: str) -> tuple[SplitResult, str, int]:
        """Split an address into (parts, host, port); raises WebError if the rules do not allow it."""
        try:
            parts, host, port = split_address(location)
        except ValueError as error:
            raise WebError(f"{url} is no address: {reason(error)}", "address") from error
        if parts.scheme not in self.rules.schemes or not host or parts.username is not None:
            allowed = " and ".join(self.rules.schemes)
            raise WebError(f"{url}: only {allowed} addresses without a user name are fetched", "address")
        return parts, host, port

    async def _public_address(self, url: str, host: str, port: int) -> str:
        """Look up an IP address of a host; raises WebError unless all of its addresses are public or it is trusted."""
        try:
            addresses = await asyncio.to_thread(self.resolve or resolve_host, host, port)
        except (OSError, UnicodeError) as error:
            raise WebError(f"{url}: no address of {host}: {reason(error)}", "unreachable", again=True) from error
        trusted = {host, f"{host}:{port}"} & self.rules.trusted
        try:
            return public_address(addresses, bool(trusted))
        except PrivateAddressError as error:
            raise WebError(f"{url}: {host} is {error}, not on the public internet; refused", "address") from error

    def _host(self, scheme: str, name: str, port: int) -> _Host:
        import httpx

        key = f"{name}:{port}"
        if key not in self._hosts:
            proxy = proxy_of(scheme, name) if self.rules.proxies else ""
            options: dict[str, Any] = {"timeout": 15, "follow_redirects": False, "trust_env": False}
            options |= {"cookies": CookieJar(NO_COOKIES), "verify": self._trust, "transport": self.transport}
            try:
                client = httpx.AsyncClient(proxy=proxy or None, **options)
            except (ImportError, ValueError) as error:
                raise WebError(f"{key}: the environment's proxy cannot be used: {reason(error)}", "address") from error
            self._hosts[key] = _Host(client, asyncio.Semaphore(self.rules.per_host), proxied=bool(proxy))
        return self._hosts[key]

    def _start(self, work: Coroutine[Any, Any, R]) -> Future[R]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _close(self) -> None:
        for host in self._hosts.values():
            await host.client.aclose()


async def chunks(url: str, response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    """Yield a body piece by piece; raises WebError if it is larger than allowed, or states that it will be."""
    too_large = WebError(f"{url}: over {most // 2**20} MB; refused", "too large")
    length, size = response.headers.get("content-length", ""), 0
    if length.isascii() and length.isdecimal() and int(length[:18]) > most:
        raise too_large
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > most:
            raise too_large
        yield chunk


async def retried(fetch: Callable[[], Awaitable[R]], waits: Iterable[float] = (0.5, 2.0), longest: float = 60.0) -> R:
    """Retry a fetch after errors that a retry may cure, after each of the waits or the server's Retry-After.

    Args:
        longest: seconds; give up if the server asks to wait longer.
    """
    for pause in waits:
        try:
            return await fetch()
        except WebError as error:
            if not error.again or error.after > longest:
                raise
            await asyncio.sleep(max(pause, error.after))
    return await fetch()


def check(url: str, response: httpx.Response) -> None:
    """Raise WebError for a status other than 2xx, and for a compressed body."""
    status = response.status_code
    if not 200 <= status < 300:
        kind: Kind = KINDS.get(status, "failing" if status >= 500 else "refused")
        again = status == 429 or status >= 500
        raise WebError(f"{url}: the server answers {status}", kind, again, after=seconds_to_wait(response.headers))
    if response.headers.get("content-encoding", "identity") != "identity":
        raise WebError(f"{url}: the answer is packed, which nobody asked for; refused", "packed")
