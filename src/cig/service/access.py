"""Who may ask: tokens, the secret in the printed address, and the checks of Host and Origin.

Without token files a service listens to this machine alone, and the address that it prints starts with a secret:
http://127.0.0.1:8000/SECRET/. That address sets a cookie, and the page asks with it. A token is taken at the same
place, so that a page of a service with token files opens, too. Programs send `Authorization: Bearer TOKEN`.

Other pages in the same browser could send requests here. They are refused by their Origin; a stranger's name that
points to this machine (rebinding) is refused by the Host.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cig.errors import UsageError
from cig.service.problems import Problem, to_response
from cig.service.settings import Serving, read_token

HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")  # any port: one that ssh forwards may be another
PROBES = ("/healthz", "/readyz")  # a load balancer calls a service by any name
OPEN = (*PROBES, "/openapi.json")  # they say nothing about pictures
CHANGES = ("PUT", "DELETE", "POST", "PATCH")
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Access:
    """The tokens of a service."""

    write: str = ""  # "" is no token
    read: str = ""
    local: bool = True  # the service is of this machine alone
    secret: str = ""  # without token files: the printed address has it, and it may do everything

    @staticmethod
    def of(serving: Serving) -> Access:
        """Read the token files, or make a secret where there are none."""
        write, read = (read_token(path) if path else "" for path in (serving.write_token_file, serving.read_token_file))
        if write and write == read:
            raise UsageError("the token files hold the same token; give reading another one than writing")
        secret = "" if write or read else secrets.token_urlsafe(24)
        return Access(write, read, serving.is_local, secret)

    @property
    def cookie(self) -> str:
        """Its name; services at several ports of a machine share the browser's cookies."""
        return "cig-" + hashlib.sha256(f"{self.write} {self.read} {self.secret}".encode()).hexdigest()[:8]

    def level(self, token: str) -> str:
        """Return "write", "read", or "" for a token that is none."""
        for one, level in ((self.write, "write"), (self.secret, "write"), (self.read, "read")):
            if one and secrets.compare_digest(token.encode(errors="replace"), one.encode()):
                return level
        return ""


class Guard:
    """The application behind its checks; a request that is refused is not read."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, answer = Headers(scope=scope), _with_headers(send)
        try:
            if scope["path"] not in PROBES:
                self._check_origin(headers)
            inside, token = self._by_path(scope)
            if token and inside["path"] == "/" and scope["method"] == "GET":
                await self._welcome(token, scope)(scope, receive, answer)
                return
            self._check_token(inside, token or self._by_headers(headers))
        except Problem as problem:
            await to_response(problem)(scope, receive, answer)
            return
        await self.app(inside, receive, answer)

    def _check_origin(self, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.access.local and not HOST.fullmatch(host):
            raise Problem(HTTPStatus.MISDIRECTED_REQUEST, "this service is at 127.0.0.1")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Problem(HTTPStatus.FORBIDDEN, "requests come from the service's own page, or from programs")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            raise Problem(HTTPStatus.FORBIDDEN, "requests come from the service's own page, or from programs")

    def _by_path(self, scope: Scope) -> tuple[Scope, str]:
        """Return the request without the token that its path starts with, and that token; "" where there is none."""
        first, _, rest = scope["path"].removeprefix("/").partition("/")
        if not self.access.level(first):
            return scope, ""
        path = f"/{rest}"
        return {**scope, "path": path, "raw_path": quote(path).encode()}, first

    def _by_headers(self, headers: Headers) -> str:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme:
            return token.strip() if scheme.lower() == "bearer" else ""
        with contextlib.suppress(CookieError):
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.access.cookie)
            return cookie.value if cookie else ""
        return ""

    def _check_token(self, scope: Scope, token: str) -> None:
        path, level = scope["path"], self.access.level(token)
        if path in OPEN:
            return
        if not level:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or wrong: send Authorization: Bearer TOKEN, or open the address that was printed",
                {"WWW-Authenticate": "Bearer"},
            )
        if level == "read" and scope["method"] in CHANGES and not path.startswith("/v1/search"):
            raise Problem(HTTPStatus.FORBIDDEN, "this token may search; changing the index takes the write token")

    def _welcome(self, token: str, scope: Scope) -> Response:
        """Answer the first visit: the token moves from the address, which people share, to a cookie."""
        query = scope["query_string"].decode("latin-1")
        answer = Response(status_code=HTTPStatus.SEE_OTHER, headers={"Location": f"/?{query}" if query else "/"})
        answer.set_cookie(self.access.cookie, token, httponly=True, samesite="lax")
        return answer


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            more = {"Cache-Control": "no-store", **HEADERS}
            message["headers"] = [
                *message["headers"],
                *((k.lower().encode(), v.encode()) for k, v in more.items() if k.lower().encode() not in present),
            ]
        await send(message)

    return sending
