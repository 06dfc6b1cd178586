"""Pickles of strangers: what pickle itself would read, if it is lists and dicts of texts; else an error; never run."""

import contextlib
import pickle
import pickletools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cig.errors import InputError, NotFoundError
from cig.io import pickled_names
from cig.io.pickled_names import read_pickled_lists, read_pickled_names

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LISTS = st.dictionaries(TEXT, st.lists(TEXT, max_size=8), max_size=8)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles") / "any.pkl"


def put(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=40, deadline=None)
@given(value=LISTS)
def test_lists_are_what_pickle_reads(path, protocol, value):
    shared = {**value, "again": [*value, *value]}  # repeated texts come from the memo
    assert read_pickled_lists(put(path, pickle.dumps(shared, protocol))) == shared


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_entries_come_in_several_batches(path, protocol):
    value = {f"name {i}": [f"phrase {i}.{j}" for j in range(3)] for i in range(2500)} | {"long": ["x"] * 2500}
    assert read_pickled_lists(put(path, pickle.dumps(value, protocol))) == value


class Program:
    def __reduce__(self):
        return print, ("a pickle ran",)


SHARED = ["b"]
TWICE = b"".join(b"]\x94(h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(60))  # each has the last one twice
LAUGHS = b"\x80\x04]\x94" + TWICE + b"."


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickle.dumps({"a": [Program()]}), "it has the instruction"),
        (pickle.dumps({"a": ["b", 5]}), "it has the instruction BININT1"),
        (pickle.dumps({"a": {"b": "c"}}), "no other pickle is read"),
        (pickle.dumps({"a": "b"}), "no other pickle is read"),
        (pickle.dumps({"a": [["b"]]}), "no other pickle is read"),
        (pickle.dumps(["a"]), "no other pickle is read"),
        (pickle.dumps({"a": ("b",)}), "it has the instruction TUPLE1"),
        (pickle.dumps({"a": SHARED, "b": SHARED}), "a list or dict is used twice"),
        (LAUGHS, "a list or dict is used twice"),
        (b"\x80\x04}]]s.", "a key is a list"),
        (b"\x80\x04(\x8c\x01ad.", "zip"),
        (b"\x80\x04]\x94\x94.", "it remembers a value twice"),
        (b"\x80\x04" + b"]" * 101 + b".", "over 100 lists and dicts"),
        (b"\x80\x04a.", "no other pickle is read"),
        (b"\x80\x04e.", "no other pickle is read"),
        (b"\x80\x04s.", "no other pickle is read"),
        (b"\x80\x04}]\x8c\x01aa.", "it ends with 2 values"),
        (b"\x80\x04\x8c\x01a\x8c\x01ba.", "APPEND of a str"),
        (b"\x80\x04h\x07.", "no other pickle is read"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.", "no other pickle is read"),
        (b"V\\ud800\n.", "no other pickle is read"),
        (pickle.dumps({"a": ["b"]})[:-2], "no other pickle is read"),
        (b"", "no other pickle is read"),
    ],
)
def test_other_pickles_are_refused(path, capsys, monkeypatch, data, words):
    monkeypatch.setattr(pickled_names, "MOST_CONTAINERS", 100)
    for read in (read_pickled_lists, read_pickled_names):
        if read is read_pickled_lists or not data.startswith(pickle.dumps(["a"])):
            with pytest.raises(InputError, match=words if read is read_pickled_lists else "no other pickle is read"):
                read(put(path, data))
    assert "a pickle ran" not in capsys.readouterr().out


def test_what_is_not_there(tmp_path):
    with pytest.raises(NotFoundError):
        read_pickled_lists(tmp_path / "none.pkl")


OPCODES = sorted(code.code.encode("latin-1") for code in pickletools.opcodes)
PIECES = st.one_of(
    st.sampled_from(OPCODES),
    st.sampled_from([b"\x8c\x01a", b"]\x94", b"}\x94", b"(", b"e", b"u", b"s", b"a", b"h\x00", b"h\x01", b"."]),
    st.binary(max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.lists(PIECES, max_size=30).map(b"".join),
        st.tuples(LISTS, st.integers(0, 40), st.binary(max_size=3)).map(
            lambda drawn: (data := pickle.dumps(drawn[0]))[: drawn[1]] + drawn[2] + data[drawn[1] + len(drawn[2]) :]
        ),
    )
)
def test_any_bytes_are_lists_of_texts_or_an_input_error(path, data):
    put(path, data)
    with contextlib.suppress(InputError):
        assert all(isinstance(name, str) for name in read_pickled_names(path))
    with contextlib.suppress(InputError):
        read = theirs = read_pickled_lists(path)
        assert all(isinstance(text, str) for key, row in read.items() for text in (key, *row))
        with contextlib.suppress(Exception):  # pickle minds frames and versions, which say nothing
            theirs = pickle.loads(data)  # safe, being of plain texts alone
        assert read == theirs
