"""Who may ask: tokens, the printed secret and its cookie, the Host and the Origin."""

import pytest

from calls import run
from cig.errors import UsageError
from cig.service.access import Access
from cig.service.settings import Serving

pytestmark = pytest.mark.slow  # together they take long

WRITE, READ = "w" * 20, "r" * 20


def test_tokens(client):
    def status(token, method="GET", path="/v1/pictures"):
        return client.request(method, path, headers={"Authorization": token.encode("latin-1")}).status_code

    assert [status(f"Bearer {token}") for token in (WRITE, READ, "wrong", "")] == [200, 200, 401, 401]
    assert [status(text) for text in ("", WRITE, f"Basic {WRITE}", "bearer " + READ, "Bearer é")] == [
        401,
        401,
        401,
        200,
        401,
    ]
    assert status(f"Bearer {READ}", "PUT", "/v1/pictures/a.png") == 403
    assert status(f"Bearer {READ}", "DELETE", "/v1/pictures/red/00.png") == 403
    assert status("Bearer wrong", "DELETE", "/v1/pictures/red/00.png") == 401
    assert client.get("/v1/pictures/red/00.png").status_code == 200
    assert [status("", path=path) for path in ("/healthz", "/readyz", "/openapi.json", "/metrics", "/")] == [
        *(200, 200, 200, 401, 401)
    ]
    refused = client.get("/v1/pictures", headers={"Authorization": "Bearer wrong"})
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.json()["title"], refused.headers["www-authenticate"]) == ("Unauthorized", "Bearer")


def test_the_secret_becomes_a_cookie(start):
    access = Access.of(Serving())
    client = start(access=access)
    client.headers.pop("Authorization")
    assert client.get("/").status_code == 401
    assert client.get(f"/{access.secret[:-1]}x/").status_code == 401
    visit = client.get(f"/{access.secret}/?text=red", follow_redirects=False)
    assert (visit.status_code, visit.headers["location"]) == (303, "/?text=red")
    assert "HttpOnly" in visit.headers["set-cookie"]
    page = client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.post("/v1/search", json={"text": "red"}).status_code == 200
    assert client.delete("/v1/pictures/red/00.png").status_code == 204


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:8000"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "127.0.0.1:x"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9"}, 403),
        ({"Origin": "https://127.0.0.1"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ],
)
def test_other_pages_and_names_are_refused(steady, headers, status):
    assert steady.post("/v1/search", json={"text": "red"}, headers=headers).status_code == status
    assert steady.get("/v1/pictures", headers=headers).status_code == status
    assert [steady.get(path, headers=headers).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_token_files(tmp_path):
    for name, text in {"w": "one\n", "r": "two", "same": "one", "many": "a b", "empty": "", "odd": "é"}.items():
        (tmp_path / name).write_text(text)
    files = {name: tmp_path / name for name in ("w", "r", "same", "many", "empty", "odd", "none")}
    access = Access.of(Serving(write_token_file=files["w"], read_token_file=files["r"]))
    assert [access.level(token) for token in ("one", "two", "", "three")] == ["write", "read", "", ""]
    for name in ("same", "many", "empty", "odd", "none"):
        with pytest.raises(UsageError, match=name if name != "same" else "same"):
            Access.of(Serving(write_token_file=files["w"], read_token_file=files[name]))
    for given in ({}, {"write_token_file": files["w"]}, {"read_token_file": files["r"]}):
        with pytest.raises(UsageError, match="token-file"):
            Serving(host="0.0.0.0", **given)


def test_wrong_calls_end_before_anything_is_loaded(made, tmp_path, capsys):
    (tmp_path / "token").write_text("one")
    wrong = [
        (("--host", "0.0.0.0"), "--write-token-file"),
        (("--host", "0.0.0.0", "--read-token-file", tmp_path / "token"), "--write-token-file"),
        (("--write-token-file", tmp_path / "none", "--read-token-file", tmp_path / "token"), "none"),
        (("--port", 70000), "--port"),
        (("--max-upload", 0), "--max-upload"),
        (("--imagine", "--model-path", tmp_path / "none"), "--model-path"),
    ]
    for flags, word in wrong:
        code, _, said = run(capsys, "serve", made / "ix", "--port", 0, *flags)
        assert (code, word in said, "Traceback" in said) == (2, True, False), said
    code, _, said = run(capsys, "serve", tmp_path / "nowhere")
    assert (code, "nowhere" in said) == (2, True)
