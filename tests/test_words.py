"""Concepts and phrases: what is read, what is made, and that a rerun makes the same."""

import json
import pickle

import pytest

from cig.errors import InputError, NotFoundError, UsageError
from cig.training.concepts import read_concepts
from cig.training.phrases import lost_concepts, read_phrases

# Tables of concepts


def table(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_as_published_is_read(tmp_path):
    published = table(tmp_path / "a.csv", 'Image Name,1,2\nx.JPEG,Dog,"Cat, wild"\ny.JPEG,"Cat, wild",Nan\n')
    read = read_concepts(published)
    assert read == {"x.JPEG": ("Dog", "Cat, wild"), "y.JPEG": ("Cat, wild", "Nan")}
    assert read["x.JPEG"][1] is read["y.JPEG"][0], "a name is in memory once"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ("Image Name,1\n", "has no rows"),
        ("picture,1\nx,Dog\n", 'its first column is "picture", not "Image Name"'),
        ("Image Name\nx\n", "with names after it"),
        ("Image Name,1\nx,\n", "the row of x has a cell without a name"),
        ("Image Name,1\nx,Dog\nx,Cat\n", "has x twice"),
        ("Image Name,1\nx,Dog,Cat\n", "another number of cells"),
        ("Image Name,1\nx,\udcff\n", "is not UTF-8"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, words):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=words):
        read_concepts(path)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError):
        read_concepts(tmp_path / "a.csv")
    with pytest.raises(UsageError, match="a table comes as"):
        read_concepts(tmp_path / "a.pkl")


# Phrases

LINES = {"dog": ["a photo of dog that runs", "a photo of dog that is"], "a..b": ["a photo of a.b that"]}


def test_phrases_are_read_from_either_form_and_lost_concepts_named(tmp_path, capsys):
    (tmp_path / "concept_to_phrases.pkl").write_bytes(pickle.dumps(LINES))
    rows = [{"concept": "dog", "phrases": ["an older line"]}, *({"concept": k, "phrases": v} for k, v in LINES.items())]
    table(tmp_path / "phrases.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for name in ("concept_to_phrases.pkl", "phrases.jsonl"):
        assert read_phrases(tmp_path / name) == {"dog": tuple(LINES["dog"])}
        assert "1 concepts are left out, because not all of their phrases have them: a..b" in capsys.readouterr().err
    assert lost_concepts({"a": ["a b", "b"], "b": ["b"], "c": []}) == ["a", "c"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"concept": "a", "phrases": ["b"]}', "no concept that is in all of its phrases"),
        ('{"concept": "a"}', "a line should be"),
        ('{"concept": "", "phrases": []}', "a line should be"),
        ('{"concept": "a", "phrases": ["a", 5]}', "a line should be"),
        ('{"concept": "a", "phr', "line 1: not JSON"),
    ],
)
def test_other_phrases_are_refused(tmp_path, line, words):
    with pytest.raises(InputError, match=words):
        read_phrases(table(tmp_path / "phrases.jsonl", line + "\n"))
    with pytest.raises(UsageError, match="phrases come as"):
        read_phrases(tmp_path / "phrases.txt")
