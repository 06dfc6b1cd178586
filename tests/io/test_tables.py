"""Tables: long cells are read without a change of the process's own limit."""

import csv

import pytest

from cig.errors import InputError
from cig.io.tables import LONGEST, each_row


def test_long_cells_do_not_change_the_limit_of_others(tmp_path):
    """Two tables in turns, one left in the middle, and a reader of someone else's between them."""
    (tmp_path / "a.csv").write_text("name,text\n" + f"a,{'x' * 200_000}\n" * 3)
    before = csv.field_size_limit(1000)
    try:
        one, other = each_row(tmp_path / "a.csv"), each_row(tmp_path / "a.csv")
        assert len(next(one)["text"]) == len(next(other)["text"]) == 200_000
        assert csv.field_size_limit() == 1000
        with pytest.raises(csv.Error):
            next(csv.reader(["y" * 2000]))
        assert len(list(one)) == 2
        assert len(next(other)["text"]) == 200_000
        other.close()
        assert csv.field_size_limit() == 1000
        (tmp_path / "b.csv").write_text(f"text\n{'x' * (LONGEST + 1)}\n")
        with pytest.raises(InputError):
            list(each_row(tmp_path / "b.csv"))
        assert csv.field_size_limit() == 1000
    finally:
        csv.field_size_limit(before)
