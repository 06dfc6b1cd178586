"""Hostile uploads and names: each is refused by its kind, nothing is written elsewhere, and the service goes on.

CIG_HOSTILE=9 sends about 300 uploads to each of the two routes.
"""

import os
import tempfile

import pytest
from PIL import Image

from uploads import NAMES, encoded, uploads

pytestmark = pytest.mark.slow  # together they take long

TIMES = int(os.environ.get("CIG_HOSTILE", "1"))
UPLOADS = list(uploads(TIMES))
GOOD = encoded(Image.new("RGB", (9, 9), "blue"))


@pytest.fixture(scope="module")
def around(tmp_path_factory):
    return tmp_path_factory.mktemp("around")


@pytest.fixture
def temporary(around, monkeypatch):
    """The folder of temporary files, which should be empty after each request."""
    folder = around / "temporary"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def of_the_index(name):
    """Whether a file is one that the engine, a lock or a cache keeps."""
    return name.startswith(("ix/rows.sqlite", "ix/features-", "cache/")) or name.endswith(".lock")


def test_uploads_are_refused_by_kind(client, index, tmp_path, temporary):
    before, count = files_below(tmp_path), len(index)
    wrong = []
    for number, (kind, content, statuses) in enumerate(UPLOADS):
        files = {"image": ("../../evil.png", content), "file": ("../../evil.png", content, "image/png")}
        put = client.put(f"/v1/pictures/new/{number}.png", files={"file": files["file"]})
        search = client.post("/v1/search", files={"image": files["image"]}, data={"k": "1"})
        for answer in (put, search):
            if answer.status_code not in statuses:
                wrong.append((kind, answer.status_code, answer.text))
            if answer.status_code > 299:
                assert answer.headers["content-type"] == "application/problem+json", kind
                assert {"title", "detail"} <= set(answer.json()), kind
        count += put.status_code == 201
    assert not wrong
    assert len(index) == count
    assert client.put("/v1/pictures/good.png", files={"file": ("a.png", GOOD)}).status_code == 201
    new = {name for name in files_below(tmp_path) - before if not of_the_index(name)}
    pictures = {entry.file for entry in index.entries() if entry.file}
    assert new == {f"ix/{file}" for file in pictures}
    assert files_below(temporary) == set()


@pytest.mark.parametrize("name", sorted(NAMES), ids=lambda name: name[:30])
def test_names_are_refused(steady, name):
    before = files_below(steady.home)
    for method, options in (("PUT", {"files": {"file": ("a.png", GOOD)}}), ("GET", {})):
        answer = steady.request(method, f"/v1/pictures/{name}", **options)
        assert answer.status_code in ((422, 404) if method == "PUT" else (404, 422, 200)), (method, answer.text)
        assert answer.status_code == 200 or answer.headers["content-type"] == "application/problem+json"
    assert steady.delete(f"/v1/pictures/{name}").status_code in (404, 405, 422)
    assert steady.get("/v1/pictures").json()["total"] == 30
    assert {name for name in files_below(steady.home) - before if not of_the_index(name)} == set()


def test_a_large_upload_is_refused_and_others_go_on(start):
    client = start(max_upload=10_000)
    data = GOOD + bytes(10_000)
    answers = [
        client.put("/v1/pictures/a.png", files={"file": ("a.png", data)}),
        client.post("/v1/search", files={"image": ("a.png", data)}),
        client.post("/v1/search", files=[("image", ("a.png", bytes(9_000)))] * 9),
        client.post("/v1/search", content=bytes(3 * 2**20), headers={"Content-Type": "application/json"}),
        client.put("/v1/pictures/a.png", content=b"x" * (2 * 2**20), headers={"Content-Type": "multipart/form-data"}),
    ]
    assert [answer.status_code for answer in answers] == [413, 413, 422, 413, 422]
    assert client.put("/v1/pictures/a.png", files={"file": ("a.png", data[:-10_000])}).status_code == 201


def test_large_pictures_are_bounded_together(steady, monkeypatch):
    monkeypatch.setattr("cig.io.images._max_pixels", 300 * 300)
    data = encoded(Image.new("RGB", (250, 250), "blue"))
    answers = [steady.post("/v1/search", files=[("image", ("a.png", data))] * count) for count in (1, 2)]
    assert [answer.status_code for answer in answers] == [200, 413]


MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {"Content-Type": "multipart/form-data"}),
        (b"", {"Content-Type": "multipart/form-data; boundary="}),
        (b"--b\r\n", MULTIPART),
        (b"--b\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nabc", MULTIPART),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", MULTIPART),
        (b"--b\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--\r\n", MULTIPART),
        (b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n\xff\xfe\r\n--b--\r\n', MULTIPART),
        (b'--b\r\nContent-Disposition: form-data; name="t\xff"\r\n\r\n1\r\n--b--\r\n', MULTIPART),
        (b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nx\r\n' * 200 + b"--b--\r\n", MULTIPART),
        (b"[" * 100_000, {"Content-Type": "application/json"}),
        (b'{"text": "\\ud800"}', {"Content-Type": "application/json"}),
        (b'{"k": NaN, "text": "a"}', {"Content-Type": "application/json"}),
        (b'{"min_score": 1e999, "text": "a"}', {"Content-Type": "application/json"}),
        (b'{"k": 1' + b"0" * 5000 + b', "text": "a"}', {"Content-Type": "application/json"}),
        (b'{"text": {"a": 1}}', {"Content-Type": "application/json"}),
        (b'{"image": "a.png"}', {"Content-Type": "application/json"}),
        (b"\xff\xfe\x00", {"Content-Type": "application/json"}),
        (b"text=%ff", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"text=a&" * 200, {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"image=a", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"<a/>", {"Content-Type": "application/xml"}),
        (b"{}", {"Content-Type": "application/json; charset=utf-9"}),
    ],
)
def test_bodies_that_are_none_are_refused(steady, content, headers):
    answer = steady.post("/v1/search", content=content, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text
    assert steady.get("/healthz").status_code == 200
