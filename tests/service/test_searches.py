"""POST /v1/search: the same answers as Index.search, and each wrong field by its name."""

import io

import pytest
from PIL import Image


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def pairs(hits):
    return [(hit.name, pytest.approx(hit.score, abs=1e-6)) for hit in hits]


def answered(answer):
    assert answer.status_code == 200, answer.text
    return [(hit["name"], hit["score"]) for hit in answer.json()["hits"]]


def test_answers_equal_those_of_the_index(client, index, made):
    photo = made / "photos/red/00.png"
    files = [("image", ("x.png", photo.read_bytes()))]
    by_form = client.post("/v1/search", files=files, data={"text": "a blue disc", "k": 5})
    assert answered(by_form) == pairs(index.search(Image.open(photo), "a blue disc", k=5))
    by_name = client.post("/v1/search", json={"picture": ["red/00.png"], "text": "a blue disc", "k": 30})
    assert answered(by_name) == pairs(index.search(photo, "a blue disc", k=30))
    assert "red/00.png" not in dict(answered(by_name))
    wanted = {"text": "a disc", "without": "red", "where": ["price>=10", "colour!=gold"], "group_by": "colour", "k": 9}
    both = client.post("/v1/search", json={**wanted, "min_score": -1})
    assert answered(both) == pairs(index.search(**wanted, min_score=-1))
    assert both.json()["searched"] == 16
    assert both.json()["imagined"] is None
    hit = both.json()["hits"][0]
    assert set(hit) == {"name", "score", "metadata", "thumbnail"}
    assert hit["metadata"]["colour"] == hit["name"].split("/")[0]
    assert client.get(hit["thumbnail"]).headers["content-type"] == "image/webp"
