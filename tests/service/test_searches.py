"""POST /v1/search: the same answers as Index.search, and each wrong field by its name."""

import io

import pytest
from PIL import Image

from services import COLOURS


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


def test_several_pictures_by_name_and_by_upload(client, index, made):
    red, blue = made / "photos/red/00.png", made / "photos/blue/02.png"
    files = [("image", ("a", path.read_bytes())) for path in (red, blue)]
    truth = pairs(index.search([Image.open(red), Image.open(blue)], "gold", k=4))
    assert answered(client.post("/v1/search", files=files, data={"text": "gold", "k": "4"})) == truth
    without = [pair for pair in truth if pair[0] not in ("red/00.png", "blue/02.png")]
    by_name = {"picture": ["red/00.png", "blue/02.png"], "text": "gold", "k": 4}
    assert answered(client.post("/v1/search", json=by_name))[: len(without)] == without
    form = {"picture": ["red/00.png", "blue/02.png"], "text": "gold", "k": "4", "where": ["price>2", "price<20"]}
    mixed = client.post("/v1/search", data={**form, "picture": "blue/02.png"}, files=files[:1])
    wanted = {"where": form["where"], "k": 4}
    assert answered(mixed) == pairs(index.search([Image.open(red), blue], "gold", **wanted))
    assert client.post("/v1/search", data=form, files=files[:1]).json()["searched"] == 17
    nothing_chosen = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n'
        b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\ngold\r\n--b--\r\n'
    )
    as_form = {"Content-Type": "multipart/form-data; boundary=b"}
    assert len(answered(client.post("/v1/search", content=nothing_chosen, headers=as_form))) == 10


def test_one_of_several_hits_of_a_group_and_a_threshold(client, index):
    grouped = client.post("/v1/search", json={"text": "a red disc", "group_by": "colour", "k": 1000})
    assert sorted(hit["metadata"]["colour"] for hit in grouped.json()["hits"]) == sorted(COLOURS)
    scores = [score for _, score in answered(client.post("/v1/search", json={"text": "a red disc", "k": 30}))]
    assert (len(scores), scores) == (30, sorted(scores, reverse=True))
    least = {"text": "a red disc", "k": 30, "min_score": scores[11]}
    assert [score for _, score in answered(client.post("/v1/search", json=least))] == scores[:12]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        *[({"text": "a", "k": k}, "k") for k in (0, 1001, -1, 1.5, "x", "", True, [1, 2], {}, 10**30)],
        ({"text": 1}, "text"),
        ({"text": "a\0"}, "text"),
        ({"text": "a" * 4001}, "text"),
        ({"text": ["a", "b"]}, "text"),
        ({"text": "a", "without": {}}, "without"),
        ({"text": "a", "where": ["price"]}, "where"),
        ({"text": "a", "where": ["size<3"]}, "size"),
        ({"text": "a", "where": ["price<3"] * 51}, "where"),
        ({"text": "a", "group_by": "size"}, "size"),
        ({"text": "a", "min_score": "high"}, "min_score"),
        ({"text": "a", "min_score": True}, "min_score"),
        ({"text": "a", "imagine": "perhaps"}, "imagine"),
        ({"text": "a", "imagine": True}, "imagine"),
        ({"text": "a", "picture": ["red/00.png"], "imagine": True}, "imagine"),
        ({"picture": ["red/00.png"] * 9}, "picture"),
        ({"picture": ["none.png"]}, "none.png"),
        ({"picture": [""]}, "picture"),
        ({"picture": [3]}, "picture"),
        ({"text": "a", "limit": 3}, "limit"),
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"without": "red"}, "text"),
        ([], "object"),
        ("text", "object"),
    ],
)
def test_wrong_fields_are_named(steady, fields, word):
    answer = steady.post("/v1/search", json=fields)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert (problem["title"], word in problem["detail"]) == ("Unprocessable Entity", True), problem


def test_bounds_of_k_and_spellings_of_flags(steady):
    assert len(answered(steady.post("/v1/search", json={"text": "a", "k": 1000}))) == 30
    assert len(answered(steady.post("/v1/search", json={"text": "a"}))) == 10
    assert len(answered(steady.post("/v1/search", data={"text": "a", "where": ""}))) == 10
    twice = {"text": "a", "where": ["price>=10", "colour=red"]}
    assert answered(steady.post("/v1/search", data=twice)) == answered(steady.post("/v1/search", json=twice))
    assert len(steady.get("/v1/pictures?where=&after=&limit=4").json()["pictures"]) == 4
    for k, imagine in ((1, "false"), ("1", "0"), (1, False), (1.0, None)):
        answer = steady.post("/v1/search", json={"text": "a", "k": k, "imagine": imagine})
        assert (len(answered(answer)), answer.json()["imagined"]) == (1, None)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/search", 405),
        ("PUT", "/v1/search", 405),
        ("POST", "/v1/pictures", 405),
        ("POST", "/v1/pictures/red/00.png", 405),
        ("PATCH", "/v1/pictures/red/00.png", 405),
        ("OPTIONS", "/v1/search", 405),
        ("GET", "/v1/search/none", 404),
        ("DELETE", "/v1/search/none", 404),
        ("GET", "/v1/search/none/imagined", 404),
        ("GET", "/v1/pictures/none.png", 404),
        ("GET", "/v1/pictures/none.png/thumbnail", 404),
        ("DELETE", "/v1/pictures/none.png", 404),
        ("GET", "/v1/pictures/red/00.png/thumbnail?side=0", 422),
        ("GET", "/v1/pictures/red/00.png/thumbnail?side=9999", 422),
        ("GET", "/v1/pictures?limit=0", 422),
        ("GET", "/v1/pictures?limit=x", 422),
        ("GET", "/v1/pictures?where=price", 422),
        ("GET", "/v1/pictures?where=size%3C3", 422),
    ],
)
def test_what_is_not_there_is_a_problem(steady, method, path, status):
    answer = steady.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert len(problem["detail"]) > 10
