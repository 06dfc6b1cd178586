"""A service under way: batches, bounds, time-outs, its stop, its log and its counters."""

import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from cig.service import queries, uploads
from services import live

pytestmark = pytest.mark.slow  # together they take long

QUERY = {"text": "a red disc", "k": 3}


def search(client, **fields):
    return client.post("/v1/search", json={**QUERY, **fields})


@pytest.fixture
def held(index, monkeypatch):
    """An index whose searches wait until they are let go; `held.sizes` has the sizes of batches."""

    class Held:
        begun, go_on, sizes = threading.Event(), threading.Event(), []

    find = index.find

    def finding(requests, **options):
        Held.begun.set()
        assert Held.go_on.wait(20)
        Held.sizes.append(len(requests))
        return find(requests, **options)

    Held.hold = lambda: monkeypatch.setattr(index, "find", finding)
    yield Held
    Held.go_on.set()


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def counters(client):
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_before_the_index_is_open(start):
    client = start(ready=False)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/metrics").status_code == 200
    for answer in (client.get("/readyz"), search(client), client.get("/v1/pictures"), client.get("/")):
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert int(answer.headers["retry-after"]) > 0


def test_queries_that_wait_are_answered_together(index, held):
    with live(index) as (client, _), ThreadPoolExecutor(8) as pool:
        held.hold()
        first = pool.submit(search, client)
        assert held.begun.wait(20)
        others = [pool.submit(search, client, text=f"number {i}") for i in range(5)]
        until(lambda: counters(client)["cig_waiting_queries"] == 5)
        held.go_on.set()
        answers = [one.result() for one in (first, *others)]
        assert [answer.status_code for answer in answers] == [200] * 6
        alone = [search(client, text=f"number {i}").json()["hits"] for i in range(5)]
        for answer, hits in zip(answers[1:], alone, strict=True):
            assert [hit["name"] for hit in answer.json()["hits"]] == [hit["name"] for hit in hits]
            assert [hit["score"] for hit in answer.json()["hits"]] == pytest.approx([hit["score"] for hit in hits])
    assert held.sizes[:2] == [1, 5]


def test_a_query_that_fails_spoils_no_other_of_its_batch(index, held, made):
    (index.folder / "damaged.png").write_bytes(b"\x89PNG")
    whole = index.path_of
    index.path_of = lambda entry: index.folder / "damaged.png" if entry.name == "gold/03.png" else whole(entry)
    with live(index) as (client, _), ThreadPoolExecutor(8) as pool:
        held.hold()
        first = pool.submit(search, client)
        assert held.begun.wait(20)
        others = [pool.submit(search, client, picture=[name]) for name in ("gold/03.png", "red/00.png", "blue/02.png")]
        until(lambda: counters(client)["cig_waiting_queries"] == 3)
        held.go_on.set()
        assert [one.result().status_code for one in (first, *others)] == [200, 415, 200, 200]


def test_too_many_queries_are_refused_and_others_go_on(index, held):
    with live(index, queue=2) as (client, _), ThreadPoolExecutor(8) as pool:
        held.hold()
        first = [pool.submit(search, client)]
        assert held.begun.wait(20)
        first.append(pool.submit(search, client))
        until(lambda: counters(client)["cig_waiting_queries"] == 1)
        refused = search(client)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.headers["content-type"] == "application/problem+json"
        held.go_on.set()
        assert [one.result().status_code for one in first] == [200, 200]
        assert search(client).status_code == 200


def test_a_query_that_takes_too_long_is_given_up(index, held, monkeypatch):
    monkeypatch.setattr(queries, "SECONDS_TO_ANSWER", 0.2)
    with live(index) as (client, _):
        held.hold()
        late = search(client)
        assert (late.status_code, late.headers["retry-after"]) == (503, "5")
        held.go_on.set()
        monkeypatch.setattr(queries, "SECONDS_TO_ANSWER", 20)
        assert search(client).status_code == 200


def test_a_request_that_does_not_arrive_is_given_up(index, monkeypatch):
    monkeypatch.setattr(uploads, "SECONDS_TO_ARRIVE", 0.2)
    with live(index) as (client, _):
        address = client.base_url
        with socket.create_connection((address.host, address.port), timeout=20) as line:
            head = (
                f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {client.headers['Authorization']}\r\n"
            )
            line.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
            answer = line.recv(65536)
        assert b" 408 " in answer.splitlines()[0]
        assert b"application/problem+json" in answer
        assert search(client).status_code == 200


def test_uploads_together_are_bounded(index, held, monkeypatch):
    monkeypatch.setattr("cig.service.running.MOST_HELD", 10_000)
    with live(index) as (client, _), ThreadPoolExecutor(2) as pool:
        held.hold()
        first = pool.submit(search, client)
        assert held.begun.wait(20)
        assert client.post("/v1/search", files={"image": ("a", bytes(20_000))}).status_code == 429
        held.go_on.set()
        assert first.result().status_code == 200
        assert client.post("/v1/search", files={"image": ("a", bytes(20_000))}).status_code == 415


def test_a_stop_lets_queries_end(index, held):
    with ThreadPoolExecutor(2) as pool, live(index) as (client, server):
        held.hold()
        first = pool.submit(search, client)
        assert held.begun.wait(20)
        server.should_exit = True
        time.sleep(0.3)
        held.go_on.set()
        assert first.result().status_code == 200


@pytest.mark.slow
def test_the_printed_address_opens_the_page_and_a_signal_ends_the_service(made, tmp_path):
    line = [sys.executable, "-m", "cig", "serve", f"{made / 'ix'}", "--port", "0", "--device", "cpu"]
    line += ["--feature-cache", f"{tmp_path}"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", said)[0]
        with httpx.Client(follow_redirects=True, timeout=30) as browser:
            page = browser.get(address)
            assert (page.status_code, page.url.path) == (200, "/")
            assert browser.post(str(page.url.join("/v1/search")), json=QUERY).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        rest = process.stderr.read()
    assert "Traceback" not in rest
    assert json.loads(rest.splitlines()[-1])["route"] == "/v1/search"


@pytest.mark.slow
def test_a_signal_before_the_index_is_open_ends_the_service(made):
    """In a process whose index takes a minute to open."""
    code = "import sys, time; import cig.cli.serve as serve; from cig.cli.main import main\n"
    code += "serve._open = lambda *_, **__: (print('opening', flush=True), time.sleep(60)); main(sys.argv[1:])"
    line = [sys.executable, "-c", code, "serve", f"{made / 'ix'}", "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "opening\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert (process.wait(30), process.stderr.read()) == (130, "")


@pytest.mark.parametrize("log_queries", [False, True])
def test_the_log_has_texts_and_names_only_where_it_is_asked_to(start, caplog, log_queries):
    caplog.set_level(logging.INFO, logger="cig")
    client = start(log_queries=log_queries)
    search(client, text="zebra", without="giraffe", picture=["red/00.png"], where=["colour!=purple"])
    client.get("/v1/pictures/red/00.png/thumbnail")
    client.get("/v1/pictures", params={"where": "colour=purple"})
    client.get("/nowhere/zebra")
    client.get("/v1/pictures", headers={"Authorization": "Bearer giraffe"})
    lines = [json.loads(record.message) for record in caplog.records if record.message.startswith("{")]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/v1/search", 200),
        ("GET", "/v1/pictures/{name:path}/thumbnail", 200),
        ("GET", "/v1/pictures", 200),
        ("GET", "refused", 404),
        ("GET", "refused", 401),
    ]
    assert all({"time", "ms"} <= set(line) for line in lines)
    assert (lines[0]["images"], lines[0]["k"]) == (1, 3)
    words = ("zebra", "giraffe", "red/00", "purple")
    assert [word in caplog.text + client.get("/metrics").text for word in words] == [log_queries] * 4


def test_counters(start):
    client = start()
    before = counters(client)
    assert [search(client).status_code, search(client, k=0).status_code] == [200, 422]
    after = counters(client)
    for status, labels in (("200", 1), ("422", 1)):
        key = f'cig_requests_total{{method="POST",route="/v1/search",status="{status}"}}'
        assert after[key] - before.get(key, 0) == labels
    assert (after["cig_pictures"], after["cig_batch_queries_count"] - before["cig_batch_queries_count"]) == (30, 1)
    assert after["process_resident_memory_bytes"] > 10**7
