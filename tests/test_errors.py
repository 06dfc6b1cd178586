"""Words that errors share."""

from cig.errors import did_you_mean, some


def test_words_of_errors():
    assert did_you_mean("vla", ["val", "test"]) == ' Did you mean "val"? Choose from: val, test.'
    assert some(map(str, range(5)), 3) == "0, 1, 2 and 2 more"
