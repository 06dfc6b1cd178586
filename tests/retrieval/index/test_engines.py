"""The contract of every engine of the index, over all engines that can be had: the same rows, the same answers."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from cig.errors import InputError, UsageError
from cig.retrieval.filters import Condition
from cig.retrieval.index import IndexEntry, Row, Selection, open_engine
from cig.retrieval.index._order import first_groups, ranked

SERVER = os.environ.get("CIG_MILVUS")  # the address of a Milvus server that the tests may write to
STORES = [
    "exact",
    "milvus:lite",
    pytest.param("milvus:server", marks=pytest.mark.skipif(not SERVER, reason="no Milvus server: CIG_MILVUS is unset")),
]
rng = np.random.default_rng(7)


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


FEATURES = unit(rng.standard_normal((60, 8)))
FEATURES[20:40] = FEATURES[0]  # twenty copies of one picture
META = [
    {"price": i, "colour": ["Red", "blue", "5"][i % 3], "title": f'A {i % 7} "100%" coat', "new": i % 2 == 0}
    if i % 5
    else {}
    for i in range(60)
]
ROWS = [
    Row(IndexEntry(f"shop/{i * 37 % 60:02} é.jpg", f"c{i % 50}", "stamp", "", META[i]), FEATURES[i]) for i in range(60)
]
NAMES = [row.entry.name for row in ROWS]


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    address = {"milvus:lite": f"milvus:{tmp_path / 'm.db'}", "milvus:server": f"milvus:{SERVER}"}
    return address.get(request.param, request.param)


@pytest.fixture
def engine(store, tmp_path):
    if store.startswith("milvus"):
        pytest.importorskip("pymilvus")
    engine = open_engine(store, tmp_path / "index", 8)
    yield engine
    engine.close()


def answer(engine, query, k, **select):
    (candidates,) = engine.nearest(query[None], k, Selection(**select))
    return [candidate.name for _, candidate in ranked(query, candidates)][:k]


def expected(query, k, keep=lambda row: True, rows=ROWS):
    """The same by a plain sort in float64."""
    kept = [row for row in rows if keep(row)]
    scores = {row.entry.name: float(row.feature.astype(np.float64) @ query.astype(np.float64)) for row in kept}
    return sorted(scores, key=lambda name: (-round(scores[name], 9), name))[:k]


QUERY = unit(rng.standard_normal(8))
CONDITIONS = [
    *("price<30", "price>=12.5", "price!=7", "price=1e1", "price~3", "colour=Red", "colour!=Red", "colour<c"),
    "colour=5",
    *("colour~RED", "title~a 3", "title~100", 'title~"100%"', "new=true", "new=True", "nothing=1", "nothing!=1"),
]


@pytest.mark.parametrize("k", [1, 7, 60, 200])
def test_nearest_first_and_equal_ones_by_name(engine, k):
    engine.put(ROWS)
    assert answer(engine, QUERY, k) == expected(QUERY, k)


@pytest.mark.parametrize("k", [1, 5, 21])
def test_copies_come_in_the_order_of_their_names(engine, k):
    engine.put(ROWS)
    assert answer(engine, FEATURES[0], k) == expected(FEATURES[0], k)


def test_conditions_are_those_of_the_filters(engine):
    engine.put(ROWS)
    for text in CONDITIONS:
        where = Condition.parse(text)
        want = [row for row in ROWS if row.entry.metadata and where.holds(row.entry.metadata.get(where.column))]
        keep = {row.entry.name for row in want}
        assert answer(engine, QUERY, 60, where=(where,)) == expected(QUERY, 60, lambda r, k=keep: r.entry.name in k), (
            text
        )
        assert engine.count(Selection(where=(where,))) == len(want), text


def test_names_and_leaving_out(engine):
    engine.put(ROWS)
    got = answer(engine, QUERY, 60, patterns=("shop/0*", "*[!1] é.jpg"), leave_out=(NAMES[0], NAMES[1]))
    keep = [n for n in NAMES[2:] if n.startswith("shop/0") or not n.endswith("1 é.jpg")]
    assert got == expected(QUERY, 60, lambda row: row.entry.name in keep)


def test_rows_are_added_replaced_described_and_removed(engine):
    engine.put(ROWS[:50])
    engine.put([Row(IndexEntry(NAMES[3], "new", "s", "elsewhere.jpg", {"price": 99}), FEATURES[59])])
    assert len(engine) == 50
    assert engine.get([NAMES[3], "none"])[NAMES[3]].entry == IndexEntry(
        NAMES[3], "new", "s", "elsewhere.jpg", {"price": 99}
    )
    np.testing.assert_array_equal(engine.features(["new"])["new"], FEATURES[59])
    engine.describe([IndexEntry(NAMES[4], "c4", "later", "", {"size": "XL"}), IndexEntry("none", "", "", "", {})])
    assert len(engine) == 50
    assert engine.get([NAMES[4]])[NAMES[4]].entry.metadata == {"size": "XL"}
    assert answer(engine, QUERY, 3, where=(Condition.parse("size=XL"),)) == [NAMES[4]]
    assert engine.remove([NAMES[0], NAMES[0], "none"]) == 1
    assert len(engine) == 49
    assert NAMES[0] not in answer(engine, FEATURES[0], 60)
    assert engine.columns()[:4] == ["colour", "new", "price", "size"]


def test_entries_come_by_name_a_page_at_a_time(engine):
    engine.put(ROWS)
    everything = [entry.name for entry in engine.entries()]
    assert everything == sorted(NAMES)
    page = [entry.name for entry in engine.entries(after=everything[9], limit=5)]
    assert page == everything[10:15]
    cheap = [entry.name for entry in engine.entries(Selection(where=(Condition.parse("price<9"),)))]
    assert cheap == sorted(NAMES[i] for i in range(9) if META[i])


def test_another_opening_sees_what_was_written(engine, store, tmp_path):
    if ".db" in store:
        pytest.skip("milvus-lite keeps a file to one process's client")
    engine.put(ROWS[:10])
    other = open_engine(store, tmp_path / "index")
    assert len(other) == 10
    engine.put(ROWS[10:])
    engine.remove(NAMES[:5])
    assert answer(other, QUERY, 60) == expected(QUERY, 60, rows=ROWS[5:])
    other.close()


def test_an_empty_index_finds_nothing(engine):
    assert answer(engine, QUERY, 3) == []
    assert (len(engine), list(engine.entries()), engine.columns(), engine.get(["x"])) == (0, [], [], {})


def test_wrong_stores(tmp_path):
    for store in ("faiss", "exact:here", "milvus", ""):
        with pytest.raises(UsageError):
            open_engine(store, tmp_path, 8)
    with pytest.raises(InputError):
        open_engine("exact", tmp_path / "none")


# The exact engine's own


def test_many_forgotten_rows_leave_the_matrix(tmp_path):
    engine, other = open_engine("exact", tmp_path, 4), None
    features = unit(rng.standard_normal((3000, 4)))
    engine.put([Row(IndexEntry(f"{i:04}", str(i)), row) for i, row in enumerate(features)])
    other = open_engine("exact", tmp_path)
    assert answer(other, features[2999], 1) == ["2999"]
    assert engine.remove([f"{i:04}" for i in range(2000)]) == 2000
    assert answer(other, features[2999], 1) == ["2999"]
    assert (tmp_path / "features-1.f32").stat().st_size == 1000 * 4 * 4
    engine.put([Row(IndexEntry("new", "new"), features[0])])
    assert not (tmp_path / "features-0.f32").exists()
    assert answer(other, features[0], 1) == ["new"]


def test_a_damaged_row_is_told_not_ranked(tmp_path):
    engine = open_engine("exact", tmp_path, 8)
    engine.put(ROWS)
    matrix = np.memmap(tmp_path / "features-0.f32", np.float32, "r+", shape=(60, 8))
    matrix[5] = np.nan
    matrix.flush()
    with pytest.raises(InputError, match="damaged"):
        answer(engine, QUERY, 3)


KILLED = """
import sys, json, numpy as np
from pathlib import Path
from cig.retrieval.index import IndexEntry, Row, open_engine
engine = open_engine("exact", Path(sys.argv[1]), 4)
for i in range(100000):
    feature = np.zeros(4, np.float32); feature[i % 4] = 1
    engine.put([Row(IndexEntry(f"{i:06}", str(i)), feature)])
    print(i, flush=True)
    if i % 3 == 2:
        engine.remove([f"{i - 1:06}"])
        print(-(i - 1), flush=True)
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_kills(tmp_path):
    for attempt in range(int(os.environ.get("CIG_KILLS", "3"))):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
        said = [int(process.stdout.readline())]
        time.sleep(0.05 + 0.13 * attempt % 1)
        process.kill()
        said += [int(line) for line in process.stdout.read().split("\n") if line.strip()]
        engine = open_engine("exact", folder)
        names = {entry.name for entry in engine.entries()}
        removed = {-number for number in said if number < 0}
        removed_unsaid = max(said) - 1  # perhaps: the kill may come between the removal and the word of it
        assert {f"{i:06}" for i in said if i >= 0 and i not in removed and i != removed_unsaid} <= names
        assert not names & {f"{i:06}" for i in removed}
        rows = engine.get(sorted(names))
        assert all(row.feature[int(name) % 4] == 1 and row.feature.sum() == 1 for name, row in rows.items())


def test_the_first_groups_are_of_different_kinds():
    hits = [(1 - i / 100, f"{'aaabbbcccdddeee'[i]}{i}") for i in range(15)]
    asked = []

    def propose(n):
        asked.append(n)
        return hits[:n]

    groups = first_groups(propose, 2, lambda one, other: one[0] == other[0])
    assert [(head, len(rest)) for _, head, rest in groups] == [("a0", 2), ("b3", 2)]
    assert asked == [2, 8]
    assert len(first_groups(propose, 9, lambda one, other: one[0] == other[0])) == 5
