"""Image codes as text."""

import numpy as np
import pytest
import torch

from ofa.errors import UserError
from ofa.tokens.image_codes import codes_to_text, square_side, text_to_codes


@pytest.mark.parametrize(
    "codes", [[[17, 3], [3, 250]], np.array([[17, 3], [3, 250]]), torch.tensor([[17, 3], [3, 250]])]
)
def test_codes_are_written_row_by_row(codes):
    assert codes_to_text(codes) == "17 3 3 250"


def test_codes_come_back_from_their_text():
    codes = text_to_codes("17 3 3 250", num_codes=256, count=4)
    assert codes.dtype == np.int64 and codes.tolist() == [17, 3, 3, 250]


@pytest.mark.parametrize(
    "text, options, message",
    [
        (
            "17 x 3",
            {},
            "a.tsv:3: expects image codes, integers with spaces between them, found 'x'",
        ),
        ("17 3.5", {}, "found '3.5'"),
        ("17 99999999999999999999", {}, "integer"),
        ("", {}, "a.tsv:3: expects image codes, found an empty field"),
        (
            "1 2 3",
            {"count": 4},
            (
                "a.tsv:3: expects 4 image codes (2 x 2), found 3; the image was encoded at"
                " another size"
            ),
        ),
        ("1 256", {"num_codes": 256}, "a.tsv:3: expects image codes from 0 to 255, found 256"),
        ("1 -1", {}, "from 0 and more, found -1"),
        ("1 -1", {"num_codes": 256}, "found -1"),
    ],
)
def test_wrong_codes_have_one_message_with_their_row(text, options, message):
    with pytest.raises(UserError) as error:
        text_to_codes(text, where="a.tsv:3", **options)
    assert message in str(error.value)


def test_only_a_square_grid_has_a_side():
    assert square_side(1024) == 32
    with pytest.raises(
        UserError, match="a.tsv:3: expects the codes of a square image .* found 1000"
    ):
        square_side(1000, "a.tsv:3")


@pytest.mark.parametrize(
    "text",
    [
        "1 1_000",
        "1 １２",
        "1 ٣",
        "1 " + "9" * 5000,
        "1 nan",
        "1 1e3",
        "1 +-2",
        "1 \u2003 2",
        "1\x002",
    ],
)
def test_codes_are_plain_numbers(text):
    with pytest.raises(UserError, match="^a.tsv:3: expects image codes, integers"):
        text_to_codes(text, where="a.tsv:3")
