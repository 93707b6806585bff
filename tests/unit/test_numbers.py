"""Numbers as text and from JSON: plain, finite, or refused."""

import math

import pytest

from ofa.io.values import read_decimal, read_integer


@pytest.mark.parametrize(
    "value, number",
    [("0.6", 0.6), (" -1e3 ", -1000.0), (".5", 0.5), ("7.", 7.0), ("+2E-3", 0.002), (3, 3.0)],
)
def test_plain_decimal_numbers_are_read(value, number):
    assert read_decimal(value) == number


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "high",
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "1e39",
        "-1e39",
        "1e400",
        "1e99999999999",
        "1_000",
        "１",
        "٣",
        "0x1",
        "1,5",
        "1 2",
        "--1",
        "1" * 5000,
        "0." + "1" * 500,
        math.nan,
        math.inf,
        -math.inf,
        1e39,
        10**39,
        -(10**400),
        True,
        None,
        [1],
        {},
        b"1",
    ],
)
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError):
        read_decimal(value)


@pytest.mark.parametrize(
    "value, number",
    [("17", 17), (" -3 ", -3), ("007", 7), (17, 17), (17.0, 17), ("9" * 18, 10**18 - 1)],
)
def test_plain_integers_are_read(value, number):
    found = read_integer(value)
    assert found == number and type(found) is int


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1.0",
        "1e3",
        "1_000",
        "１２",
        "٣",
        "9" * 19,
        "9" * 5000,
        10**18,
        10**400,
        1.5,
        math.inf,
        math.nan,
        1e300,
        True,
        None,
        [1],
    ],
)
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(ValueError):
        read_integer(value)
