"""A search with imagine: its first phase, its queue, and what happens to searches that fail or are cancelled."""

import threading
import time

import pytest
from PIL import Image

from cig.errors import IncompleteError
from cig.retrieval.finder import ComposedQuery
from cig.service import imagining

pytestmark = pytest.mark.slow  # together they take long

ASKED = {"picture": ["red/00.png"], "text": "a blue disc", "k": 5, "imagine": True}


def second_phase(client, key, seconds=20.0):
    """Ask until the status is another one than pending."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = client.get(f"/v1/search/{key}")
        assert answer.status_code == 200, answer.text
        if answer.json()["imagined"]["status"] != "pending":
            return answer.json()
        time.sleep(0.02)
    raise AssertionError("it is pending still")


def scores(hits):
    return {hit["name"]: hit["score"] for hit in hits}


@pytest.fixture
def blue(made):
    return made / "photos/blue/02.png"


def test_both_phases_of_a_search(start, index, made, blue):
    asked = []
    client = start(imagine=lambda query: asked.append(query) or blue)
    first = client.post("/v1/search", json=ASKED).json()
    plain = client.post("/v1/search", json={**ASKED, "imagine": False}).json()
    assert scores(first["hits"]) == {name: pytest.approx(score) for name, score in scores(plain["hits"]).items()}
    assert (first["imagined"], plain["imagined"]) == ({"status": "pending", "picture": None, "hits": None}, None)
    second = second_phase(client, first["id"])
    assert {key: second[key] for key in ("id", "hits", "searched")} == {
        key: first[key] for key in ("id", "hits", "searched")
    }
    query = ComposedQuery((made / "photos/red/00.png",), "a blue disc", pseudo_target=blue)
    (truth,) = index.find([(query, index.wanted(5))])
    assert scores(second["imagined"]["hits"]) == {hit.name: pytest.approx(hit.score, abs=1e-6) for hit in truth}
    picture = client.get(second["imagined"]["picture"])
    assert (picture.content, picture.headers["content-type"]) == (blue.read_bytes(), "image/png")
    assert asked[0].text == "a blue disc"


def test_an_upload_is_there_until_its_pseudo_target_is_made(start, made, blue):
    sizes = []
    client = start(imagine=lambda query: sizes.append(Image.open(query.images[0]).size) or blue)
    files = {"image": ("a.png", (made / "photos/red/00.png").read_bytes())}
    first = client.post("/v1/search", files=files, data={"text": "but blue", "imagine": "true"}).json()
    assert second_phase(client, first["id"])["imagined"]["status"] == "done"
    assert sizes == [(64, 64)]


@pytest.mark.parametrize(
    ("error", "word"), [(IncompleteError("all were refused"), "all were refused"), (RuntimeError("a bug"), "log")]
)
def test_a_generator_that_fails_is_said_and_the_next_search_has_its_turn(start, blue, error, word):
    outcomes = [error, blue]

    def imagine(_):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    client = start(imagine=imagine)
    keys = [client.post("/v1/search", json=ASKED).json()["id"] for _ in range(2)]
    failed, done = (second_phase(client, key)["imagined"] for key in keys)
    assert (failed["status"], word in failed["detail"], failed["hits"]) == ("failed", True, None)
    assert client.get(f"/v1/search/{keys[0]}/imagined").status_code == 404
    assert (done["status"], len(done["hits"])) == ("done", 5)


def test_searches_are_cancelled_and_too_many_are_refused(start, blue, monkeypatch):
    monkeypatch.setattr(imagining, "MOST_WAITING", 2)
    begun, go_on, made = threading.Event(), threading.Event(), []

    def imagine(query):
        begun.set()
        assert go_on.wait(20)
        made.append(query)
        return blue

    client = start(imagine=imagine)
    first, second = (client.post("/v1/search", json=ASKED).json()["id"] for _ in range(2))
    assert begun.wait(20)
    refused = client.post("/v1/search", json=ASKED)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
    assert client.post("/v1/search", json={**ASKED, "imagine": False}).status_code == 200
    assert client.delete(f"/v1/search/{second}").status_code == 204
    assert client.delete(f"/v1/search/{second}").status_code == 404
    assert client.get(f"/v1/search/{second}").status_code == 404
    go_on.set()
    assert second_phase(client, first)["imagined"]["status"] == "done"
    third = client.post("/v1/search", json=ASKED).json()["id"]
    assert second_phase(client, third)["imagined"]["status"] == "done"
    assert len(made) == 2


def test_the_last_searches_are_kept(start, blue, monkeypatch):
    monkeypatch.setattr(imagining, "MOST_KEPT", 2)
    client, keys = start(imagine=lambda _: blue), []
    for _ in range(3):
        keys.append(client.post("/v1/search", json=ASKED).json()["id"])
        second_phase(client, keys[-1])
    assert [client.get(f"/v1/search/{key}").status_code for key in keys] == [404, 200, 200]


@pytest.mark.slow
def test_the_shipped_generator_imagines(start, index):
    from cig.generators import presets
    from cig.pipelines._imagine import imaginer
    from cig.runtime import Compute

    composing, generation = presets("sdxl/icons")
    imagine = imaginer(index.cache, Compute(device="cpu"), composing=composing, generation=generation)
    client = start(imagine=imagine)
    keys = [client.post("/v1/search", json={**ASKED, "text": text}).json()["id"] for text in ("in green", "in gold")]
    pictures = [client.get(second_phase(client, key, seconds=100)["imagined"]["picture"]).content for key in keys]
    assert pictures[0] != pictures[1]
    assert pictures[0].startswith(b"\x89PNG")
