"""Conditions on metadata, and tables about pictures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cig.errors import InputError, UsageError
from cig.retrieval.filters import Condition, Metadata, need_columns


@pytest.mark.parametrize(
    ("text", "cell", "holds"),
    [
        ("price<50", "7", True),
        ("price<50", "50", False),
        ("price<=50", 50, True),
        ("price>9", "10", True),  # as numbers: as texts "10" < "9"
        ("price>9", "", False),
        ("price<50", "1,200", False),  # no number: neither less nor more
        ("price>50", "$300", False),
        ("sale=true", True, True),
        ("price != 9", "", True),
        ("colour = red", "red", True),
        ("colour=red", "Red", False),
        ("title~SUMMER", "a summer dress", True),
        ("title~x", None, False),
        ("sale=TRUE", "true", True),
    ],
)
def test_conditions(text, cell, holds):
    assert Condition.parse(text).holds(cell) == holds


def test_rows_about_pictures(tmp_path):
    names = ["dresses/a.jpg", "dresses/b.jpg", "shirts/a.jpg", "new.jpg"]
    (tmp_path / "m.csv").write_text("file,price\ndresses/a.jpg,10\ndresses/b,60\nshirts/a,5\nother,1\n")
    metadata = Metadata(tmp_path / "m.csv")
    assert [metadata.row(name).get("price") for name in names] == ["10", "60", "5", None]
    assert metadata.unused(names) == 1
    (tmp_path / "n.csv").write_text("Name ,price\n./Dresses/A.jpg,10\ndresses\\b.jpg,60\nNEW,7\nnew.JPG,8\n")
    spelt = Metadata(tmp_path / "n.csv")
    assert [spelt.row(name).get("price") for name in names] == ["10", "60", None, "8"]
    need_columns(["price"], metadata.columns)
    with pytest.raises(UsageError, match='"price"'):
        need_columns(["prise"], metadata.columns)
    with pytest.raises(UsageError, match="--metadata"):
        need_columns(["price"], [])
    with pytest.raises(UsageError):
        Condition.parse("price")
    (tmp_path / "e.csv").write_text("file,price\n,10\n")
    with pytest.raises(InputError, match="should name the pictures"):
        Metadata(tmp_path / "e.csv")
    (tmp_path / "t.csv").write_text("file,price\na,10\nb,5\na,60\n")
    with pytest.raises(InputError, match="several rows about a; give each picture one"):
        Metadata(tmp_path / "t.csv")


@given(st.text(max_size=20), st.text(max_size=10))
def test_any_condition_is_one_or_told(text, cell):
    try:
        condition = Condition.parse(text)
    except UsageError:
        return
    assert condition.holds(cell) in (True, False)
