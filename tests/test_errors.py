"""The words and checks that errors share."""

import pytest

from cig.errors import UsageError, WrongTypeError, check_members, check_type, did_you_mean, some


def test_words_of_errors():
    assert did_you_mean("vla", ["val", "test"]) == ' Did you mean "val"? Choose from: val, test.'
    assert some(map(str, range(5)), 3) == "0, 1, 2 and 2 more"


def test_wrong_types_are_usage_errors_and_type_errors():
    check_type("a", (str, int), name="name", wanted="a name")
    with pytest.raises(WrongTypeError, match=r"^name should be a name, not \[1, 2\] \(list\)$") as caught:
        check_type([1, 2], str, name="name", wanted="a name")
    assert isinstance(caught.value, UsageError)
    assert isinstance(caught.value, TypeError)
    assert caught.value.exit_code == 2


def test_members_are_those_of_an_instance():
    check_members("a", ("upper", "lower"), name="name", wanted="a name")
    for value in (str, 3):
        with pytest.raises(WrongTypeError, match="name should be a name"):
            check_members(value, ("upper", "lower"), name="name", wanted="a name")
