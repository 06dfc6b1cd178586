"""A large file by ranges, from a server that resets, changes, lies about sizes, or knows no ranges."""

import hashlib
import json
import random

import pytest

import serving
from cig import runtime
from cig.errors import InputError, OutputError, UsageError
from cig.io import resumable
from cig.io.http import Rules, Web, WebError
from cig.io.resumable import Expected, fetch_file

CONTENT = random.Random(0).randbytes(3 * 2**20)
NO_WAITS = (0.0, 0.0)


@pytest.fixture
def server():
    with serving.serve(serving.Files({"/big": CONTENT})) as server:
        yield server


def fetch(server, path, expected=None, waits=NO_WAITS):
    rules = Rules(schemes=("http",), trusted=frozenset({server.url.removeprefix("http://")}))
    with Web(rules) as web:
        return fetch_file(web, f"{server.url}/big", path, expected=expected, waits=waits)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def begun(path, have, server, **others):
    """What a killed run leaves."""
    path.with_name("big.part").write_bytes(CONTENT[:have])
    state = {"url": f"{server.url}/big", "validator": '"one"', "size": len(CONTENT), **others}
    path.with_name("big.part.json").write_text(json.dumps(state))


def test_the_whole_file_and_nothing_beside_it(server, tmp_path):
    expected = Expected(
        len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), md5=hashlib.md5(CONTENT).hexdigest(), starts=CONTENT[:4]
    )
    path = tmp_path / "deep" / "big"
    assert fetch(server, path, expected).read_bytes() == CONTENT
    assert left(path.parent) == ["big"]
    fetch(server, path)
    assert server.bytes_asked() == [""]  # what is there is not asked for


def test_a_rerun_asks_for_the_rest(server, tmp_path):
    begun(tmp_path / "big", 1000, server)
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT
    assert (server.bytes_asked(), left(tmp_path)) == (["bytes=1000-"], ["big"])


def test_what_was_whole_when_it_was_killed_is_not_asked_for(server, tmp_path):
    begun(tmp_path / "big", len(CONTENT), server)
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("mood", ["cut 1500000", "short 1500000"])
def test_what_breaks_off_goes_on_from_there(server, tmp_path, mood):
    server.moods = [mood, "503", ""]
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT
    first, *others = server.bytes_asked()
    assert first == ""
    assert len(others) == 2
    assert all(0 < int(start.removeprefix("bytes=").rstrip("-")) <= 1500000 for start in others)


def test_tries_are_counted_anew_after_a_headway(server, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "HEADWAY", 1000)
    server.moods = ["short 200000"] * 12
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT
    assert len(server.asked) == 13


def test_without_headway_it_ends_and_keeps_what_came(server, tmp_path):
    server.moods = ["short 200000", *["500"] * 9]
    with pytest.raises(WebError, match="answers 500"):
        fetch(server, tmp_path / "big")
    assert len(server.asked) == 3
    assert left(tmp_path) == ["big.part", "big.part.json"]
    assert (tmp_path / "big.part").read_bytes() == CONTENT[:200000]
    server.moods = []
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    begun(tmp_path / "big", 1000, server)
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT


def test_a_login_page_in_its_place_costs_nothing_of_what_came(server, tmp_path):
    begun(tmp_path / "big", 1000, server)
    server.ranges, server.content["/big"] = False, b"<html>sign in</html>"
    for expected in (Expected(len(CONTENT)), Expected(starts=CONTENT[:4])):
        with pytest.raises(InputError):
            fetch(server, tmp_path / "big", expected)
    server.ranges, server.content["/big"] = True, CONTENT
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT
    assert server.bytes_asked()[-1] == "bytes=1000-"


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changed_in_between_starts_over(server, tmp_path, honest):
    """Whether the server heeds If-Range, or sends the rest of another file."""
    begun(tmp_path / "big", 1000, server)
    server.tag, server.honest = '"two"', honest
    server.content["/big"] = other = random.Random(1).randbytes(len(CONTENT) + 7)
    assert fetch(server, tmp_path / "big").read_bytes() == other
    assert server.bytes_asked() == (["bytes=1000-"] if honest else ["bytes=1000-", ""])


def test_a_file_that_became_shorter_starts_over(server, tmp_path):
    begun(tmp_path / "big", 1000, server)
    server.honest, server.content["/big"] = False, b"short"
    assert fetch(server, tmp_path / "big").read_bytes() == b"short"


@pytest.mark.parametrize(
    "state",
    [{"url": "http://elsewhere/big"}, {"validator": ""}, {"size": 10}, {"size": "many"}],
    ids=["another address", "no word for the content", "more than all", "no number"],
)
def test_a_beginning_that_may_be_of_another_file_starts_over(server, tmp_path, state):
    begun(tmp_path / "big", 1000, server, **state)
    (tmp_path / "big.part").write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT
    assert server.bytes_asked() == [""]


def test_another_mirror_goes_on_where_a_digest_will_tell(server, tmp_path):
    begun(tmp_path / "big", 1000, server, url="http://elsewhere/big")
    assert fetch(server, tmp_path / "big", Expected(md5=hashlib.md5(CONTENT).hexdigest())).read_bytes() == CONTENT
    assert server.bytes_asked() == ["bytes=1000-"]


def test_a_torn_state_starts_over(server, tmp_path):
    begun(tmp_path / "big", 1000, server)
    (tmp_path / "big.part.json").write_text('{"url": "htt')
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT


def test_no_size_is_stated(server, tmp_path):
    server.length = False
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT


@pytest.mark.parametrize("stated", [True, False])
def test_no_more_than_may_be_is_taken(server, tmp_path, stated):
    server.length = stated
    with pytest.raises(WebError, match="over 2 MB; refused"):
        fetch(server, tmp_path / "big", Expected(most=2**21))
    assert {path.stat().st_size for path in tmp_path.glob("big*") if path.suffix == ".part"} == {0}


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (Expected(size=5), "the server's file has 3,145,728 bytes, that of the release 5"),
        (Expected(starts=b"PK"), "should begin with b'PK'"),
        (Expected(sha256="0" * 64), "its sha256 is .*, not 0000"),
        (Expected(md5="0" * 32), "its md5 is .*, not 0000"),
    ],
)
def test_another_file_than_was_known_does_not_get_its_name(server, tmp_path, expected, words):
    with pytest.raises(InputError, match=words):
        fetch(server, tmp_path / "big", expected)
    assert not (tmp_path / "big").exists()
    assert len(server.asked) == 1
    if expected.digests:
        assert left(tmp_path) == ["big.refused"]


def test_a_drip_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "WINDOW", 0.2)
    server.moods = ["drip"]
    with pytest.raises(WebError, match="bytes in 0 seconds") as error:
        fetch(server, tmp_path / "big", waits=())
    assert error.value.kind == "slow"
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT


def test_a_stop_keeps_what_came(server, tmp_path, monkeypatch):
    """Ctrl-C ends it at the next beat, though the server is still at it."""
    begun(tmp_path / "big", 1000, server)
    server.moods = ["drip"]
    monkeypatch.setattr(runtime, "_stop_signals", [2])
    with pytest.raises(runtime.Interrupted, match="big: stopped after 0 MB"):
        fetch(server, tmp_path / "big")
    came = (tmp_path / "big.part").read_bytes()
    assert len(came) >= 1000
    assert CONTENT.startswith(came)
    monkeypatch.setattr(runtime, "_stop_signals", [])
    assert fetch(server, tmp_path / "big").read_bytes() == CONTENT
    assert server.bytes_asked()[1] == f"bytes={len(came)}-"


def test_no_space_is_told_before_anything_comes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "disk_of", lambda folder: 1000)
    with pytest.raises(OutputError, match=r"the rest of big takes 0\.0 GB"):
        fetch(server, tmp_path / "big")
    assert (tmp_path / "big.part").stat().st_size == 0


def test_what_the_disk_refuses_is_no_fault_of_the_server(server, tmp_path, monkeypatch):
    begun(tmp_path / "big", 1000, server)
    opened = resumable.Path.open

    class Full:
        def __init__(self, file):
            self.file, self.name = file, file.name

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            raise OSError(28, "No space left on device")

    def open_full(path, mode, **others):
        return Full(opened(path, mode)) if mode == "ab" else opened(path, mode, **others)

    monkeypatch.setattr(resumable.Path, "open", open_full)
    with pytest.raises(OutputError, match="No space left"):
        fetch(server, tmp_path / "big")
    assert len(server.asked) == 1


def test_two_processes_do_not_write_one_part(server, tmp_path, held_elsewhere):
    holder = held_elsewhere("file", tmp_path / "big")
    with pytest.raises(UsageError, match=f"process {holder.pid}"):
        fetch(server, tmp_path / "big")
    assert server.asked == []
