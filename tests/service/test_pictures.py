"""Pictures of a served index: listed, shown, put and deleted; and what other processes change."""

import io
import json
import shutil

import pytest
from PIL import Image

from cig.errors import OutputError
from cig.pipelines.index import Index
from cig.pipelines.open import open, open_place
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute
from services import make_client
from uploads import encoded

pytestmark = pytest.mark.slow  # together they take long

RED = Image.new("RGB", (20, 10), "red")


def put(client, name, picture=RED, form="PNG", **options):
    files = {"file": ("a.png", encoded(picture, form, **options))}
    return client.put(f"/v1/pictures/{name}", files=files)


def names(client, **query):
    answer = client.get("/v1/pictures", params=query)
    assert answer.status_code == 200, answer.text
    return [one["name"] for one in answer.json()["pictures"]]


def test_pages_of_the_list_are_the_whole_list(steady):
    everything, after, pages = names(steady, limit=1000), "", []
    while after is not None:
        page = steady.get("/v1/pictures", params={"limit": 7, "after": after}).json()
        pages.append([one["name"] for one in page["pictures"]])
        after = page["next"]
    assert ([name for page in pages for name in page], len(pages)) == (everything, 5)
    assert everything == sorted(everything)
    assert names(steady, where=["price>=10", "colour=red"]) == ["red/10.png", "red/15.png", "red/20.png", "red/25.png"]
    page = steady.get("/v1/pictures", params={"where": "price<4", "limit": 2}).json()
    assert (page["total"], page["next"], page["columns"]) == (4, "gold/03.png", ["colour", "name", "price"])
    assert page["pictures"][0] == {
        "name": "blue/02.png",
        "metadata": {"name": "blue/02.png", "price": "2", "colour": "blue"},
        "thumbnail": "/v1/pictures/blue/02.png/thumbnail",
    }


def test_a_picture_its_facts_and_its_thumbnails(steady, made):
    file = steady.get("/v1/pictures/red/00.png")
    assert (file.content, file.headers["content-type"]) == ((made / "photos/red/00.png").read_bytes(), "image/png")
    assert "sandbox" in file.headers["content-security-policy"]
    facts = steady.get("/v1/pictures/red/00.png", headers={"Accept": "application/json"}).json()
    assert (facts["name"], facts["metadata"]["colour"], len(facts["sha256"])) == ("red/00.png", "red", 64)
    for side in (16, 40, 320):
        answer = steady.get("/v1/pictures/red/00.png/thumbnail", params={"side": side})
        assert answer.headers["content-type"] == "image/webp"
        assert max(Image.open(io.BytesIO(answer.content)).size) == min(side, 64)
    again = steady.get("/v1/pictures/red/00.png/thumbnail", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_what_is_put_is_found_and_what_is_deleted_is_not(client, index, tmp_path):
    first = put(client, "new/wide.png")
    assert (first.status_code, first.json()) == (
        201,
        {"name": "new/wide.png", "thumbnail": "/v1/pictures/new/wide.png/thumbnail"},
    )
    data = encoded(RED)
    best = client.post("/v1/search", files={"image": ("a.png", data)}, data={"k": "1"}).json()["hits"][0]
    assert (best["name"], best["score"]) == ("new/wide.png", pytest.approx(1, abs=1e-5))
    assert client.get("/v1/pictures/new/wide.png").content == data
    metadata = {"price": 3.5, "colour": "crimson", "sale": True, "note": None}
    files, fields = {"file": ("b.png", encoded(Image.new("RGB", (9, 9), "blue")))}, {"metadata": json.dumps(metadata)}
    assert client.put("/v1/pictures/new/wide.png", files=files, data=fields).status_code == 200
    assert names(client, where=["colour=crimson", "price<4"]) == ["new/wide.png"]
    listed = client.get("/v1/pictures", params={"after": "new/", "limit": 1}).json()["pictures"][0]
    assert listed["metadata"] == metadata
    assert len(list((tmp_path / "ix/pictures").glob("*.png"))) == 1
    assert client.delete("/v1/pictures/new/wide.png").status_code == 204
    assert client.delete("/v1/pictures/new/wide.png").status_code == 404
    assert client.get("/v1/pictures/new/wide.png").status_code == 404
    assert list((tmp_path / "ix/pictures").glob("*.png")) == []
    assert len(index) == 30


def test_pictures_are_read_as_people_see_them(client):
    sideways = Image.new("RGB", (40, 20), "white")
    sideways.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right
    assert put(client, "turned.jpg", sideways, "JPEG", exif=exif).status_code == 201
    shown = Image.open(io.BytesIO(client.get("/v1/pictures/turned.jpg/thumbnail", params={"side": 40}).content))
    assert shown.size == (20, 40)
    assert put(client, "clear.png", Image.new("RGBA", (20, 20), (0, 0, 0, 0))).status_code == 201
    shown = Image.open(io.BytesIO(client.get("/v1/pictures/clear.png/thumbnail").content)).convert("RGB")
    assert min(shown.getpixel((10, 10))) > 250


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ("", "metadata"),
        ("{", "metadata"),
        ("[]", "metadata"),
        ('"a"', "metadata"),
        ('{"a": [1]}', "a"),
        ('{"a": NaN}', "metadata"),
        ('{" ": 1}', "metadata"),
        (json.dumps({str(i): i for i in range(101)}), "metadata"),
        (json.dumps({"a": "b" * 20_000}), "a"),
        ('{"a": "\\ud800"}', "metadata"),
    ],
)
def test_wrong_metadata_are_named(steady, metadata, word):
    answer = steady.put(
        "/v1/pictures/a.png", files={"file": ("a.png", encoded(RED))}, data={"metadata": metadata or " "}
    )
    assert (answer.status_code, word in answer.json()["detail"]) == (422, True), answer.text
    assert steady.get("/v1/pictures/a.png").status_code == 404


def test_a_put_without_a_picture_is_a_wrong_field(steady):
    for options in (
        {"data": {"metadata": "{}"}, "files": {"file": ("", b"")}},
        {"json": {}},
        {"files": {"image": ("a.png", encoded(RED))}},
        {"files": [("file", ("a.png", encoded(RED)))] * 2},
        {},
    ):
        assert steady.put("/v1/pictures/a.png", **options).status_code == 422


def test_a_full_disk_is_said_and_the_picture_is_not_there(client, monkeypatch):
    def full(*_, **__):
        raise OutputError("the disk is full")

    monkeypatch.setattr("cig.service.pictures.write_bytes", full)
    assert put(client, "a.png").status_code == 507
    assert client.get("/v1/pictures/a.png").status_code == 404


def test_changes_of_another_process_are_seen(client, index, tmp_path, made):
    """Of another connection, as another process has one."""
    other = open(index.folder, cache=tmp_path / "other", device="cpu")
    shutil.copy(made / "photos/red/00.png", tmp_path / "extra.png")
    other.add(tmp_path / "extra.png", metadata={"size": 9})
    other.remove("red/00.png")
    assert "red/00.png" not in names(client)
    assert names(client, where=["size=9"]) == ["extra.png"]
    files = {"image": ("a.png", (made / "photos/red/00.png").read_bytes())}
    answer = client.post("/v1/search", files=files, data={"k": "1"}).json()
    assert (answer["hits"][0]["name"], answer["searched"]) == ("extra.png", 30)
    other.close()


def test_files_that_a_killed_service_left_are_removed(start, index):
    folder = index.folder / "pictures"
    folder.mkdir()
    (folder / f"{'0' * 64}.png").write_bytes(encoded(RED))
    client = start()
    assert put(client, "a.png").status_code == 201
    assert {path.suffix for path in folder.iterdir() if not path.name.startswith(".")} == {".png"}
    assert len(list(folder.glob("*.png"))) == 1
    client.running.opened.pictures._clean()
    assert len(list(folder.glob("*.png"))) == 1


def opened_folder(folder, home) -> Index:
    return open_place(folder, OwnSearching(method="sum/icons", feature_cache=home / "cache"), Compute(device="cpu"))


def test_a_served_folder_keeps_what_was_put_and_deleted(tmp_path):
    """The index of a folder follows it at each start, and the folder itself is not written to."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("a.png", "red"), ("b.png", "green"), ("c.png", "blue")):
        Image.new("RGB", (9, 9), colour).save(folder / name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with make_client(opened_folder(folder, tmp_path)) as client:
        assert put(client, "a.png", Image.new("RGB", (9, 9), "gold")).status_code == 200
        assert put(client, "d.png", Image.new("RGB", (9, 9), "black")).status_code == 201
        assert client.delete("/v1/pictures/b.png").status_code == 204
    with make_client(opened_folder(folder, tmp_path)) as client:
        assert names(client) == ["a.png", "c.png", "d.png"]
        gold = Image.open(io.BytesIO(client.get("/v1/pictures/a.png").content)).getpixel((0, 0))
        assert gold == (255, 215, 0)
        assert client.delete("/v1/pictures/a.png").status_code == 204
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    Image.new("RGB", (9, 9), "white").save(folder / "b.png")  # changed: a picture of the folder again
    with make_client(opened_folder(folder, tmp_path)) as client:
        assert names(client) == ["b.png", "c.png", "d.png"]


def test_a_picture_without_metadata_has_the_row_of_the_table_as_it_is_now(client, index, made, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("name,price\nnew.png,7\n")
    index.facts["metadata"] = str(table)
    for price in ("7", "8"):
        table.write_text(f"name,price\nnew.png,{price}\n" + "other.png,1\n" * (price == "8"))
        assert put(client, "new.png").status_code in (200, 201)
        row = client.get("/v1/pictures/new.png", headers={"Accept": "application/json"}).json()["metadata"]
        assert row == {"name": "new.png", "price": price}


def test_another_index_in_the_place_of_the_first_is_seen(client, index, tmp_path, made):
    """A folder that is removed and built again, as `rm -r` and `cig index build` do."""
    new = tmp_path / "new"
    shutil.copytree(made / "ix", new)
    other = open(new, cache=tmp_path / "other", device="cpu")
    other.remove(*[entry.name for entry in other.entries() if not entry.name.startswith("red/")])
    other.close()
    assert len(names(client)) == 30
    shutil.rmtree(index.folder)
    gone = client.get("/v1/pictures")
    assert (gone.status_code, gone.headers["content-type"]) == (503, "application/problem+json")
    shutil.copytree(new, index.folder)
    assert names(client) == [f"red/{number:02}.png" for number in range(0, 30, 5)]
    assert client.post("/v1/search", json={"text": "a disc", "k": 30}).json()["searched"] == 6
    facts = json.loads((index.folder / "index.json").read_text())
    shutil.rmtree(index.folder)
    shutil.copytree(new, index.folder)
    (index.folder / "index.json").write_text(json.dumps({**facts, "space": "another"}))
    assert client.post("/v1/search", json={"text": "a disc"}).status_code == 503
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("form", "kind"), [("GIF", "image/gif"), ("BMP", "image/bmp"), ("TIFF", "image/tiff"), ("WEBP", "image/webp")]
)
def test_a_picture_is_sent_back_as_the_form_that_it_has(client, form, kind):
    assert put(client, "a.png", RED, form).status_code == 201
    answer = client.get("/v1/pictures/a.png")
    assert (answer.headers["content-type"], answer.content) == (kind, encoded(RED, form))
