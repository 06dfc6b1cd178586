"""`cig download fashioniq` against a server of this machine's, which answers as the worst of them do."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cig.cli.main import main
from cig.download._hosts import LOST
from cig.download._ledger import Ledger
from cig.download._mirrors import addresses
from cig.download._url_lists import read_urls
from cig.io.images import limit_pixels

pytestmark = pytest.mark.slow  # together they take long


def picture(name, form="JPEG", size=(40, 30)):
    """Noise that belongs to a name."""
    pixels = random.Random(name).randbytes(size[0] * size[1] * 3)
    return encoded(Image.frombytes("RGB", size, pixels), form)


def encoded(image, form):
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.lstrip("/")
        with self.server.lock:
            self.server.requests[path] += 1
        if path in self.server.files:
            return self.send(self.server.files[path])
        name = path.rpartition("/")[2].partition(".")[0].partition("%")[0]
        getattr(self, name.rstrip("0123456789").lower(), self.nothing)(name)
        return None

    def send(self, body, status=200, **headers):
        self.send_response(status)
        for key, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def nothing(self, _):
        self.send(b"not here", 404)

    def good(self, name):
        self.send(picture(name))

    def png(self, name):
        self.send(picture(name, "PNG"))

    def webp(self, name):
        self.send(picture(name, "WEBP"))

    def forbidden(self, _):
        self.send(b"no", 403)

    def removed(self, _):
        self.send(b"", 410)

    def busy(self, name):
        first = self.server.requests[self.path.lstrip("/")] == 1
        self.send(b"", 429, Retry_After="1") if first else self.good(name)

    def later(self, _):
        self.send(b"", 429, Retry_After="3600")

    def often(self, _):
        self.send(b"", 429)

    def recovers(self, name):
        self.send(b"", 500) if self.server.requests[self.path.lstrip("/")] == 1 else self.good(name)

    def down(self, _):
        self.send(b"", 500)

    def drip(self, _):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(40):
                self.wfile.write(b".")
                time.sleep(0.1)
        self.close_connection = True

    def reset(self, name):
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(picture(name)[:300])
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True

    def longer(self, name):
        """Says that there is more than comes."""
        self.send(picture(name), Content_Length=len(picture(name)) + 100)
        self.close_connection = True

    def cut(self, name):
        self.send(picture(name)[:-200])

    def round(self, _):
        self.send(b"", 302, Location=self.path)

    def elsewhere(self, name):
        self.send(b"", 302, Location=f"/GOOD{name[-1]}.jpg")

    def ftp(self, _):
        self.send(b"", 302, Location="ftp://a.org/x.jpg")

    def file(self, _):
        self.send(b"", 302, Location="file:///etc/passwd")

    def inside(self, _):
        self.send(b"", 302, Location="http://10.0.0.1/x.jpg")

    def page(self, _):
        self.send(b"<!DOCTYPE html><html><p>Sorry", Content_Type="image/jpeg")

    def text(self, _):
        self.send(b'{"error": "no such picture"}')

    def empty(self, _):
        self.send(b"")

    def pixel(self, _):
        self.send(encoded(Image.new("RGB", (1, 1)), "GIF"))

    def grey(self, _):
        self.send(encoded(Image.new("RGB", (50, 50), "grey"), "JPEG"))

    def same(self, _):
        self.send(picture("no image available"))

    def bomb(self, _):
        self.send(gzip.compress(bytes(10**7)), Content_Encoding="gzip")

    def vast(self, _):
        """A few bytes of PNG that say they are many pixels."""
        head = b"IHDR" + struct.pack(">II", 20000, 20000) + picture("x", "PNG")[24:29]
        self.send(picture("x", "PNG")[:12] + head + struct.pack(">I", zlib.crc32(head)) + picture("x", "PNG")[33:])

    def huge(self, _):
        self.send_response(200)
        self.send_header("Content-Length", str(10**12))
        self.end_headers()
        self.close_connection = True

    def endless(self, _):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(2**16))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.requests, self.files = threading.Lock(), Counter(), {}
        self.base = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        pass  # a client that hangs up

    def pictures(self):
        """How often each picture was asked for."""
        return Counter({path: n for path, n in self.requests.items() if not path.startswith(("annotations", "urls"))})

    def publish(self, splits, extra="", **categories):
        """Annotations and lists of addresses; a category is {id: path, or a whole address}."""
        for category, listed in categories.items():
            names = list(listed)
            pairs = list(pairwise(names)) or [(names[0], names[0])]
            captions = [{"candidate": a, "target": b, "captions": ["is red", "is long"]} for a, b in pairs]
            for split in splits:
                self.files[f"annotations/captions/cap.{category}.{split}.json"] = json.dumps(captions).encode()
                self.files[f"annotations/image_splits/split.{category}.{split}.json"] = json.dumps(names).encode()
            lines = [
                f"{name} \t {url if '://' in url else f'{self.base}/{url}'}\n" for name, url in listed.items() if url
            ]
            self.files[f"urls/asin2url.{category}.txt"] = ("".join(lines) + extra).encode()


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(autouse=True)
def _pixels():
    yield
    limit_pixels(2**28)


def line(server, home, *more):
    flags = {"--dataset-path": home, "--splits": "val", "--retries": 1, "--patience": 1, "--categories": "dress"}
    flags |= {"--annotations-from": f"{server.base}/annotations", "--urls-from": f"{server.base}/urls"}
    given = [word for flag, value in flags.items() if flag not in more for word in (flag, value)]
    return [str(word) for word in ("download", "fashioniq", *given, *more)]


def run(capsys, *words):
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as ended:
        code = ended.code or 0
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def outcomes(home):
    return {name: entry.outcome for name, entry in Ledger(home / "images/downloaded").lines.items()}


def stored(home):
    """Name of each picture, without its suffix -> content."""
    files = {
        path.relative_to(home / "images"): path for path in (home / "images").rglob("*.*") if path.suffix != ".jsonl"
    }
    return {str(name.with_suffix("")): path.read_bytes() for name, path in files.items() if path.is_file()}


def listed(*names):
    return {name: f"{name}.jpg" for name in names}


# What servers answer

ANSWERS = {
    "present": ("GOOD1", "GOOD2", "PNG1", "WEBP1", "BUSY1", "RECOVERS1", "ELSEWHERE3"),
    "gone": ("NOTHING1", "REMOVED1"),
    "refused": ("FORBIDDEN1",),
    "failing": ("DOWN1",),
    "slow": ("DRIP1",),
    "unreachable": ("RESET1", "LONGER1"),
    "redirects": ("ROUND1",),
    "address": ("FTP1", "FILE1", "INSIDE1"),
    "damaged": ("CUT1",),
    "web page": ("PAGE1",),
    "no picture": ("TEXT1",),
    "empty": ("EMPTY1",),
    "tiny": ("PIXEL1",),
    "one colour": ("GREY1",),
    "packed": ("BOMB1",),
    "too large": ("VAST1", "HUGE1", "ENDLESS1"),
}
NAMES = [name for names in ANSWERS.values() for name in names]


@pytest.mark.slow
def test_each_answer_ends_in_its_line(server, tmp_path, capsys):
    server.publish(["val"], dress={**listed(*NAMES), "UNLISTED": ""})
    words = line(server, tmp_path, "--max-mb", 1, "--json", tmp_path / "told.json")
    code, out, err = run(capsys, *words)
    assert outcomes(tmp_path) == {name: outcome for outcome, names in ANSWERS.items() for name in names}
    content = stored(tmp_path)
    assert set(content) == {f"downloaded/dress/{name}" for name in ANSWERS["present"]}
    assert content["downloaded/dress/GOOD1"] == picture("GOOD1"), "as received"
    assert {path.suffix for path in (tmp_path / "images").rglob("*1.*")} == {".jpg", ".png", ".webp"}
    assert code == 1
    assert f"fashioniq/val/dress lacks {len(NAMES) - 6} of {len(NAMES) + 1} pictures" in err
    (facts,) = json.loads((tmp_path / "told.json").read_text())["parts"].values()
    assert [facts[key] for key in ("wanted", "present", "dead", "not_asked")] == [len(NAMES) + 1, 7, 2, 1]
    assert facts["absent"]["gone"] == ["NOTHING1", "REMOVED1"]
    assert facts["absent"]["no address"] == ["UNLISTED"]
    assert facts["evaluable"] == 6, "the seven in a row make six pairs"
    assert "web page: a web page in the place of a picture: 1 ids (PAGE1)" in out
    lines = [json.loads(text) for text in (tmp_path / "images/downloaded/download.jsonl").read_text().splitlines()]
    good = next(entry for entry in lines if entry["id"] == "GOOD1")
    assert good["digest"] == hashlib.sha256(picture("GOOD1")).hexdigest()
    assert (good["source"], good["files"]) == (f"{server.base}/GOOD1.jpg", ["dress/GOOD1.jpg"])
    assert [entry["outcome"] for entry in good["tries"]] == ["present"]


def test_a_rerun_asks_for_nothing_that_is_there_or_known_to_be_gone(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1", "GOOD2", "NOTHING1", "PIXEL1", "DOWN1"))
    words = line(server, tmp_path, "--retries", "0")
    run(capsys, *words)
    server.requests.clear()
    run(capsys, *words)
    assert server.requests == {"DOWN1.jpg": 1}, "annotations and lists that are there are kept, too"
    (tmp_path / "images/downloaded/dress/GOOD2.jpg").unlink()
    server.requests.clear()
    run(capsys, *words, "--retry-final")
    assert server.pictures() == {"DOWN1.jpg": 1, "GOOD2.jpg": 1, "NOTHING1.jpg": 1, "PIXEL1.jpg": 1}


def test_a_second_download_into_one_folder_asks_nothing(server, tmp_path, capsys, held_elsewhere):
    process = held_elsewhere("folder", tmp_path)
    server.publish(["val"], dress=listed("GOOD1"))
    code, _, err = run(capsys, *line(server, tmp_path))
    assert (code, f"process {process.pid}" in err, server.requests) == (2, True, {})


def test_a_rerun_asks_first_for_what_was_never_asked(server, tmp_path, capsys):
    failed, new = [f"DOWN{i}" for i in range(9)], [f"GOOD{i}" for i in range(9)]
    server.publish(["val"], dress=listed(*failed))
    words = line(server, tmp_path, "--retries", "0", "--at-once", "1")
    run(capsys, *words)
    server.publish(["val"], dress=listed(*failed, *new))
    shutil.rmtree(tmp_path / "captions")
    shutil.rmtree(tmp_path / "image_splits")
    shutil.rmtree(tmp_path / "image_url")
    server.requests.clear()
    run(capsys, *words)
    assert list(server.pictures()) == [f"{name}.jpg" for name in (*new, *failed)]


def test_a_whole_dataset_ends_with_0_and_the_digest_of_check(server, tmp_path, capsys):
    server.publish(["val", "test"], dress=listed("GOOD1", "GOOD2", "PNG1"), shirt=listed("GOOD2", "GOOD3"))
    words = line(server, tmp_path, "--categories", "dress", "shirt", "--splits", "val", "test")
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert server.pictures() == {"GOOD1.jpg": 1, "GOOD2.jpg": 1, "PNG1.jpg": 1, "GOOD3.jpg": 1}, "once for both"
    printed = next(text for text in out.splitlines() if text.startswith("picture set of fashioniq/val"))
    code, out, _ = run(capsys, "check", "fashioniq/val", "--dataset-path", tmp_path, "--categories", "dress", "shirt")
    assert code == 0
    assert f"picture set {printed.split()[-1]}" in out
    server.requests.clear()
    code, _, _ = run(capsys, *words, "--flat")
    assert (code, server.pictures()) == (0, {})


def test_flat(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1"), shirt=listed("GOOD1"))
    code, _, _ = run(capsys, *line(server, tmp_path, "--categories", "dress", "shirt", "--flat"))
    assert (code, set(stored(tmp_path))) == (0, {"downloaded/GOOD1"})


def test_what_one_category_has_another_needs_not_ask_for(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1"), shirt=listed("GOOD1"))
    run(capsys, *line(server, tmp_path))
    code, _, _ = run(capsys, *line(server, tmp_path, "--categories", "shirt"))
    assert (code, server.pictures()) == (0, {"GOOD1.jpg": 1})
    assert set(stored(tmp_path)) == {"downloaded/dress/GOOD1", "downloaded/shirt/GOOD1"}


# Hostile lists


def test_names_are_no_paths(server, tmp_path, capsys):
    home = tmp_path / "home"
    evil = {"../../out": "GOOD1.jpg", "..": "GOOD2.jpg", "/etc/x": "GOOD3.jpg", "a.b": "GOOD4.jpg"}
    server.publish(["val"], dress={"GOOD5": "../../GOOD5.jpg", **evil})
    code, out, _ = run(capsys, *line(server, home))
    assert code == 1
    assert server.pictures() == {"GOOD5.jpg": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert "dress: 4 lines of the list are not valid (line 2: no id of letters and digits: '../../out'" in out
    assert set(stored(home)) == {"downloaded/dress/GOOD5"}


@pytest.mark.parametrize("cut", [100, 2000])
def test_an_answer_that_says_it_is_shorter_is_no_whole_picture(server, tmp_path, capsys, cut):
    class Short(Handler):
        def good(self, name):
            self.send(picture(name), Content_Length=len(picture(name)) - cut)
            self.close_connection = True

    server.RequestHandlerClass = Short
    server.publish(["val"], dress=listed("GOOD1"))
    run(capsys, *line(server, tmp_path, "--retries", "0"))
    assert outcomes(tmp_path)["GOOD1"] in ("damaged", "unreachable"), "as the rest comes before the end is read, or not"
    assert not stored(tmp_path)


def test_a_list_leads_to_no_private_place_that_the_user_did_not_name(server, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        urls = {"A1": f"http://127.0.0.1:{port}/A1.jpg", "A2": "ftp://a.org/x", "A3": "http://u:p@a.org/x.jpg"}
        server.publish(["val"], dress=urls)
        run(capsys, *line(server, tmp_path))
    assert outcomes(tmp_path) == {"A1": "address", "A3": "address"}


# Lists


LIST = (
    b"\xef\xbb\xbfB00014NGF6 \t http://a.org/I/51AERD8SM8L._SY445_.jpg\r\n"
    b"B0006HJ91S\thttp://a.org/I/31c9O%2BZOMfL._SY445_.jpg\n"
    b"\n"
    b"B0006HJBCA   https://a.org/a b.jpg  \n"
    b"../../etc \t http://a.org/x.jpg\n"
    b"B0006HJBGG\n"
    b"B0006HJBGG \t javascript:alert(1)\n"
    b"B0006HJBGG \t http://a.org/\xff.jpg\n"
    b"B0006HJBGG \t http://[a.org/x.jpg\n"
    b"B0006HJ91S \t http://a.org/other.jpg\n"
    b"B00014NGF6 \t http://a.org/I/51AERD8SM8L._SY445_.jpg"
)


def test_every_valid_line_is_kept_and_the_others_are_told(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(LIST)
    listed = read_urls(path)
    assert listed.urls == {
        "B00014NGF6": "http://a.org/I/51AERD8SM8L._SY445_.jpg",
        "B0006HJ91S": "http://a.org/I/31c9O%2BZOMfL._SY445_.jpg",
        "B0006HJBCA": "https://a.org/a b.jpg",
    }
    assert listed.lines == 4
    assert [text.partition(":")[0] for text in listed.refused] == [f"line {n}" for n in (5, 6, 7, 8, 9, 10)]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_bytes(data)
    listed = read_urls(path)
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert listed.lines + len(listed.refused) == sum(bool(text.strip()) for text in lines)


def test_lists_are_turned_into_each_other(tmp_path, capsys):
    (tmp_path / "asin2url.dress.txt").write_bytes(LIST)
    code, out, err = run(capsys, "convert-urls", tmp_path / "asin2url.dress.txt", tmp_path / "dress.json")
    assert (code, "3 ids of 4 lines" in out, "line 5: no id" in err) == (1, True, True)
    assert json.loads((tmp_path / "dress.json").read_text())[1] == {
        "asin": "B0006HJ91S",
        "url": "http://a.org/I/31c9O%2BZOMfL._SY445_.jpg",
    }
    code, _, _ = run(capsys, "convert-urls", tmp_path / "dress.json", tmp_path / "back.txt")
    assert code == 0
    assert read_urls(tmp_path / "back.txt").urls == read_urls(tmp_path / "asin2url.dress.txt").urls
    (tmp_path / "odd.json").write_text('[{"asin": "A1"}, 3, {"asin": "A2", "url": "http://a.org/x"}]')
    assert [text[:8] for text in read_urls(tmp_path / "odd.json").refused] == ["entry 0:", "entry 1:"]


@pytest.mark.parametrize(
    "wrong", [b'{"A1": "http://a.org/x"}', b"[]", b'[{"asin": "../x", "url": "http://a.org/x"}]', b"<html>"]
)
def test_nothing_is_written_over_a_list_by_one_that_is_none(tmp_path, capsys, wrong):
    good, source = tmp_path / "good.txt", tmp_path / "WRONG.json"
    good.write_bytes(LIST)
    source.write_bytes(wrong)
    code, out, err = run(capsys, "convert-urls", source, good)
    assert (code, out, good.read_bytes()) == (1, "", LIST)
    assert "WRONG.json" in err
    assert run(capsys, "convert-urls", source, tmp_path / "new.txt")[0] == 1
    assert not (tmp_path / "new.txt").exists()


def test_the_real_lists(annotations):
    """Counted by other means, too: see docs/fashioniq.md."""
    counts = {}
    for category in ("dress", "shirt", "toptee"):
        path = annotations / "fashioniq" / "image_url" / f"asin2url.{category}.txt"
        if not path.exists():
            pytest.skip("the lists of addresses are not at hand")
        listed, raw = read_urls(path), path.read_text().splitlines()
        assert listed.refused == ()
        assert [*listed.urls.items()] == [(text[:10], text[13:]) for text in raw]
        shared = listed.shared()
        counts[category] = listed.lines, len(shared), sum(map(len, shared.values())), len(listed.branded())
    assert counts == {
        "dress": (19087, 373, 1434, 615),
        "shirt": (31728, 498, 1156, 1),
        "toptee": (26868, 258, 593, 5),
    }
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [77683, 1129, 3183, 621]


def test_a_list_in_the_other_form_is_read(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1"))
    (tmp_path / "image_url").mkdir()
    (tmp_path / "image_url/dress.json").write_text(json.dumps([{"asin": "GOOD1", "url": f"{server.base}/x/GOOD1.jpg"}]))
    run(capsys, *line(server, tmp_path))
    assert server.pictures() == {"x/GOOD1.jpg": 1}


def test_a_list_among_the_pictures_is_read(server, tmp_path, capsys):
    """images/dress.json, where CIG's published code has it."""
    server.publish(["val"], dress=listed("GOOD1"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/dress.json").write_text(json.dumps([{"asin": "GOOD1", "url": f"{server.base}/x/GOOD1.jpg"}]))
    run(capsys, *line(server, tmp_path))
    assert (server.pictures(), "urls/asin2url.dress.txt" in server.requests) == ({"x/GOOD1.jpg": 1}, False)


def test_a_folder_that_cannot_be_listed_is_left_out_and_named(server, tmp_path, capsys, close_folder):
    closed = close_folder(tmp_path / "mine/lost+found")
    (tmp_path / "mine/NOTHING1.jpg").write_bytes(picture("mine"))
    server.publish(["val"], dress=listed("NOTHING1"))
    code, out, _ = run(capsys, *line(server, tmp_path / "home", "--from-dir", tmp_path / "mine"))
    assert (code, f"folders that cannot be listed, left out: 1 ('{closed}')" in out) == (0, True)


def test_ids_that_share_a_picture_are_counted(server, tmp_path, capsys):
    shared = {"A1": "GOOD1.jpg", "A2": "GOOD1.jpg", "A3": "images/G/01/GOOD2.jpg", "A4": "GOOD3.jpg"}
    server.publish(["val"], dress=shared)
    code, out, _ = run(capsys, *line(server, tmp_path))
    assert code == 0
    assert "dress: 2 ids share 1 addresses, so their pictures are the same (A1, A2)" in out
    assert "dress: 1 ids have a picture of the brand, not of the product (A3)" in out


# Placeholders


def test_content_that_many_addresses_serve_is_set_apart(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1", "SAME1", "SAME2", "SAME3"))
    words = line(server, tmp_path)
    code, _, _ = run(capsys, *words)
    assert code == 0, "three may happen"
    code, out, _ = run(capsys, *words, "--placeholder-at", "3")
    assert (code, "placeholder: the same content at many addresses: 3 ids (SAME1, SAME2, SAME3)" in out) == (1, True)
    assert Counter(outcomes(tmp_path).values()) == {"present": 1, "placeholder": 3}
    assert [path.name for path in (tmp_path / "images/downloaded/dress").iterdir()] == ["GOOD1.jpg"]
    (kept,) = (tmp_path / "images/downloaded/.refused").iterdir()
    assert kept.read_bytes() == picture("no image available")
    server.requests.clear()
    run(capsys, *words, "--placeholder-at", "3")
    assert not server.pictures()
    server.files |= {f"mirror/SAME{i}.jpg": picture(i) for i in (1, 2, 3)}
    code, _, _ = run(capsys, *words, "--mirror", f"{server.base}/mirror/{{name}}", "--placeholder-at", "3")
    assert (code, server.pictures()) == (0, {f"mirror/SAME{i}.jpg": 1 for i in (1, 2, 3)}), (
        "elsewhere there may be more"
    )


# Mirrors


def test_mirrors_are_asked_in_order_until_one_has_it(server, tmp_path, capsys):
    server.publish(["val"], dress={"GOOD1": "GOOD1.jpg", "A2": "NOTHING2.jpg?x=1", "A3": "NOTHING3.jpg"})
    mirrors = [
        "--mirror",
        f"{server.base}/down/DOWN.jpg?{{quoted}}",
        "--mirror",
        f"{server.base}/m/GOOD{{asin}}/{{name}}",
    ]
    server.files["m/GOODA2/NOTHING2.jpg"] = picture("A2")
    code, _, _ = run(capsys, *line(server, tmp_path, "--retries", "0", *mirrors))
    assert code == 1
    query = (
        f"{server.base}/NOTHING2.jpg?x=1".replace(":", "%3A")
        .replace("/", "%2F")
        .replace("?", "%3F")
        .replace("=", "%3D")
    )
    assert [path for path in server.pictures() if "2" in path.partition("?")[0] or "2" in path][:1] == [
        "NOTHING2.jpg?x=1"
    ]
    assert server.pictures()[f"down/DOWN.jpg?{query}"] == 1
    assert outcomes(tmp_path) == {"GOOD1": "present", "A2": "present", "A3": "failing"}, (
        "may still come from the second"
    )
    server.requests.clear()
    run(capsys, *line(server, tmp_path, "--retries", "0", *mirrors))
    assert server.pictures(), "a mirror that failed is asked again"
    assert all(path.startswith("down/") for path in server.pictures()), "what is gone at an address is not asked there"


def test_addresses():
    templates = ("{url}", "https://m/{asin}.jpg", "https://m/{name}", "https://m/?u={quoted}")
    url = "http://a.org/I/{asin}%2B.jpg"
    assert addresses(templates, "A1", url) == (
        url,
        "https://m/A1.jpg",
        "https://m/{asin}%2B.jpg",
        "https://m/?u=http%3A%2F%2Fa.org%2FI%2F%7Basin%7D%252B.jpg",
    )
    assert addresses(templates, "A1", None) == ("https://m/A1.jpg",)


def test_a_host_that_is_not_there_is_given_up(server, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    server.publish(["val"], dress=listed(*(f"GOOD{i}" for i in range(60))))
    mirrors = ["--mirror", f"http://127.0.0.1:{port}/{{name}}", "--mirror", "{url}"]
    code, out, _ = run(capsys, *line(server, tmp_path, "--retries", "0", *mirrors))
    lines = [json.loads(text) for text in (tmp_path / "images/downloaded/download.jsonl").read_text().splitlines()]
    spared = [entry for entry in lines if "not asked any more" in entry["tries"][0]["why"]]
    assert (code, len(lines)) == (0, 60)
    assert 60 - LOST - 32 <= len(spared) <= 60 - LOST
    assert f"127.0.0.1:{port} failed many times in a row" in out


@pytest.mark.slow
def test_a_host_that_asks_to_wait_is_left_alone(server, tmp_path, capsys):
    """Two at a time; one of the first is told to wait a second, so no request comes in that second."""
    times = []
    busy = {"first": True}

    def note(handler, name):
        times.append(time.monotonic())
        if busy.pop("first", False):
            handler.send(b"", 429, Retry_After="1")
        else:
            handler.good(name)

    class Noting(Handler):
        waits = note

    server.RequestHandlerClass = Noting
    server.publish(["val"], dress=listed(*(f"WAITS{i}" for i in range(8))))
    code, _, _ = run(capsys, *line(server, tmp_path, "--per-host", 1, "--at-once", 2))
    assert code == 0
    first, *others = times
    assert sum(moment - first < 0.9 for moment in others) <= 1, "the one that was under way"


@pytest.mark.slow
def test_a_host_that_asks_for_more_than_is_waited_is_left_alone_to_the_end(server, tmp_path, capsys):
    """A rerun asks again; another host that has the same picture is asked all the while."""
    names = listed(*(f"LATER{i}" for i in range(100)))
    server.publish(["val"], dress=names)
    words = line(server, tmp_path)
    code, out, _ = run(capsys, *words)
    count = sum(server.pictures().values())
    assert (code, count <= 8) == (1, True), count  # those that were under way
    assert Counter(outcomes(tmp_path).values()) == {"busy": 100}
    waiting = [text for text in out.splitlines() if "asks to wait until" in text]
    assert len(waiting) == 1
    host = server.base.removeprefix("http://")
    form = rf"  {host} asks to wait until \d{{4}}-\d\d-\d\d \d\d:\d\d UTC, rerun then: {100 - count} addresses were"
    assert re.fullmatch(f"{form} not asked", waiting[0]), waiting
    assert "busy: the host asks to wait (429, 503): rerun later: 100 ids" in out
    mirror = server.base.replace("127.0.0.1", "localhost")
    server.files |= {f"m/{name}.jpg": picture(name) for name in list(names)[:50]}
    server.requests.clear()
    run(capsys, *words, "--mirror", f"{mirror}/m/{{name}}")
    assert Counter(outcomes(tmp_path).values()) == {"present": 50, "busy": 50}
    assert sum(path.startswith("LATER") for path in server.pictures()) <= 8
    server.files |= {f"{name}.jpg": picture(name) for name in names}
    assert run(capsys, *words)[0] == 0


@pytest.mark.parametrize(("answer", "outcome"), [("OFTEN", "busy"), ("DOWN", "failing")])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_host_that_only_fails_is_given_up(server, tmp_path, capsys, answer, outcome, retries):
    server.publish(["val"], dress=listed(*(f"{answer}{i}" for i in range(200))))
    _, out, _ = run(capsys, *line(server, tmp_path, "--retries", retries))
    tries = LOST * (1 + retries)
    count = sum(server.pictures().values())
    assert tries <= count < tries + 8, "those that were under way"
    assert Counter(outcomes(tmp_path).values()) == {outcome: 200}
    assert out.count("failed many times in a row and was given up") == 1


def test_a_host_that_serves_in_between_is_not_given_up(server, tmp_path, capsys):
    names = [name for i in range(60) for name in (f"DOWN{i}", f"NOTHING{i}")]
    server.publish(["val"], dress=listed(*names))
    _, out, _ = run(capsys, *line(server, tmp_path, "--retries", 0, "--at-once", 1))
    assert (sum(server.pictures().values()), "given up" in out) == (120, False)


@pytest.mark.slow
def test_the_host_that_a_redirect_leads_to_is_the_one_that_is_left_alone(server, tmp_path, capsys):
    """The one that redirects has others to serve."""

    class Leading(Handler):
        def aside(self, name):
            self.send(
                b"", 302, Location=f"{server.base.replace('127.0.0.1', 'localhost')}/{name.replace('ASIDE', 'LATER')}"
            )

    server.RequestHandlerClass = Leading
    names = [*(f"ASIDE{i}" for i in range(30)), *(f"GOOD{i}" for i in range(30))]
    server.publish(["val"], dress=listed(*names))
    trusted = ["--mirror", f"{server.base.replace('127.0.0.1', 'localhost')}/never/{{asin}}", "--mirror", "{url}"]
    run(capsys, *line(server, tmp_path, "--retries", 0, *trusted[2:]))
    assert Counter(outcomes(tmp_path).values()) == {"present": 30, "address": 30}, "a place that nobody named"
    code, out, _ = run(capsys, *line(server, tmp_path / "named", "--retries", 0, *trusted[:2]))
    assert (code, out.count("localhost:") >= 1) == (1, True)
    assert Counter(outcomes(tmp_path / "named").values()) == {"present": 30, "busy": 30}


# Ids that share an address


def test_an_address_is_asked_once_for_all_its_ids(server, tmp_path, capsys):
    shared = {f"A{i}": "GOOD1.jpg" for i in range(50)} | {f"B{i}": "RECOVERS2.jpg" for i in range(5)}
    mixed = {f"C{i}": "NOTHING3.jpg" for i in range(5)} | {"D1": "GOOD4.jpg", "C5": "NOTHING3.jpg"}
    server.publish(["val"], dress=shared | mixed)
    mirrors = ["--mirror", "{url}", "--mirror", f"{server.base}/m/{{name}}", "--mirror", f"{server.base}/own/{{asin}}"]
    server.files["own/C2"] = picture("C2")
    code, _, _ = run(capsys, *line(server, tmp_path, *mirrors))
    assert code == 1
    by_id = {f"own/C{i}": 1 for i in range(6)}
    assert (
        server.pictures()
        == {"GOOD1.jpg": 1, "RECOVERS2.jpg": 2, "NOTHING3.jpg": 1, "m/NOTHING3.jpg": 1, "GOOD4.jpg": 1} | by_id
    )
    ends = outcomes(tmp_path)
    assert Counter(ends.values()) == {"present": 57, "gone": 5}
    assert ends["C2"] == "present"
    content = stored(tmp_path)
    assert len(content) == 57, "a file of its own for each"
    assert all(content[f"downloaded/dress/A{i}"] == picture("GOOD1") for i in range(50))
    lines = Ledger(tmp_path / "images/downloaded").lines
    assert {lines[f"A{i}"].source for i in range(50)} == {f"{server.base}/GOOD1.jpg"}


def test_what_an_address_gave_one_id_it_need_not_give_another_in_a_later_run(server, tmp_path, capsys):
    server.publish(["val"], dress={"A1": "GOOD1.jpg"}, shirt={"A2": "GOOD1.jpg", "A3": "GOOD3.jpg"})
    run(capsys, *line(server, tmp_path))
    code, _, _ = run(capsys, *line(server, tmp_path, "--categories", "shirt"))
    assert (code, server.pictures()) == (0, {"GOOD1.jpg": 1, "GOOD3.jpg": 1})
    assert stored(tmp_path)["downloaded/shirt/A2"] == picture("GOOD1")


# Pictures that are there


def test_pictures_of_ones_own_are_adopted_once_checked(server, tmp_path, capsys):
    user_folder, home = tmp_path / "mine", tmp_path / "home"
    server.publish(["val"], dress=listed("NOTHING1", "NOTHING2", "NOTHING3", "GOOD4"))
    (user_folder / "deep").mkdir(parents=True)
    (user_folder / "deep/NOTHING1.png").write_bytes(picture("mine"))
    (user_folder / "NOTHING2.jpg").write_bytes(b"<html>")
    (user_folder / "NOTHING3.jpg").write_bytes(encoded(Image.new("RGB", (1, 1)), "PNG"))
    (user_folder / "unknown.jpg").write_bytes(picture("x"))
    code, out, _ = run(capsys, *line(server, home, "--from-dir", user_folder))
    assert code == 1
    assert set(stored(home)) == {"downloaded/dress/NOTHING1", "downloaded/dress/GOOD4"}
    assert (home / "images/downloaded/dress/NOTHING1.jpg").read_bytes() == picture("mine"), "a suffix by content"
    assert "NOTHING1.jpg" not in server.pictures()
    assert "taken from" in out
    assert "2 files (NOTHING2.jpg: web page, NOTHING3.jpg: tiny)" in out
    linked = tmp_path / "linked"
    run(capsys, *line(server, linked, "--from-dir", user_folder, "--link"))
    assert (linked / "images/downloaded/dress/NOTHING1.jpg").samefile(user_folder / "deep/NOTHING1.png")


def test_whole_pictures_of_any_suffix_are_adopted_and_the_rest_is_named(server, tmp_path, capsys):
    user_folder, home = tmp_path / "mine", tmp_path / "home"
    forms = {"D1.gif": "GIF", "D2.bmp": "BMP", "D3.tif": "TIFF", "D4": "JPEG", "D5.WEBP": "WEBP", "D6.old": "PNG"}
    server.publish(["val"], dress=dict.fromkeys([*(name.partition(".")[0] for name in forms), "D7", "D8", "D9", "D10"]))
    user_folder.mkdir()
    for name, form in forms.items():
        (user_folder / name).write_bytes(picture(name, form))
    (user_folder / "D1.txt").write_text("a caption")
    (user_folder / "D6.jpg").write_text("no picture, but D6.old is one")
    (user_folder / "D7.json").write_text("{}")
    (user_folder / "D8.jpg").symlink_to("nowhere")
    (user_folder / "other.jpg").write_bytes(picture("other"))
    (user_folder / "notes.txt").write_text("no matter")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/D9.jpg").write_bytes(picture("D9"))
    (user_folder / "linked").symlink_to(tmp_path / "elsewhere")
    (user_folder / "loop").symlink_to(user_folder)
    os.mkfifo(user_folder / "D10.jpg")
    words = line(server, home, "--from-dir", user_folder, "--json", tmp_path / "told.json")
    _, out, _ = run(capsys, *words)
    content = stored(home)
    assert content == {f"downloaded/dress/{name.partition('.')[0]}": picture(name, forms[name]) for name in forms}
    suffixes = {path.stem: path.suffix for path in (home / "images/downloaded/dress").iterdir()}
    assert suffixes == {"D1": ".png", "D2": ".png", "D3": ".png", "D4": ".jpg", "D5": ".webp", "D6": ".png"}
    assert "6 pictures\n" in out
    assert "3 files (D6.jpg: no picture, D8.jpg: damaged, D7.json: no picture)" in out
    assert f"of other names, left alone: 1 ('{user_folder / 'other.jpg'}')" in out
    assert f"links to folders, not followed: 2 ('{user_folder / 'linked'}', '{user_folder / 'loop'}')" in out
    facts = json.loads((tmp_path / "told.json").read_text())
    assert (facts["not_followed"], facts["left_alone"]) == (
        [str(user_folder / "linked"), str(user_folder / "loop")],
        [str(user_folder / "other.jpg")],
    )
    assert "0 pictures, 6 were there" in run(capsys, *words)[1]


def test_two_pictures_of_ones_own_for_one_id_are_told(server, tmp_path, capsys):
    user_folder, home = tmp_path / "mine", tmp_path / "home"
    server.publish(["val"], dress=listed("NOTHING1", "NOTHING2"))
    for name, content in (
        ("a/NOTHING1", "one"),
        ("b/NOTHING1", "other"),
        ("a/NOTHING2", "same"),
        ("b/NOTHING2", "same"),
    ):
        (user_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (user_folder / f"{name}.jpg").write_bytes(picture(content))
    _, out, _ = run(capsys, *line(server, home, "--from-dir", user_folder))
    assert "1 files (NOTHING1.jpg: another file of its id was taken)" in out
    assert (home / "images/downloaded/dress/NOTHING1.jpg").read_bytes() == picture("one")


def test_a_link_to_a_picture_is_followed_before_it_is_linked(server, tmp_path, capsys):
    user_folder, home = tmp_path / "mine", tmp_path / "home"
    server.publish(["val"], dress=listed("NOTHING1"))
    (user_folder / "deep").mkdir(parents=True)
    (user_folder / "deep/real.bin").write_bytes(picture("mine"))
    (user_folder / "NOTHING1.jpg").symlink_to("deep/real.bin")
    run(capsys, *line(server, home, "--from-dir", user_folder, "--link"))
    made = home / "images/downloaded/dress/NOTHING1.jpg"
    assert not made.is_symlink()
    assert made.samefile(user_folder / "deep/real.bin")


def test_pictures_that_lie_there_are_looked_at_once_and_kept(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1", "GOOD2", "GOOD3"))
    images = tmp_path / "images"
    (images / "downloaded/dress").mkdir(parents=True)
    (images / "GOOD1.jpg").write_bytes(picture("mine"))
    (images / "GOOD2.jpg").write_bytes(b"<html>")
    (images / "downloaded/dress/GOOD3.jpeg").write_bytes(picture("GOOD3")[:-200])
    code, out, _ = run(capsys, *line(server, tmp_path))
    assert code == 1
    assert server.pictures() == {"GOOD3.jpg": 1}
    assert (images / "GOOD1.jpg").read_bytes() == picture("mine")
    assert f"1 broken files are in the way: remove them and run this again ({images / 'GOOD2.jpg'})" in out
    assert [path.name for path in (images / "downloaded/dress").iterdir()] == ["GOOD3.jpg"], (
        "the broken one is replaced"
    )
    (images / "GOOD2.jpg").unlink()
    code, _, _ = run(capsys, *line(server, tmp_path))
    assert code == 0


WHITE, DOT = (encoded(Image.new("RGB", size, "white"), "PNG") for size in ((50, 50), (1, 1)))


def told_by_each(server, home, world, capsys, tmp_path):
    """What download, check and evaluate say of one folder: (exit code, present, evaluable, digest) of each."""
    out = {name: tmp_path / f"{name}.json" for name in ("download", "check", "evaluate")}
    dataset = ["fashioniq/val", "--categories", "dress", "--dataset-path", home]
    clip = ["--method", "image", "--clip", world / "models/clip-small"]
    limits = ["--max-mb", 1, "--max-pixels", 100_000]  # of what is taken, not of what lies there
    codes = [
        run(capsys, *line(server, home, *limits, "--json", out["download"]))[0],
        run(capsys, "check", *dataset, "--json", out["check"])[0],
        run(capsys, "evaluate", *dataset, *clip, "--json", out["evaluate"])[0],
    ]
    download, checked, scored = (json.loads(path.read_text()) for path in out.values())
    one, two, three = download["parts"]["fashioniq/val/dress"], checked["parts"]["dress"], scored["counts"]["dress"]
    return [
        (codes[0], one["present"], one["evaluable"], download["picture_sets"]["fashioniq/val"]),
        (codes[1], two["readable"], two["evaluable"], checked["picture_set"]),
        (codes[2], three["gallery_present"], three["queries_present"], scored["provenance"]["picture_set"]),
    ]


@pytest.mark.parametrize("spoilt", [False, True])
def test_download_check_and_evaluate_agree_on_what_lies_there(server, world, tmp_path, capsys, spoilt):
    """What decodes is embedded, so it is present: white, 1 x 1, over the limits for what is taken."""
    home, names = tmp_path / "home", [f"NOTHING{i}" for i in range(8)]
    server.publish(["val"], dress=listed(*names))
    (home / "images").mkdir(parents=True)
    large = picture("large", "PNG", (700, 600))
    assert len(large) > 2**20
    odd = {"NOTHING1": WHITE, "NOTHING2": DOT, "NOTHING3": large}
    odd |= {"NOTHING6": picture("cut")[:-200]} if spoilt else {}
    for name in names:
        (home / f"images/{name}.jpg").write_bytes(odd.get(name, picture(name)))
    first, *others = told_by_each(server, home, world, capsys, tmp_path)
    present, evaluable = (7, 5) if spoilt else (8, 7)
    assert first[:3] == (int(spoilt), present, evaluable)
    assert others == [first, first]
    assert told_by_each(server, home, world, capsys, tmp_path) == [first] * 3, "known by the ledger now"


def test_a_target_outside_of_the_gallery_is_evaluable_for_none_of_them(server, world, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1", "GOOD2", "GOOD3"))
    server.files["annotations/image_splits/split.dress.val.json"] = b'["GOOD1", "GOOD2"]'
    first, checked, scored = told_by_each(server, tmp_path / "home", world, capsys, tmp_path)
    assert first[:3] == (1, 2, 1)
    assert checked == first
    assert scored[1:] == first[1:], "which scores the query 0, and ends with 0"


def test_what_no_download_mends_is_not_advised_to_be_downloaded(server, tmp_path, capsys):
    """A target that the gallery's list lacks, with a picture or without."""
    server.publish(["val"], dress=listed("GOOD1", "GOOD2", "GOOD3"))
    server.files["annotations/image_splits/split.dress.val.json"] = b'["GOOD1", "GOOD2"]'
    told = tmp_path / "told.json"
    for more in ([], ["--no-pictures"]):
        code, out, err = run(capsys, *line(server, tmp_path, "--json", told, *more))
        assert (code, "lacks the targets of 1 queries" in err, "a rerun" in err) == (1, True, False)
        assert "(1: GOOD3)" in out
        assert json.loads(told.read_text())["unlisted_targets"] == {"fashioniq/val/dress": {"1": "GOOD3"}}
    code, out, _ = run(capsys, "check", "fashioniq/val", "--categories", "dress", "--dataset-path", tmp_path)
    assert (code, "(1: GOOD3)" in out, "cig download" in out) == (1, True, False)
    assert "GOOD3.jpg" not in server.pictures()


def test_what_lies_there_and_shows_nothing_is_listed_with_what_to_do(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1", "GREY2", "GOOD3"))
    images, report = tmp_path / "images", tmp_path / "told.json"
    images.mkdir()
    (images / "GOOD1.png").write_bytes(WHITE)
    (images / "GREY2.png").write_bytes(DOT)
    for _ in range(2):
        code, out, _ = run(capsys, *line(server, tmp_path, "--json", report))
        assert code == 0
        assert "2 pictures count as present, and show nothing (under 8 pixels a side, or one colour)" in out
        assert f"remove them and run this again ({images}/GOOD1.png: one colour, {images}/GREY2.png: tiny)" in out
        assert json.loads(report.read_text())["parts"]["fashioniq/val/dress"]["suspicious"] == {
            "GOOD1": f"{images}/GOOD1.png: one colour",
            "GREY2": f"{images}/GREY2.png: tiny",
        }
    code, out, _ = run(capsys, "check", "fashioniq/val", "--categories", "dress", "--dataset-path", tmp_path)
    command = f"cig download fashioniq --categories dress --splits val --dataset-path {tmp_path}"
    assert code == 0
    assert f"  pictures of less than 8 pixels a side: 1 (GREY2: {images}/GREY2.png: 1 x 1)\n" in out
    assert f"  pictures of one colour all over: 1 (GOOD1: {images}/GOOD1.png: 50 x 50)\n" in out
    assert f"    -> remove these files, then {command}\n" in out
    for name in ("GOOD1", "GREY2"):
        (images / f"{name}.png").unlink()
    code, out, _ = run(capsys, *line(server, tmp_path))
    assert (code, outcomes(tmp_path)["GREY2"], "show nothing" in out) == (1, "one colour", False)
    assert set(stored(tmp_path)) == {"downloaded/dress/GOOD1", "downloaded/dress/GOOD3"}, "none is taken"


def test_what_shows_nothing_in_one_category_is_not_taken_for_another(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1"), shirt=listed("GOOD1"))
    (tmp_path / "images/dress").mkdir(parents=True)
    (tmp_path / "images/dress/GOOD1.png").write_bytes(WHITE)
    code, _, _ = run(capsys, *line(server, tmp_path, "--categories", "dress", "shirt"))
    assert (code, server.pictures()) == (0, {"GOOD1.jpg": 1})
    assert stored(tmp_path) == {"dress/GOOD1": WHITE, "downloaded/shirt/GOOD1": picture("GOOD1")}


JUNK = (
    b"not JSON\n\n[1]\n" + b"[" * 9999 + b"\n",
    b'{"id": 3, "outcome": "gone"}\n{"id": "GOOD1", "outcome": "gone", "final": "x"}\n{"id": "GOOD1", "size": "x"}\n',
    b'{"id": "GOOD1", "outcome": "present", "files": ["../../../etc/passwd", "/etc/passwd"], "size": 9}\n',
    b'{"id": "../x", "outcome": "placeholder", "files": ["/etc/passwd"]}\n{"id": "GOOD1", "outcome": "pre',
)


@pytest.mark.parametrize("junk", JUNK)
def test_a_ledger_that_is_none_is_left_out_and_said(server, tmp_path, capsys, junk):
    server.publish(["val"], dress=listed("GOOD1"))
    (tmp_path / "images/downloaded").mkdir(parents=True)
    (tmp_path / "images/downloaded/download.jsonl").write_bytes(junk)
    code, out, _ = run(capsys, *line(server, tmp_path))
    assert (code, stored(tmp_path)) == (0, {"downloaded/dress/GOOD1": picture("GOOD1")})
    assert ("were cut by a kill, or are not ours" in out) == (junk != JUNK[2])


# Annotations


def test_annotations_alone(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1", "GOOD2"))
    code, out, _ = run(capsys, *line(server, tmp_path, "--no-pictures"))
    assert (code, out) == (0, "fashioniq/val/dress: 1 queries, 2 pictures\n")
    assert not server.pictures()


def test_annotations_that_are_none_are_not_kept(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1"))
    server.files["annotations/captions/cap.dress.val.json"] = b"<html>sign in"
    del server.files["annotations/image_splits/split.dress.val.json"]
    code, _, err = run(capsys, *line(server, tmp_path))
    assert (code, "2 annotation files cannot be had" in err, "--annotations-from" in err) == (1, True, True)
    assert not list(tmp_path.rglob("*.json"))


def test_without_a_list_a_folder_will_do(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("A1"))
    del server.files["urls/asin2url.dress.txt"]
    user_folder, home = tmp_path / "mine", tmp_path / "home"
    user_folder.mkdir()
    (user_folder / "A1.jpg").write_bytes(picture("A1"))
    code, out, _ = run(capsys, *line(server, home, "--from-dir", user_folder))
    assert (code, "no list of addresses" in out) == (0, True)


# Ends


@pytest.mark.slow
def test_a_kill_at_any_write_leaves_what_a_rerun_completes(server, tmp_path, capsys):
    names = ("GOOD1", "NOTHING2", "SAME1", "SAME2", "PNG5", "PIXEL6")
    server.publish(["val"], dress=listed(*names))
    more = ["--placeholder-at", "2", "--at-once", "1"]
    run(capsys, *line(server, tmp_path / "whole", *more))
    truth, expected = stored(tmp_path / "whole"), outcomes(tmp_path / "whole")
    homes = {point: tmp_path / str(point) for point in range(5, 40, 5)}
    kill({point: line(server, home, *more) for point, home in homes.items()})
    for point, home in homes.items():
        before = {Path(name).name for name in stored(home)}
        server.requests.clear()
        run(capsys, *line(server, home, *more))
        assert (stored(home), outcomes(home)) == (truth, expected), f"killed at {point}"
        assert not before & {path.partition(".")[0] for path in server.pictures()}, "what is there is not asked for"
        assert not list(home.rglob("*.part"))


def kill(lines):
    """Calls that end at fail-points (see kills.py), in forks of a process that has no threads."""
    code = """
import json, sys, kills, httpx
for point, line in json.loads(sys.argv[1]).items():
    ended = kills.finish(kills.fork(line, lambda: kills.die_at(int(point), [0])))
    assert ended == -9, f"at {point}: {ended}"
"""
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    subprocess.run([sys.executable, "-c", code, json.dumps(lines)], env=where, check=True)


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_a_rerun_goes_on(server, tmp_path, capsys):
    names = [*(f"GOOD{i}" for i in range(10)), *(f"DRIP{i}" for i in range(8))]
    server.publish(["val"], dress=listed(*names))
    words = line(server, tmp_path, "--retries", "0", "--at-once", "4")
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    call = subprocess.Popen([sys.executable, "-m", "cig", *words], env=where, stderr=subprocess.PIPE, text=True)
    ledger = tmp_path / "images/downloaded/download.jsonl"
    while not (ledger.exists() and len(ledger.read_text().splitlines()) == 10):
        assert call.poll() is None
        time.sleep(0.02)
    call.send_signal(signal.SIGINT)
    _, err = call.communicate(timeout=10)
    assert (call.returncode, "Traceback" in err, "a rerun goes on from there" in err) == (130, False, True)
    server.requests.clear()
    run(capsys, *words)
    assert set(server.pictures()) == {f"DRIP{i}.jpg" for i in range(8)}, "also those that were under way"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "which dataset?"),
        ("fashioniq --dataset cirr", "which dataset?"),
        ("fashionq", 'Did you mean "fashioniq"'),
        ("fashioniq --categories hat", 'no FashionIQ category "hat"'),
        ("fashioniq/vla", 'no FashionIQ split "vla"'),
        ("fashioniq/val --splits test", "give one of them"),
        ("fashioniq --delete-zip", "takes no --delete-zip; it takes --annotations-from, --categories"),
        ("fashioniq --mirror https://a.org/{id}.jpg", "no {id}; there are {asin}"),
        ("fashioniq --mirror https://a.org/x.jpg", "behind its host"),
        ("fashioniq --mirror https://{asin}/x.jpg", "behind its host"),
        ("fashioniq --mirror ftp://a.org/{asin}", "behind its host"),
        ("fashioniq --from-dir nowhere", "is not a folder"),
        ("fashioniq --annotations-from http://[a", "is no address"),
        ("fashioniq --link", "--from-dir"),
        ("fashioniq --placeholder-at 1", "at least 2"),
        ("fashioniq --per-host 0", "at least 1"),
        ("fashioniq --retries -1", "0 or more"),
        ("fashioniq --patience nan", "finite"),
    ],
)
def test_wrong_calls_exit_2_before_anything_is_asked(tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "download", *words.split())
    assert code == 2
    assert expected in err
    assert not list(tmp_path.iterdir())


def test_the_dataset_may_be_named_by_its_flag(server, tmp_path, capsys):
    server.publish(["val"], dress=listed("GOOD1"))
    words = line(server, tmp_path, "--dataset", "fashioniq")
    words.remove("fashioniq")
    assert run(capsys, *words)[0] == 0
