"""The voting page of a blind trial: a page, served to this machine alone, and to whoever was given its address.

What comes in is checked: the address's secret, the Host (a stranger's name may point here), the Origin, the size, the
case, the choice. What goes out does not tell base from pseudo-targets until all is voted on.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cig.errors import CigError, OutputError
from cig.evaluation.html import inline_code, template, thumbnails
from cig.pipelines.trial.result import Verdict
from cig.pipelines.trial.trial import Trial, Votes, checked_vote
from cig.runtime import say
from cig.service import access
from cig.service.server import address_of, listen, serve
from cig.service.settings import Serving

MOST = 1024  # bytes of a vote
SIDE = 320  # pixels of a picture's longer side
PATIENCE = 20.0  # seconds for a request to arrive
HEADERS = {**access.HEADERS, "Cache-Control": "no-store", "Referrer-Policy": "same-origin"}  # votes need an Origin


class RequestRefused(Exception):
    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class HttpAnswer:
    content: str
    kind: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK


class VotingPage:
    """What may be asked, and what is answered; several requests may come at once."""

    def __init__(self, trial: Trial, votes: Votes, images: Mapping[str, Path]) -> None:
        """images: name -> picture; a name of the trial without one is shown as a name."""
        self.trial, self.votes, self.images = trial, votes, images
        self.cases = {case.id: case for case in trial.cases}
        self.secret = secrets.token_urlsafe(24)
        self.lock = threading.Lock()  # of the votes
        code = inline_code("trial.js", "report.css", "trial.css", connect_src="'self'", frame_ancestors="'none'")
        self.policy = code["policy"]
        self.page = template("trial.html").render(code, title=trial.name)

    def show(self, path: list[str]) -> HttpAnswer:
        """The page, where the voting stands, a case by its id, and at the end the result."""
        match path:
            case [""]:
                return HttpAnswer(self.page, "text/html")
            case ["state"]:
                return HttpAnswer(json.dumps(self._state()))
            case ["case", name] if name in self.cases:
                return HttpAnswer(json.dumps(self._case(name)))
            case ["result"]:
                return HttpAnswer(json.dumps(self._result()))
        raise RequestRefused(HTTPStatus.NOT_FOUND, "there is no such page")

    def take(self, path: list[str], body: bytes) -> HttpAnswer:
        """A vote."""
        if path != ["vote"]:
            raise RequestRefused(HTTPStatus.NOT_FOUND, "there is nothing to send to here")
        try:
            vote = checked_vote(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise RequestRefused(HTTPStatus.BAD_REQUEST, f"no vote: {error}") from error
        if vote["case"] not in self.cases:
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "no vote: there is no such case")
        with self.lock:
            self.votes.read()
            if self.votes.shown:
                raise RequestRefused(HTTPStatus.CONFLICT, "the result was shown; votes are closed")
            self.votes.add(vote["case"], vote["choice"], vote["seconds"])
        return HttpAnswer("{}")

    def _state(self) -> dict[str, Any]:
        with self.lock:
            self.votes.read()
            choices, shown = list(self.votes.choices.items()), self.votes.shown
            return {"cases": list(self.cases), "voted": choices, "shown": shown}

    def _case(self, name: str) -> dict[str, Any]:
        """Pictures are in it as data: an address of their own might tell where they come from."""
        case = self.cases[name]
        names = (case.reference, *case.left, *case.right)
        urls = thumbnails((self.images[name] for name in names if name in self.images), side=SIDE)

        def shown(name: str) -> dict[str, str | None]:
            path = self.images.get(name)
            return {"name": name, "url": urls.get(path) if path else None}

        sides = {"left": list(map(shown, case.left)), "right": list(map(shown, case.right))}
        return {"id": case.id, "captions": case.captions, "reference": shown(case.reference), **sides}

    def _result(self) -> dict[str, Any]:
        with self.lock:
            self.votes.read()
            verdict = Verdict.of(self.trial, self.votes)
            if verdict.not_voted and not self.votes.shown:  # once votes are closed, what there is of them is shown
                raise RequestRefused(HTTPStatus.CONFLICT, f"{verdict.not_voted} cases are not voted on")
            self.votes.close()
            return verdict.shown(self.votes)


def make_voting_app(voting: VotingPage) -> ASGIApp:
    """Return the application: requests are checked, then answered in a thread, since votes are written durably."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            try:
                answer = await _answered(voting, request)
            except RequestRefused as refusal:
                answer = HttpAnswer(str(refusal), "text/plain", refusal.status)
            except OutputError as error:  # a full disk: the page says so, and the vote does not count
                answer = HttpAnswer(str(error), "text/plain", HTTPStatus.INSUFFICIENT_STORAGE)
            except CigError as error:  # trial.json or the votes were changed or removed meanwhile
                answer = HttpAnswer(str(error), "text/plain", HTTPStatus.CONFLICT)
            headers = {**HEADERS, "Content-Security-Policy": voting.policy}
            content, kind = answer.content.encode(errors="replace"), f"{answer.kind}; charset=utf-8"
            response = Response(content, answer.status, headers, media_type=kind)
            await response(scope, receive, send)

    return app


async def _answered(voting: VotingPage, request: Request) -> HttpAnswer:
    path = _path_behind_secret(voting, request)
    if request.method == "GET":
        return await asyncio.to_thread(voting.show, path)
    if request.method == "POST":
        body = await _body(request)
        return await asyncio.to_thread(voting.take, path, body)
    raise RequestRefused(HTTPStatus.METHOD_NOT_ALLOWED, "the page asks by GET and votes by POST")


def _path_behind_secret(voting: VotingPage, request: Request) -> list[str]:
    if not access.HOST.fullmatch(request.headers.get("host", "")):
        raise RequestRefused(HTTPStatus.MISDIRECTED_REQUEST, "this page is at 127.0.0.1")
    first, _, rest = request.scope["path"].partition("/")
    secret, *path = rest.split("/")
    if first or not secrets.compare_digest(secret.encode(errors="replace"), voting.secret.encode()):
        raise RequestRefused(HTTPStatus.NOT_FOUND, "the address lacks its secret; copy it whole from the terminal")
    return [*path[:-1], f"{path[-1]}?"] if path and request.scope["query_string"] else path


async def _body(request: Request) -> bytes:
    """Read the body of a request from our own page."""
    if request.headers.get("origin") != f"http://{request.headers['host']}":
        raise RequestRefused(HTTPStatus.FORBIDDEN, "votes come from the page itself")
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal()):
        raise RequestRefused(HTTPStatus.LENGTH_REQUIRED, "a vote needs a Content-Length")
    if len(length) > len(str(MOST)) or int(length) > MOST:
        raise RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a vote has at most {MOST} bytes")
    try:
        return await asyncio.wait_for(request.body(), PATIENCE)
    except (TimeoutError, ClientDisconnect) as error:
        raise RequestRefused(HTTPStatus.REQUEST_TIMEOUT, "the vote did not arrive whole") from error


def hold_vote(trial: Trial, votes: Votes, images: Mapping[str, Path], *, port: int = 0, browse: bool = False) -> None:
    """Say the address, and serve the page until Ctrl-C, which is its normal end.

    Args:
        port: 0 takes any that is free; raises UsageError for one that cannot be had.
    """
    voting, taken = VotingPage(trial, votes, images), listen(Serving(port=port))
    address = address_of(taken, voting.secret)

    def announce() -> None:
        say(f"vote at {address} (on this machine alone; Ctrl-C ends it and prints the result)")
        if browse:
            webbrowser.open(address)

    serve(make_voting_app(voting), taken, announce)
    voting.lock.acquire()  # a vote that is being written is written whole; none comes after it
