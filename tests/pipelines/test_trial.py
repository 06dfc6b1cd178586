"""A blind trial: what is shown and what is not, votes that outlive kills, a page that only its owner reaches, and words
that say no more than the votes do.
"""

import csv
import http.client
import json
import logging
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

import tiny
from browsing import BROWSER, PALE, TOO_WIDE, browser
from calls import run
from cig.errors import InputError, MismatchError, NotFoundError, UsageError
from cig.evaluation.significance import chance_of, sign_test
from cig.pipelines.trial.result import Verdict, cost_text
from cig.pipelines.trial.trial import LONGEST, Case, Trial, TrialRequest, Votes, make
from cig.retrieval.requests import Searching
from cig.runtime import Compute
from cig.service.server import GracefulServer, address_of, listen
from cig.service.settings import Serving
from cig.service.trial import MOST, VotingPage, hold_vote, make_voting_app
from cig.types import Query, Ranking

pytestmark = pytest.mark.slow  # together they take long

HOME = Path(__file__).parents[2]
NAMES = ("a.png", "b.png", "c.png", "d.png")
COST = {"queries": 4, "seconds": 10.0, "gigabytes": 1.5, "device": "a GPU"}


# Trials by hand: query i asks for something else than "a.png"


def case(i, base="left", left=NAMES[1:3], right=NAMES[2:4]):
    return Case(str(i), "a.png", (f"caption {i}",), left, right, base)


def trial(*cases, **more):
    about = {"settings": {}, "same": (), "without": (), "missing": {}, "searched": {"recipe": "image"}, "cost": None}
    return Trial("holiday", 0, cases=cases, **{**about, **more})


def voted(folder, own, choices):
    """choices: one a case, in their order."""
    votes = Votes(folder, own)
    for each, choice in zip(own.cases, choices, strict=False):
        votes.add(each.id, choice, 1.5)
    return Verdict.of(own, votes)


class Found:
    """What a search gives, with and without pseudo-targets: query -> (base's list, that of pseudo-targets)."""

    def __init__(self, lists, lacking=(), missing=()):
        queries = tuple(Query(name, "a.png", (f"caption {name}",)) for name in lists)
        base, pseudo = zip(*lists.values(), strict=True)
        notes = {"branches": {"pseudo-target": list(lacking)}}
        scores = tuple((0.0,) * len(own) for own in base)
        self.parts = [type("Part", (), {"queries": queries})]
        self.alone, self.rankings = (
            [Ranking(tuple(lists), own, scores, (), missing=dict.fromkeys(missing, "no picture"), notes=notes)]
            for own in (base, pseudo)
        )
        self.method = type("Method", (), {"name": "image"})
        self.branches, self.provenance = [{"name": "reference", "weight": 0.7, "source": "by hand"}], {}


@pytest.fixture
def trying(tmp_path):
    (tmp_path / "q.csv").write_text("reference,caption\na.png,is red\n")
    return TrialRequest(tmp_path, tmp_path / "q.csv", top=2)


# What is shown


def test_lists_that_differ_are_shown_and_the_rest_is_named(trying):
    found = Found(
        {
            "differs": ("abc", "acb"),
            "same": ("abc", "abc"),
            "same at the top": ("abc", "abd"),
            "lacks": ("abc", "abc"),
            "lost": ((), ()),
        },
        lacking=["lacks"],
        missing=["lost"],
    )
    made = make(trying, found, seed=1, cost=None)
    assert [own.id for own in made.cases] == ["differs"]
    assert {made.cases[0].left, made.cases[0].right} == {"ab", "ac"}
    assert (made.same, made.without, made.missing) == (("same", "same at the top"), ("lacks",), {"lost": "no picture"})


def test_sides_and_order_are_those_of_the_seed(trying):
    found = Found({str(i): (("a", "b"), ("b", "a")) for i in range(200)})
    made, again, other = (make(trying, found, seed=seed, cost=None) for seed in (1, 1, 2))
    assert made == again
    assert [own.id for own in made.cases] != [own.id for own in other.cases]
    for own in made.cases:
        assert (own.left if own.base == "left" else own.right) == ("a", "b")
    assert 70 < sum(own.base == "left" for own in made.cases) < 130


def test_a_trial_comes_back_from_its_file(tmp_path):
    made = trial(case(1), case(2, "right"), same=("3",), missing={"4": "torn"}, cost=COST)
    made.write(tmp_path)
    again = Trial.read(tmp_path)
    assert (again.cases, again.cost, dict(again.missing)) == (made.cases, COST, {"4": "torn"})
    with pytest.raises(MismatchError, match=r"top: None there, 3 now.*--out"):
        again.need_same({"top": 3}, tmp_path)
    with pytest.raises(NotFoundError, match="cig trial DIR --queries FILE"):
        Trial.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("name", 1), ("seed", "1"), ("asked", []), ("cases", {}), ("cases", [1]), ("cases", [{}]), ("same", "12")],
        *[
            ("missing", []),
            ("searched", None),
            ("cost", []),
            ("cost", {"queries": 1}),
            ("cost", {**COST, "seconds": ""}),
        ],
        *[("cases", [{**vars(case(1)), "base": "both"}]), ("cases", [{**vars(case(1)), "left": 1}]), ("more", 1)],
    ],
)
def test_a_file_that_is_no_trial_is_refused_by_name(tmp_path, key, value):
    trial(case(1)).write(tmp_path)
    content = json.loads((tmp_path / "trial.json").read_text())
    (tmp_path / "trial.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(InputError, match=r"trial\.json is no trial of this version"):
        Trial.read(tmp_path)


# Votes


def test_the_last_vote_of_a_case_counts_and_a_rerun_knows_it(tmp_path):
    own = trial(case(1), case(2), case(3))
    voted(tmp_path, own, ["left", "tie"])
    Votes(tmp_path, own).add("1", "right", 2.0)
    again = Votes(tmp_path, own)
    assert (list(again.choices.items()), again.strange) == ([("2", "tie"), ("1", "right")], 0)
    assert len((tmp_path / "votes.jsonl").read_text().splitlines()) == 3


@given(cut=st.integers(1, 200))
def test_a_torn_line_is_left_out_and_the_next_vote_is_whole(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("torn")
    own = trial(case(1), case(2))
    voted(folder, own, ["left", "right"])
    path = folder / "votes.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    torn = second[: min(cut, len(second) - 2)]
    path.write_bytes(first + torn)
    votes = Votes(folder, own)
    assert (votes.choices, votes.strange) == ({"1": "left"}, 1)
    votes.add("2", "bad", 1)
    assert Votes(folder, own).choices == {"1": "left", "2": "bad"}


VOTE = {"case": "1", "choice": "left", "seconds": 1.0, "time": "now"}


@pytest.mark.parametrize(
    "line",
    [
        *["", "null", "[]", "{", "[" * 100_000, '"left"', "\x00", "NaN"],
        *[
            json.dumps({**VOTE, **more})
            for more in ({"case": "9"}, {"case": 1}, {"choice": "up"}, {"choice": ["left"]})
        ],
        *[json.dumps({**VOTE, "seconds": own}) for own in (None, "1", -1, math.nan, math.inf, True)],
    ],
)
def test_a_line_that_is_no_vote_is_counted(tmp_path, line):
    (tmp_path / "votes.jsonl").write_text(f"{line}\n{json.dumps(VOTE)}\n")
    votes = Votes(tmp_path, trial(case(1)))
    assert (votes.choices, votes.strange) == ({"1": "left"}, 1)


def test_a_page_left_open_is_no_outlier_of_days(tmp_path):
    Votes(tmp_path, trial(case(1))).add("1", "left", 1e9)
    assert json.loads((tmp_path / "votes.jsonl").read_text())["seconds"] == LONGEST


# What they say


def verdict(pseudo=0, base=0, ties=0, bad=0, open_=0, **more):
    own = trial(*(case(i) for i in range(pseudo + base + ties + bad + open_)), **more)
    return Verdict(own, base, pseudo, ties, bad, open_)


def test_votes_are_counted_by_what_was_on_their_side(tmp_path):
    own = trial(case(1, "left"), case(2, "right"), case(3, "left"), case(4), case(5), case(6))
    found = voted(tmp_path, own, ["left", "left", "right", "tie", "bad"])
    assert (found.base, found.pseudo, found.ties, found.both_bad, found.not_voted) == (1, 2, 1, 1, 1)


@pytest.mark.parametrize(
    ("pseudo", "base", "words"),
    [
        (12, 5, "12 of 17 decided queries preferred pseudo-targets, p = 0.14: no evidence either way"),
        (5, 0, "5 of 5 decided queries preferred pseudo-targets, p = 0.062: no evidence either way"),
        (8, 0, "8 of 8 decided queries preferred pseudo-targets, p = 0.0078: evidence that pseudo-targets did better"),
        (0, 6, "6 of 6 decided queries preferred base, p = 0.031: evidence that base did better"),
        (1, 0, "1 of 1 decided query preferred pseudo-targets, p = 1: no evidence either way"),
        (0, 0, "no query was decided: no evidence either way"),
    ],
)
def test_words_claim_no_more_than_p(pseudo, base, words):
    assert verdict(pseudo, base).words[0] == words
    assert verdict(5, 0).p == 2 / 2**5 == 0.0625


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_interval_and_p_never_disagree(pseudo, base):
    found = verdict(pseudo, base)
    low, high = found.interval
    assert (found.p < 0.05) == (not low <= 0.5 <= high)
    assert ("evidence that" in found.words[0]) == (found.p < 0.05)


def test_everything_that_was_not_shown_is_named():
    found = verdict(1, open_=2, same=("7", "8"), without=("9",), missing={"10": "torn"}, cost=COST)
    text = "\n".join(found.words)
    for words in (
        "votes: pseudo-targets 1, base 0, ties 0, both bad 0, not voted 2",
        "not shown: 2 that have the same list on both sides (ties) (7, 8)",
        "not shown: 1 that have no pseudo-target (9)",
        "not shown: 1 that could not run (10)",
        "p holds only if nobody stopped",
        "cost: imagining took 2.5 s a query, with at most 1.5 GB in use (a GPU); base imagines nothing",
    ):
        assert words in text
    assert cost_text(None) == "cost: pseudo-targets were made elsewhere, not measured; base imagines nothing"
    assert json.loads(json.dumps(found.to_json()))["not_shown"]["could_not_run"] == {"10": "torn"}


def power(count, share):
    """The chance that the sign test of `count` decided votes comes out below 0.05."""
    least = next((wins for wins in range(count // 2 + 1, count + 1) if sign_test(wins, count - wins) < 0.05), None)
    return 0.0 if least is None else chance_of(least, count, share) + chance_of(least, count, 1 - share)


def test_the_numbers_of_votes_in_the_guide_are_right():
    """A row of the table: how often one prefers pseudo-targets, votes that show it in 80 of 100 trials, and in 95."""
    rows = re.findall(r"^\| (\d+) of 100 \| (\d+) \| (\d+) \|$", (HOME / "docs/trial.md").read_text(), re.M)
    assert [int(percent) for percent, *_ in rows] == [60, 70, 80, 90]
    for percent, *needed in rows:
        for count, chance in zip(map(int, needed), (0.8, 0.95), strict=True):
            assert power(count - 1, int(percent) / 100) < chance
            assert all(power(more, int(percent) / 100) >= chance for more in range(count, count + 40))


# The page, by hand


class Opened:
    """A page that is served: its voting, its port and its address."""

    def __init__(self, voting, taken):
        self.voting, self.host, self.port = voting, *taken.getsockname()
        self.address = address_of(taken, voting.secret)


@contextmanager
def opened(folder, own, images=None):
    voting, taken = VotingPage(own, Votes(folder, own), images or {}), listen(Serving(port=0))
    server = GracefulServer(uvicorn.Config(make_voting_app(voting), log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    try:
        yield Opened(voting, taken)
    finally:
        server.should_exit = True
        thread.join()
        taken.close()


def ask(server, path, body=None, **headers):
    """(status, text): as our own page asks, except for the headers given; None leaves one out."""
    port = server.port
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    line._encode_request = lambda request: request.encode("latin-1")  # as a stranger's client would
    own = {"Host": f"127.0.0.1:{port}"} | ({"Origin": f"http://127.0.0.1:{port}"} if body is not None else {})
    own |= {} if body is None else {"Content-Length": str(len(body))}
    line.putrequest("GET" if body is None else "POST", path, skip_host=True)
    for name, value in {**own, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
        if value is not None:
            line.putheader(name, value)
    line.endheaders(body)
    answer = line.getresponse()
    text = answer.read().decode()
    line.close()
    return answer.status, text


def own_page(server, what="", body=None, **headers):
    return ask(server, f"/{server.voting.secret}/{what}", body, **headers)


def vote(case="1", choice="left", seconds=1.0):
    return json.dumps({"case": case, "choice": choice, "seconds": seconds}).encode()


def test_a_trial_is_voted_and_told_at_its_end(tmp_path):
    own = trial(case(1, "left"), case(2, "right"))
    with opened(tmp_path, own) as server:
        assert json.loads(own_page(server, "state")[1]) == {"cases": ["1", "2"], "voted": [], "shown": False}
        assert own_page(server, "vote", vote("1", "left"))[0] == 200
        assert own_page(server, "result") == (409, "1 cases are not voted on")
        assert own_page(server, "vote", vote("2", "left"))[0] == 200
        assert own_page(server, "vote", vote("1", "right"))[0] == 200
        assert json.loads(own_page(server, "state")[1])["voted"] == [["2", "left"], ["1", "right"]]
        words = json.loads(own_page(server, "result")[1])["words"]
        assert words[0].startswith("2 of 2 decided queries preferred pseudo-targets, p = 0.5: no evidence")
        assert own_page(server, "vote", vote("1", "left")) == (409, "the result was shown; votes are closed")
    with opened(tmp_path, own) as server:
        state = json.loads(own_page(server, "state")[1])
        assert (state["voted"], state["shown"]) == ([["2", "left"], ["1", "right"]], True)
        assert own_page(server, "vote", vote("1", "left")) == (409, "the result was shown; votes are closed")
        assert json.loads(own_page(server, "result")[1])["words"] == words
        assert server.voting.votes.strange == 0


def test_no_vote_counts_after_another_process_has_shown_the_result(tmp_path):
    own = trial(case(1))
    own.write(tmp_path)
    with opened(tmp_path, own) as server:
        other = Votes(tmp_path, own)
        other.add("1", "tie", 1.0)
        other.close()
        assert own_page(server, "vote", vote()) == (409, "the result was shown; votes are closed")
        assert server.voting.votes.choices == {"1": "tie"}
        assert (tmp_path / "votes.jsonl").read_bytes().count(b"case") == 1


def test_no_vote_counts_once_the_trial_was_replaced(tmp_path):
    own = trial(case(1))
    own.write(tmp_path)
    with opened(tmp_path, own) as server:
        trial(case(1, "right")).write(tmp_path)
        status, text = own_page(server, "vote", vote())
        assert (status, str(tmp_path / "trial.json") in text) == (409, True)
        assert not (tmp_path / "votes.jsonl").exists()


def test_what_goes_out_does_not_tell_the_sides(tmp_path):
    """Equal lists, and the other side base: every byte is the same, before and after a vote."""
    answers = []
    for base in ("left", "right"):
        (tmp_path / base).mkdir()
        with opened(tmp_path / base, trial(case(1, base), case(2, base))) as server:
            seen = [own_page(server, what) for what in ("", "state", "case/1", "case/2")]
            seen += [own_page(server, "vote", vote("1", "left")), own_page(server, "state"), own_page(server, "result")]
            answers.append([(status, text.replace(server.voting.secret, "")) for status, text in seen])
    assert answers[0] == answers[1]
    assert "a.png" in answers[0][2][1]
    page = answers[0][0][1].split("<script>")[0].split("</style>")[1]
    assert not re.search("base|pseudo", page)


def test_pictures_are_named_by_nothing_but_the_folder(tmp_path):
    """A name of the trial that the folder does not have is no path."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    own = trial(case(1, left=("../secret.png", str(tmp_path / "secret.png")), right=("b.png", "c.png")))
    picture = tmp_path / "pictures/b.png"
    tiny.draw(random.Random(0), picture)
    with opened(tmp_path, own, {"b.png": picture}) as server:
        shown = json.loads(own_page(server, "case/1")[1])
    assert [each["url"] for each in shown["left"]] == [None, None]
    assert shown["right"][0]["url"].startswith("data:image/webp;base64,")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "127.0.0.1:x", "", None])
def test_a_strangers_name_is_refused(tmp_path, host):
    with opened(tmp_path, trial(case(1))) as server:
        refused = 400 if host is None else 421  # the server itself refuses HTTP without a Host
        assert own_page(server, "state", Host=host)[0] == refused
        if host is not None:  # the server may close such a line before the body has come
            assert own_page(server, "vote", vote(), Host=host, Origin=f"http://{host}")[0] == refused
    assert not (tmp_path / "votes.jsonl").exists()


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:8000", "localhost"])
def test_a_forwarded_port_is_let_in(tmp_path, host):
    with opened(tmp_path, trial(case(1))) as server:
        assert own_page(server, "state", Host=host)[0] == 200
        assert own_page(server, "vote", vote(), Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", None])
def test_a_strangers_page_cannot_vote(tmp_path, origin):
    with opened(tmp_path, trial(case(1))) as server:
        assert own_page(server, "vote", vote(), Origin=origin) == (403, "votes come from the page itself")
    assert not (tmp_path / "votes.jsonl").exists()


@pytest.mark.parametrize(
    "path", ["/", "/state", "//state", "/x/state", "/%s", "/%C3%A9/state", "*", "http://127.0.0.1/%s/"]
)
def test_without_the_secret_there_is_nothing(tmp_path, path):
    with opened(tmp_path, trial(case(1))) as server:
        wrong = path.replace("%s", server.voting.secret[:-1]).encode().decode("latin-1")
        server.voting.page = "the page"
        status, text = ask(server, wrong)
        assert (status, "secret" in text) == (404, True)


@pytest.mark.parametrize(
    "what",
    [
        "case/9",
        "case/",
        "case",
        "case/../trial.json",
        "../trial.json",
        "%2e%2e/trial.json",
        "trial.json",
        "state?x",
        "x",
    ],
)
def test_there_is_nothing_but_the_page(tmp_path, what):
    own = trial(case(1))
    own.write(tmp_path)
    with opened(tmp_path, own) as server:
        assert own_page(server, what) == (404, "there is no such page")
        assert own_page(server, what, b"{}") == (404, "there is nothing to send to here")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "no vote"),
        (b"{" * 500, "no vote"),
        (b"[" * 1000, "no vote"),
        (b"9" * 1000, "no vote"),
        (b"null", "a case and a choice"),
        (vote(choice="up"), "left, right, tie, bad"),
        (vote(case="9"), "no such case"),
        (vote(case=["1"]), "a case and a choice"),
        (vote(seconds=math.nan), "seconds"),
        (vote(seconds="1"), "seconds"),
    ],
)
def test_what_is_no_vote_is_refused(tmp_path, body, words):
    with opened(tmp_path, trial(case(1))) as server:
        status, text = own_page(server, "vote", body)
        assert (status, words in text) == (400, True), text
    assert not (tmp_path / "votes.jsonl").exists()


@pytest.mark.parametrize(
    ("length", "status"),
    [(str(MOST + 1), 413), ("1" * 19, 413), ("1" * 5000, 400), (None, 411), ("-1", 400), ("x", 400), ("²", 400)],
)
def test_a_body_is_bounded_before_it_is_read(tmp_path, length, status):
    with opened(tmp_path, trial(case(1))) as server:
        length = length and length.encode()
        assert own_page(server, "vote", b"", Content_Length=length)[0] == status


@given(st.text(max_size=60), st.binary(max_size=60))
def test_no_request_is_answered_with_an_error_of_ours(hostile, path, body):
    server, complaints = hostile
    assert own_page(server, f"case/{quote(path)}")[0] in (200, 404)
    assert own_page(server, f"case/{re.sub(r'[^!-~]', '', path)}")[0] in (200, 404)
    assert own_page(server, "vote", body)[0] == 400
    assert complaints == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    complaints = []
    with opened(tmp_path_factory.mktemp("hostile"), trial(case(1))) as server:
        handler = logging.Handler(logging.ERROR)
        handler.emit = complaints.append
        logging.getLogger("uvicorn.error").addHandler(handler)
        yield server, complaints
        logging.getLogger("uvicorn.error").removeHandler(handler)


def test_a_full_disk_is_said_and_the_vote_does_not_count(tmp_path, monkeypatch):
    with opened(tmp_path, trial(case(1))) as server:
        (tmp_path / "votes.jsonl").mkdir()
        status, text = own_page(server, "vote", vote())
        assert (status, "votes.jsonl cannot be written" in text) == (507, True)
        assert server.voting.votes.choices == {}


def test_the_page_is_served_to_this_machine_alone(tmp_path):
    with opened(tmp_path, trial(case(1))) as server:
        assert server.host == "127.0.0.1"
        assert len(server.voting.secret) >= 32


# The verb


@pytest.fixture(scope="module")
def album(world, tmp_path_factory):
    """Sixteen pictures in two folders, and six queries: one has no pseudo-target, one no reference."""
    home, draw = tmp_path_factory.mktemp("album"), random.Random(3)
    names = [f"{'home' if i % 2 else 'away'}/{i:02d}.png" for i in range(16)]
    for name in names:
        tiny.draw(draw, home / "pictures" / name)
    for i in (0, 1, 2, 3, 5):
        tiny.draw(draw, home / "made" / f"{i:05d}.png")
    with (home / "q.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(name, tiny.CAPTIONS[i]) for i, name in enumerate([*names[:5], "gone.png"])]
        csv.writer(file).writerows([("reference", "caption"), *rows])
    return home


def words_of(world, album, out):
    """A trial by picture features, with pseudo-targets that are there."""
    line = ["trial", album / "pictures", "--queries", album / "q.csv", "--generated-image-dir", album / "made"]
    line += ["--method", "image", "--search-clip", world / "models/clip-small", "--fusion-weight", "0.1"]
    return [*map(str, line), "--device", "cpu", "--out", str(out)]


@contextmanager
def serving(line):
    """The verb in a process of its own: (process, its page's address)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cig", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HOME / "src")},
    )
    try:
        said = next(line for line in process.stderr if line.startswith("vote at "))
        yield process, said.split()[2]
    finally:
        process.kill()
        process.communicate()


def send(address, what="", body=None):
    port, secret = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/(.+)/", address).groups()
    line = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    origin = {"Origin": f"http://127.0.0.1:{port}"}
    line.request("POST" if body else "GET", f"/{secret}/{what}", body, origin if body else {})
    answer = line.getresponse()
    assert answer.status == 200
    return json.loads(answer.read())


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_trial_ends_with_its_result_and_goes_on_the_next_day(world, album, tmp_path, stop):
    line = words_of(world, album, tmp_path)
    with serving(line) as (process, address):
        cases = send(address, "state")["cases"]
        assert set(cases) <= {"0", "1", "2", "3"}
        shown = send(address, f"case/{cases[0]}")
        assert [len(shown[side]) for side in ("left", "right")] == [6, 6]
        assert all(each["url"].startswith("data:image/webp") for each in (*shown["left"], shown["reference"]))
        send(address, "vote", vote(cases[0], "left"))
        process.send_signal(stop)
        said, complaints = process.communicate(timeout=20)
    assert (process.returncode, complaints) == (0, "")
    assert "not shown: 1 that have no pseudo-target (4)" in said
    assert "not shown: 1 that could not run (5)" in said
    assert f"not voted {len(cases) - 1}" in said
    assert "reference 0.10, pseudo-target 0.90 (--fusion-weight)" in said
    assert "made elsewhere, not measured" in said
    written = (tmp_path / "trial.json").read_bytes()
    with serving(line) as (_, address):
        assert send(address, "state")["voted"] == [[cases[0], "left"]]
        for name in cases[1:]:
            send(address, "vote", vote(name, "tie"))
        assert send(address, "result")["words"][0].startswith("1 of 1 decided query preferred")
    assert (tmp_path / "trial.json").read_bytes() == written


def test_the_result_at_any_time(world, album, tmp_path, capsys, monkeypatch):
    trial(case(1, "right"), case(2)).write(tmp_path)
    voted(tmp_path, Trial.read(tmp_path), ["left"])
    with (tmp_path / "votes.jsonl").open("a") as file:
        file.write('{"case": "2", "cho')
    code, out, err = run(capsys, "trial", album, "--result", "--out", tmp_path)
    assert (code, out.splitlines()[0][:47]) == (0, "1 of 1 decided query preferred pseudo-targets, ")
    assert "left out: 1" in err
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["votes"] == {"pseudo_targets": 1, "base": 0, "ties": 0, "both_bad": 0, "not_voted": 1}
    assert result["words"] == out.splitlines()
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "trial", album / "pictures", "--result")
    assert (code, "outputs/trials/pictures has no trial" in err) == (2, True)


def made_here(world, album, out):
    models = world / "models"
    line = ["trial", album / "pictures", "--queries", album / "q.csv", "--method", "image", "--out", out]
    line += ["--clip", models / "clip-small", "--clip2", models / "clip-large", "--phi", models / "phi-small.pt"]
    line += ["--phi2", models / "phi-large.pt", "--model-path", models / "sdxl", "--sdxl-repo", models / "sdxl"]
    line += ["--vae-repo", models / "sdxl/vae", "--height", "64", "--width", "64", "--steps", "2", "--device", "cpu"]
    return [*line, "--search-clip", models / "clip-small", "--fusion-weight", "0"]


@pytest.mark.slow
def test_pseudo_targets_are_made_once_and_their_cost_is_told(world, album, tmp_path, capsys, monkeypatch):
    served = []
    monkeypatch.setattr("cig.service.trial.hold_vote", lambda trial, votes, images, **how: served.append(trial))
    code, out, err = run(capsys, *made_here(world, album, tmp_path))
    assert (code, "5 pseudo-targets" in err) == (0, True)
    assert re.search(r"cost: imagining took [\d.e-]+ s a query, with at most [\d.]+ GB in use \(cpu", out)
    monkeypatch.setattr("cig.models.composer.load_composer_lazily", None)  # nothing is loaded again
    monkeypatch.setattr("cig.methods.load_method_lazily", None)
    code, again, _ = run(capsys, *made_here(world, album, tmp_path))
    assert (code, again) == (0, out)
    first, second = served
    assert first.cases == second.cases
    assert "generate.image_guidance" not in json.loads((tmp_path / "trial.json").read_text())["asked"], "as before it"
    code, _, err = run(capsys, *made_here(world, album, tmp_path), "--top", "3", "--guidance-scale", "7.5")
    assert (code, "(generate.guidance: 5.0 there, 7.5 now, top: 6 there, 3 now)" in err) == (2, True)


def test_where_no_list_differs_there_is_nothing_to_vote_on(world, album, tmp_path, capsys):
    line = [*words_of(world, album, tmp_path), "--top", "3"]
    code, out, err = run(capsys, *line[: line.index("--fusion-weight")], "--fusion-weight", "1", *line[-6:])
    assert (code, "0 of 6 queries have two lists that differ" in err, "vote at" in err) == (0, True, False)
    assert "not shown: 4 that have the same list on both sides (ties) (0, 1, 2, 3)" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "give the queries with --queries FILE"),
        ("--queries nowhere.csv", "nowhere.csv is not there"),
        ("--queries q.csv --top 0", "--top 0: at least 1"),
        ("--queries q.csv", "models/phi_best.pt is not there"),
        ("--queries q.csv --method text --generated-image-dir made", "looks at no picture"),
        ("--queries q.csv --method image --generated-image-dir nowhere", "nowhere is not a folder"),
        ("--queries q.csv --method serle", 'Did you mean "searle"'),
    ],
)
def test_wrong_calls_say_what_to_type(world, album, tmp_path, monkeypatch, capsys, line, words):
    monkeypatch.chdir(album)
    line = [*line.split(), *(["--search-clip", world / "models/clip-small"] if "method" in line else [])]
    code, _, err = run(capsys, "trial", "pictures", *line, "--out", tmp_path)
    assert (code, words in err, "Traceback" in err) == (2, True, False), err
    assert not (tmp_path / "trial.json").exists()


def test_what_is_made_is_not_searched(album, monkeypatch, capsys):
    monkeypatch.chdir(album / "pictures")
    code, _, err = run(capsys, "trial", ".", "--queries", "../q.csv", "--method", "image")
    assert (code, "outputs/trials/pictures is among the pictures" in err) == (2, True)
    assert not (album / "pictures/outputs").exists()


def test_two_that_make_one_trial_share_its_coin(album, tmp_path, monkeypatch):
    """The one that ends later takes what is there; votes without it belong to nobody."""
    from cig.pipelines.trial import run as trial_run

    quicker, out = trial(case(1)), tmp_path / "trial"

    def made(*asked, **options):
        quicker.write(out)
        return trial(case(1, base="right"))

    monkeypatch.setattr(trial_run, "_make_trial", made)
    monkeypatch.setattr(Trial, "need_same", lambda *asked: None)
    trying = TrialRequest(
        album / "pictures", album / "q.csv", Searching("text", clip="icons", pseudo_targets=album / "made")
    )
    trial_run.trial(trying, Compute(), out, hold_vote=lambda *asked: None)
    assert Trial.read(out) == quicker
    Votes(out, quicker).add("1", "left", 1.0)
    (out / "trial.json").unlink()
    with pytest.raises(MismatchError, match="is of a trial that is gone"):
        trial_run.trial(trying, Compute(), out, hold_vote=lambda *asked: None)


def test_a_folder_that_is_none(tmp_path, capsys):
    code, _, err = run(capsys, "trial", tmp_path / "nowhere", "--queries", tmp_path / "q.csv", "--method", "image")
    assert (code, "nowhere is not a folder" in err) == (2, True)


def test_a_port_that_is_taken_is_said(tmp_path, album):
    with opened(tmp_path, trial(case(1))) as server, pytest.raises(UsageError, match=f"--port {server.port} "):
        hold_vote(server.voting.trial, server.voting.votes, {}, port=server.port)
    for port in (-1, 65536):
        with pytest.raises(UsageError, match=f"--port {port}"):
            hold_vote(server.voting.trial, server.voting.votes, {}, port=port)


# The page, in a browser


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """name -> one of sixteen drawn pictures, and a file that is none."""
    folder, draw = tmp_path_factory.mktemp("pictures"), random.Random(7)
    images = {f"{i:02d}.png": folder / f"{i:02d}.png" for i in range(17)}
    for path in images.values():
        tiny.draw(draw, path)
    images["16.png"].write_bytes(b"no picture")
    return images


CAPTIONS = (
    "shows two dogs, not one",
    "<img src=x onerror=document.title='x'>",
    "مثل هذا ولكن باللون الأحمر",
    "w" * 300,
)


def drawn(pictures, count=4):
    names = list(pictures)
    return trial(
        *(
            Case(f"q{i}", names[i], (CAPTIONS[i % 4],), tuple(names[i + 1 : i + 7]), tuple(names[10:16]), "left")
            for i in range(count - 1)
        ),
        Case("last", "16.png", (CAPTIONS[3],), ("gone.png", "16.png", "01.png"), tuple(names[1:7]), "right"),
    )


class Tab:
    """A voter's page, and everything it asked for or complained of."""

    def __init__(self, ready, server, width=1280, scheme="light", **more):
        self.asked, self.complaints = [], []
        self.page = ready.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, **more)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(server.address)
        self.sees("0 of 4 voted")

    def sees(self, progress):
        self.page.wait_for_function(
            "(text) => document.getElementById('voted').textContent === text && !document.querySelector('.waiting')",
            arg=progress,
        )

    def press(self, key, progress):
        self.page.keyboard.press(key)
        self.sees(progress)


@pytest.fixture(scope="module")
def ready():
    if not BROWSER:
        pytest.skip("no chromium or google-chrome on this machine")
    with browser() as opened_:
        yield opened_


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_a_trial_is_voted_by_the_keyboard(tmp_path, ready, pictures, width, scheme):
    with opened(tmp_path, drawn(pictures), pictures) as server:
        tab = Tab(ready, server, width, scheme)
        page = tab.page
        for key, progress in (("ArrowLeft", 1), ("ArrowRight", 2), ("ArrowDown", 3)):
            tab.press(key, f"{progress} of 4 voted")
            assert page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length") == 0
            assert page.evaluate("document.documentElement.scrollWidth") == width
            texts, pale = page.evaluate(PALE)
            assert (texts > 15, pale) == (True, [])
            assert width > 360 or page.evaluate(TOO_WIDE) == []
        assert page.locator(".frame.none").all_text_contents() == ["16.png", "gone.png", "16.png"]
        page.keyboard.press("u")
        page.locator("[data-choice=tie][aria-pressed=true]").wait_for()
        tab.press(" ", "3 of 4 voted")  # the third case again
        tab.press(" ", "4 of 4 voted")
        assert page.evaluate(PALE)[1] == []
        page.click("text=Show the result")
        page.locator("#finding").wait_for()
        assert page.text_content("#result p") == (
            "1 of 2 decided queries preferred pseudo-targets, p = 1: no evidence either way"
        )
        assert page.evaluate(PALE)[1] == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("#drawn [data-kind]").evaluate_all(
            "all => all.map(e => e.dataset.kind + e.dataset.count)"
        ) == ["pseudo1", "base1", "both bad2"]
        shown = page.locator("#cases summary").all_text_contents()
        assert len(shown) == 4
        assert ["your vote: with" in " ".join(line.split()) for line in shown] == [True, True, False, False]
        page.locator("#cases summary").first.click()
        page.locator("#cases details[open] img").first.wait_for()
        assert page.locator("#cases details[open] h4").all_text_contents() == [
            "Left, without",
            "Right, with the pseudo-target",
        ]
        assert page.title() == "holiday · blind trial"
        assert tab.complaints == []
        assert all(url.startswith((server.address, "data:")) for url in tab.asked)
        page.close()
        assert list(server.voting.votes.choices.values()) == ["left", "right", "bad", "bad"]


def test_a_trial_is_voted_by_touch_and_goes_on_after_a_reload(tmp_path, ready, pictures):
    with opened(tmp_path, drawn(pictures), pictures) as server:
        tab = Tab(ready, server, 390, has_touch=True)
        tab.page.tap("text=Right fits better")
        tab.sees("1 of 4 voted")
        tab.page.tap("text=Both bad")
        tab.sees("2 of 4 voted")
        tab.page.reload()
        tab.sees("2 of 4 voted")
        tab.page.tap("#undo")
        tab.page.locator("[data-choice=bad][aria-pressed=true]").wait_for()
        tab.page.tap("text=Equally good")
        tab.page.locator("[aria-pressed=true]").wait_for(state="detached")
        tab.page.close()
        assert list(server.voting.votes.choices.values()) == ["right", "tie"]
        sizes = [json.loads(line)["seconds"] for line in (tmp_path / "votes.jsonl").read_text().splitlines()]
        assert all(0 < seconds < 60 for seconds in sizes)


def test_a_reload_after_the_result_shows_it_again(tmp_path, ready, pictures):
    own = drawn(pictures)
    voted(tmp_path, own, ["left", "right", "tie", "bad"])
    with opened(tmp_path, own, pictures) as server:
        page = ready.new_page()
        page.goto(server.address)
        page.click("text=Show the result")
        page.locator("#finding").wait_for()
        words = page.text_content("#result p")
        page.reload()
        page.locator("#result p").first.wait_for()
        assert page.text_content("#result p") == words
        assert not page.locator("#back").is_visible()
        page.close()


def test_space_on_a_button_presses_that_button(tmp_path, ready, pictures):
    with opened(tmp_path, drawn(pictures), pictures) as server:
        tab = Tab(ready, server)
        tab.page.focus("text=Equally good")
        tab.press(" ", "1 of 4 voted")
        assert tab.page.evaluate("document.activeElement.id") == "caption"
        tab.page.close()
        assert list(server.voting.votes.choices.values()) == ["tie"]


def test_a_server_that_is_gone_is_said(tmp_path, ready, pictures):
    with opened(tmp_path, drawn(pictures), pictures) as server:
        tab = Tab(ready, server)
    tab.page.keyboard.press("ArrowLeft")
    tab.page.locator("#trouble", has_text="The server does not answer").wait_for()
    assert tab.page.text_content("#voted") == "0 of 4 voted"
    tab.page.close()
