"""Requests to a server of this machine's that drips, resets, asks to wait; what may be asked at once."""

import asyncio
import contextlib
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import serving
from cig.errors import UsageError
from cig.io.http import Rules, Web, WebError, chunks, retried
from cig.io.retry_after import seconds_to_wait


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        getattr(self, self.path.strip("/").split("?")[0])()

    def whole(self):
        self.answer(200, b"picture")

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def counted(self):
        server = self.server
        with server.lock:
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        time.sleep(0.05)
        with server.lock:
            server.under_way -= 1
        self.answer(200, b"x")

    def drip_headers(self):
        with contextlib.suppress(OSError):
            for _ in range(100):
                self.wfile.write(b"H")
                time.sleep(0.1)

    def drip_body(self):
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b".")
                time.sleep(0.1)

    def cut(self):
        self.answer(200, b"half", Content_Length=1000)
        self.close_connection = True

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def nowhere(self):
        self.answer(300, b"several choices, none named")

    def cookie(self):
        self.server.cookies = self.headers.get("Cookie")
        self.answer(200, b"", Set_Cookie="track=42")

    def busy_once(self):
        self.server.requests += 1
        if self.server.requests == 1:
            self.answer(429, b"", Retry_After="0")
        else:
            self.answer(200, b"after all")

    def busy_for_hours(self):
        self.server.requests += 1
        self.answer(429, b"", Retry_After="7200")

    def round(self):
        self.answer(302, b"", Location="/round")

    def elsewhere(self):
        self.answer(302, b"", Location=self.path.partition("?")[2])


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.lock, server.under_way, server.most, server.requests = threading.Lock(), 0, 0, 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(server, path):
    return f"http://127.0.0.1:{server.server_port}/{path}"


def rules(server, **others):
    return Rules(schemes=("http", "https"), trusted=frozenset({f"127.0.0.1:{server.server_port}"}), **others)


def test_a_private_host_is_asked_only_if_the_user_named_it(server):
    with Web(rules(server)) as web:
        assert web.read(address(server, "whole")) == b"picture"
    with Web(Rules(schemes=("http",))) as web, pytest.raises(WebError, match="not on the public internet") as error:
        web.read(address(server, "whole"))
    assert error.value.kind == "address"


@pytest.mark.parametrize("path", ["drip_headers", "drip_body"])
def test_a_slow_drip_is_left_after_the_patience(server, path):
    with Web(rules(server, patience=0.3)) as web, pytest.raises(WebError, match=r"not done after") as error:
        web.read(address(server, path))
    assert (error.value.kind, error.value.again) == ("slow", True)


@pytest.mark.parametrize("path", ["cut", "reset"])
def test_what_breaks_off_may_be_asked_again(server, path):
    with Web(rules(server)) as web, pytest.raises(WebError, match="cannot be fetched") as error:
        web.read(address(server, path))
    assert (error.value.kind, error.value.again) == ("unreachable", True)


def test_a_redirect_leads_nowhere_that_may_not_be_asked(server):
    with Web(rules(server)) as web:
        assert web.read(address(server, "elsewhere?/whole")) == b"picture"
        targets = {"/round": "redirects", "ftp://a/b": "only http", "//10.0.0.1/x": "10.0.0.1"}
        for target, words in targets.items():
            with pytest.raises(WebError, match=words):
                web.read(address(server, f"elsewhere?{target}"))


def test_a_redirect_to_no_place_is_an_answer_that_is_none(server):
    with Web(rules(server)) as web, pytest.raises(WebError, match="answers 300") as error:
        web.read(address(server, "nowhere"))
    assert error.value.kind == "refused"


def test_no_cookie_is_sent_back(server):
    with Web(rules(server)) as web:
        for _ in range(2):
            web.read(address(server, "cookie"))
            assert server.cookies is None


def test_a_large_body_may_take_longer_than_the_patience_and_headers_may_not(server):
    async def take(path):
        async with web.answer(address(server, path), large=True) as response:
            return await anext(chunks(path, response, 1000)), await asyncio.sleep(0.6)

    with Web(rules(server, patience=0.3)) as web:
        assert list(web.each(["drip_body"], take)) == [("drip_body", (b".", None))]
        with pytest.raises(WebError, match="not done after"):
            list(web.each(["drip_headers"], take))


def test_no_more_than_so_many_at_once(server):
    with Web(rules(server, per_host=3)) as web:
        urls = [address(server, f"counted?{i}") for i in range(12)]
        got = dict(web.each(urls, web.body, at_once=6))
    assert got == dict.fromkeys(urls, b"x")
    assert 1 < server.most <= 3


def test_a_long_list_is_taken_as_it_is_needed(server):
    taken = []
    urls = (taken.append(i) or address(server, "whole") for i in range(1000))
    with Web(rules(server)) as web, contextlib.closing(web.each(urls, web.body, at_once=4)) as answers:
        for _ in range(3):
            next(answers)
    assert len(taken) < 20


def test_it_works_where_a_loop_runs_already(server):
    async def notebook():
        with Web(rules(server)) as web:
            return web.read(address(server, "whole"))

    assert asyncio.run(notebook()) == b"picture"


def test_waiting_as_long_as_was_asked_for_but_not_for_hours(server):
    with Web(rules(server)) as web:

        async def patiently(url):
            return await retried(lambda: web.body(url), waits=(0.0, 0.0))

        ((_, body),) = web.each([address(server, "busy_once")], patiently)
        assert (body, server.requests) == (b"after all", 2)
        with pytest.raises(WebError, match="answers 429"):
            list(web.each([address(server, "busy_for_hours")], patiently))
    assert server.requests == 3


def test_retry_after():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 97 < seconds_to_wait({"retry-after": later}) <= 100
    said = {"5": 5, "-5": 0, "soon": 0, "": 0, "Mon, 01 Jan 2001 00:00:00 GMT": 0, "9" * 400: 999999999}
    said["Fri, 31 Dec 9999 23:59:59 -1200"] = 1e9
    assert {text: seconds_to_wait({"retry-after": text}) for text in said} == said


@pytest.mark.parametrize("minutes", [-10, 0, 10])
def test_a_date_to_wait_for_is_of_the_servers_clock(minutes):
    now = datetime.now(UTC) + timedelta(minutes=minutes)
    until = format_datetime(now + timedelta(seconds=30), usegmt=True)
    assert seconds_to_wait({"retry-after": until, "date": format_datetime(now, usegmt=True)}) == 30


# Proxies and certificates


@pytest.fixture
def proxy(monkeypatch):
    """The environment's, for all but localhost."""
    with serving.serve(serving.Files({"http://release.invalid/a": b"through it"})) as files:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, files.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield files


def test_a_proxy_is_asked_where_the_rules_allow_it(proxy, server):
    with Web(rules(server, proxies=True)) as web:
        assert web.read("http://release.invalid/a") == b"through it"
        with pytest.raises(WebError, match="proxy refuses it: 403") as error:
            web.read("https://release.invalid/x")
        assert not error.value.again
        assert web.read(address(server, "whole")) == b"picture"
    assert [path for path, _ in proxy.asked] == ["http://release.invalid/a", "release.invalid:443"]


def test_a_proxy_is_not_asked_for_addresses_of_strangers(proxy, server):
    with Web(rules(server)) as web, pytest.raises(WebError, match="no address of release"):
        web.read("http://release.invalid/a")
    assert proxy.asked == []


def test_a_proxy_that_cannot_be_used_is_said(monkeypatch, server):
    monkeypatch.setenv("http_proxy", "carrier://pigeon")
    with Web(rules(server, proxies=True)) as web, pytest.raises(WebError, match="proxy cannot be used"):
        web.read("http://release.invalid/")


def test_a_certificate_that_is_not_trusted_is_not_asked_again(tmp_path, monkeypatch):
    certificate = serving.make_certificate(tmp_path)
    with serving.serve(serving.Files({"/a": b"whole"}), certificate) as files:
        trusting = Rules(trusted=frozenset({files.url.removeprefix("https://")}))
        with Web(trusting) as web, pytest.raises(WebError, match="SSL_CERT_FILE") as error:
            web.read(f"{files.url}/a")
        assert (error.value.kind, error.value.again) == ("certificate", False)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with Web(trusting) as web:
            assert web.read(f"{files.url}/a") == b"whole"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="SSL_CERT_FILE"), Web(trusting):
        pass
