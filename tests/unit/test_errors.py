"""The words of messages: the first line of an error, the first of many names."""

import pytest

from ofa.errors import listed, reason_of


@pytest.mark.parametrize(
    "error, reason",
    [
        (ValueError("\nno JSON\nat line 3"), "no JSON"),
        (RuntimeError("x" * 300), "x" * 200),
        (AttributeError(), "AttributeError"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_reason_of_an_error_is_one_short_line(error, reason):
    assert reason_of(error) == reason


def test_many_names_are_cut_and_counted():
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2, "; ") == "a; b; and 2 more"
    assert listed([], 2) == ""
