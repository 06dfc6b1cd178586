"""Pictures from the web: https, public addresses, bounded, whole, and each once; no network is used."""

import io
from collections import Counter
from unittest import mock

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cig.benchmarks import _web
from cig.benchmarks._web import fetch_pictures
from cig.io.http import Rules


def png(side=8):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, "PNG")
    return buffer.getvalue()


PUBLIC = "93.184.215.14"


class Web:
    """Answers by path, notes what was asked."""

    def __init__(self, monkeypatch, **answers):
        self.answers, self.requests = answers, []
        self.hosts = {"a.org": [PUBLIC], "inside.org": ["10.0.0.7"], "both.org": [PUBLIC, "127.0.0.1"]}
        monkeypatch.setattr(_web, "WAITS", (0.0, 0.0))

    def answer(self, request):
        self.requests.append(request)
        answer = self.answers[request.url.path.strip("/")]
        return answer(request) if callable(answer) else answer

    def resolve(self, host, port):
        if host not in self.hosts:
            raise OSError("no such host")
        return self.hosts[host]

    def get(self, folder, *urls):
        return fetch_pictures(urls, folder, transport=httpx.MockTransport(self.answer), resolve=self.resolve)


def test_a_picture_is_fetched_once_at_the_address_that_was_checked(tmp_path, monkeypatch):
    web = Web(monkeypatch, x=httpx.Response(200, content=png()))
    pictures, failed = web.get(tmp_path, "https://a.org/x?size=2")
    (request,) = web.requests
    assert not failed
    assert request.url.host == PUBLIC, "not the name, which could change its address"
    assert request.headers["host"] == "a.org"
    assert request.extensions["sni_hostname"] == "a.org"
    assert "authorization" not in request.headers
    assert pictures["https://a.org/x?size=2"].read_bytes() == png()
    assert pictures["https://a.org/x?size=2"].suffix == ".png"
    again, _ = web.get(tmp_path, "https://a.org/x?size=2")
    assert (again, len(web.requests)) == (pictures, 1)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://a.org/x", "only https"),
        ("file:///etc/passwd", "only https"),
        ("https://user:secret@a.org/x", "without a user name"),
        ("https://inside.org/x", "10.0.0.7, not on the public internet"),
        ("https://both.org/x", "127.0.0.1, not on the public internet"),
        ("https://nowhere.org/x", "no address of nowhere.org"),
        ("https://[::1/x", "no address"),
        ("https://a.org:99999/x", "no address"),
        ("https://a.org/html", "not a whole picture"),
        ("https://a.org/half", "not a whole picture"),
        ("https://a.org/gone", "answers 404"),
        ("https://a.org/endless", "over 32 MB"),
        ("https://a.org/nowhere", "leads to no address"),
        ("https://a.org/round", "more than 3 redirects"),
        ("https://a.org/down", "only https"),
        ("https://a.org/in", "10.0.0.7, not on"),
        ("https://a.org/file", "only https"),
        ("https://a.org/large", "pixels"),
        ("https://a.org/packed", "packed"),
    ],
)
def test_what_is_refused_is_named_and_leaves_nothing(tmp_path, monkeypatch, url, words):
    monkeypatch.setattr("cig.io.images._max_pixels", 100)
    to = {name: httpx.Response(302, headers={"location": target}) for name, target in REDIRECTS.items()}
    endless = httpx.Response(200, stream=Endless())
    packed = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Endless())
    pages = {"html": b"<html>", "half": png()[:40], "large": png(20)}
    answers = {name: httpx.Response(200, content=data) for name, data in pages.items()}
    web = Web(monkeypatch, **to, **answers, endless=endless, gone=httpx.Response(404), packed=packed)
    pictures, failed = web.get(tmp_path, url)
    assert not pictures
    assert words in failed[url]
    assert not list(tmp_path.iterdir())


REDIRECTS = {
    "nowhere": "https://[bad/x",
    "round": "/round",
    "down": "http://a.org/x",
    "in": "https://inside.org/x",
    "file": "file:///etc/passwd",
}


class Endless(httpx.AsyncByteStream):
    async def __aiter__(self):
        while True:
            yield bytes(2**20)


def test_a_stop_ends_what_is_under_way(tmp_path, monkeypatch):
    """Before the connection is closed, not when the error that stopped it is forgotten."""
    web, closed = Web(monkeypatch, x=httpx.Response(200, content=png())), []

    def each(self, items, get):
        try:
            yield from ((item, "no") for item in items)
        finally:
            closed.append(True)

    def stopped(answers, *_, **__):
        for answer in answers:
            yield answer
            raise KeyboardInterrupt

    monkeypatch.setattr(_web.Web, "each", each)
    monkeypatch.setattr(_web, "progress", stopped)
    with pytest.raises(KeyboardInterrupt) as held:
        web.get(tmp_path, "https://a.org/x", "https://a.org/y")
    assert (closed, bool(held.tb)) == ([True], True)


def test_a_tired_server_is_asked_again_and_a_refusal_is_not(tmp_path, monkeypatch):
    answers = iter([httpx.Response(503), httpx.ConnectError("no route"), httpx.Response(200, content=png())])

    def tired(request):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    web = Web(monkeypatch, x=tired, gone=httpx.Response(404), down=httpx.Response(503))
    pictures, failed = web.get(tmp_path, "https://a.org/x", "https://a.org/gone", "https://a.org/down")
    assert list(pictures) == ["https://a.org/x"]
    assert Counter(request.url.path for request in web.requests) == {"/x": 3, "/gone": 1, "/down": 3}
    assert "answers 503" in failed["https://a.org/down"]


def test_redirects_are_followed_to_public_places(tmp_path, monkeypatch):
    moved = httpx.Response(301, headers={"location": "https://a.org/x"})
    web = Web(monkeypatch, old=moved, x=httpx.Response(200, content=png()))
    pictures, _ = web.get(tmp_path, "https://a.org/old")
    assert list(pictures) == ["https://a.org/old"]


def test_a_slow_server_is_left(tmp_path, monkeypatch):
    web = Web(monkeypatch, x=httpx.Response(200, content=png()))
    monkeypatch.setattr(_web, "RULES", Rules(patience=-1.0))
    assert "not done after" in web.get(tmp_path, "https://a.org/x")[1]["https://a.org/x"]


def nobody(host, port):
    raise OSError("no such host")


@given(st.text(max_size=30))
def test_any_text_is_an_answer_not_a_crash(tmp_path_factory, text):
    web = httpx.MockTransport(lambda request: httpx.Response(404))
    with mock.patch.object(_web, "WAITS", ()):
        pictures, failed = fetch_pictures(
            [f"https://{text}"], tmp_path_factory.mktemp("f"), transport=web, resolve=nobody
        )
    assert not pictures
    assert list(failed) == [f"https://{text}"]
