"""The voting voting: a trial's page, served to this machine alone, and to whoever was given its address.

What comes in is checked: the address's secret, the Host (a stranger's name may point here), the Origin, the size, the
case, the choice. What goes out does not tell base from pseudo-targets until all is voted on.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any

from cig.errors import CigError, OutputError, UsageError
from cig.evaluation.html import inline_code, template, thumbnails
from cig.pipelines.trial.result import Verdict
from cig.pipelines.trial.trial import Trial, Votes, checked_vote
from cig.runtime import say

HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")  # any port: one that ssh forwards may be another
MOST = 1024  # bytes of a vote
SIDE = 320  # pixels of a picture's longer side
PATIENCE = 20.0  # seconds for a request to arrive
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


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
        return {"words": verdict.words}


class Server(ThreadingTCPServer):
    """On 127.0.0.1 and nowhere else."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, voting: VotingPage, port: int = 0) -> None:
        """port: 0 takes any that is free. Raises UsageError for one that cannot be had."""
        self.voting = voting
        try:
            super().__init__(("127.0.0.1", port), _Request)
        except (OSError, OverflowError) as error:
            raise UsageError(f"--port {port} cannot be had ({error}); give another, or leave --port out") from error

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{self.voting.secret}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Request(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version, timeout = "cig", "", PATIENCE

    def do_GET(self) -> None:
        self._answer(self.server.voting.show)

    def do_POST(self) -> None:
        self._answer(lambda path: self.server.voting.take(path, self._body()))

    def _answer(self, act: Callable[[list[str]], HttpAnswer]) -> None:
        try:
            self._send(act(self._asked()))
        except RequestRefused as refusal:
            self._send(HttpAnswer(str(refusal), "text/plain", refusal.status))
        except OutputError as error:  # a full disk: the page says so, and the vote does not count
            self._send(HttpAnswer(str(error), "text/plain", HTTPStatus.INSUFFICIENT_STORAGE))
        except CigError as error:  # trial.json or the votes were changed or removed meanwhile
            self._send(HttpAnswer(str(error), "text/plain", HTTPStatus.CONFLICT))

    def _asked(self) -> list[str]:
        """The path behind the secret."""
        if not HOST.fullmatch(self.headers.get("Host", "")):
            raise RequestRefused(HTTPStatus.MISDIRECTED_REQUEST, "this page is at 127.0.0.1")
        first, _, rest = self.path.partition("/")
        secret, *path = rest.split("/")
        if first or not secrets.compare_digest(secret.encode(errors="replace"), self.server.voting.secret.encode()):
            raise RequestRefused(HTTPStatus.NOT_FOUND, "the address lacks its secret; copy it whole from the terminal")
        return path

    def _body(self) -> bytes:
        """Of a request from our own page."""
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise RequestRefused(HTTPStatus.FORBIDDEN, "votes come from the page itself")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise RequestRefused(HTTPStatus.LENGTH_REQUIRED, "how long is it?")
        if len(length) > len(str(MOST)) or int(length) > MOST:
            raise RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a vote has at most {MOST} bytes")
        return self.rfile.read(int(length))

    def _send(self, answer: HttpAnswer) -> None:
        content = answer.content.encode(errors="replace")
        self.send_response(answer.status)
        content_headers = {"Content-Type": f"{answer.kind}; charset=utf-8", "Content-Length": str(len(content))}
        for name, value in {**HEADERS, **content_headers, "Content-Security-Policy": self.server.voting.policy}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: addresses have the secret in them."""


def serve(voting: VotingPage, port: int = 0, browse: bool = False) -> None:
    """Says the address, and serves until Ctrl-C, which is its normal end."""
    with Server(voting, port) as server, contextlib.suppress(KeyboardInterrupt):
        say(f"vote at {server.address} (on this machine alone; Ctrl-C ends it and prints the result)")
        if browse:
            webbrowser.open(server.address)
        server.serve_forever()
    voting.lock.acquire()  # a vote that is being written is written whole; none comes after it
