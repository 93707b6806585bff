"""Image codes as text: the column of a TSV, and codes in a model's answer.

An image of 64 x 64 pixels and a tokenizer of 8 pixels per code give 8 x 8 codes, written row by
row from the top left corner: ``"17 3 3 250 ..."``, 64 integers with one space between them.
"""

import math
import re
from collections.abc import Iterable

import numpy as np

from ofa.errors import UserError, place

CODES = re.compile(r"[+\-0-9 \t\r\n]*")
CODE = re.compile("[0-9]{1,18}")
CODE_SIDE = 8  # pixels per code and side, of every image that a model knows as codes


def codes_to_text(codes: Iterable) -> str:
    """``[[17, 3], [3, 250]]``, of any shape and type -> ``"17 3 3 250"``, row by row."""
    array = codes if hasattr(codes, "reshape") else np.asarray(list(codes))
    return " ".join(map(str, array.reshape(-1).tolist()))


def text_to_codes(
    text: str, num_codes: int | None = None, count: int | None = None, where: str = ""
) -> np.ndarray:
    """``"17 3 3 250"`` -> int64[4].

    Args: num_codes: of the tokenizer or vocabulary. count: of the image. where: ``file:row``.
    Raises: UserError if a word is no integer, a code is out of range, or another number of them.
    """
    words = text.split()
    try:
        if not CODES.fullmatch(text):  # int() takes "1_000" and "１" as well
            raise ValueError
        codes = np.array(words, dtype=np.int64)
    except (ValueError, OverflowError):
        wrong = next((word for word in words if not CODE.fullmatch(word)), text)
        raise UserError(
            f"{place(where)}expects image codes, integers with spaces between them, found"
            f" {wrong[:40]!r}; is the column right (columns count from 0)?"
        ) from None
    if not len(codes):
        raise UserError(
            f"{place(where)}expects image codes, found an empty field; see ofa tokenizer encode"
        )
    if count is not None and len(codes) != count:
        side = math.isqrt(count)
        grid = f" ({side} x {side})" if side * side == count else ""
        raise UserError(
            f"{place(where)}expects {count} image codes{grid}, found {len(codes)}; the image was"
            " encoded at another size: encode it again (ofa tokenizer encode), or give the"
            " --code-image-size that belongs to the codes"
        )
    outside = codes[(codes < 0) | (codes >= (num_codes or np.inf))]
    if len(outside):
        known = f"0 to {num_codes - 1}" if num_codes else "0 and more"
        raise UserError(
            f"{place(where)}expects image codes from {known}, found {outside[0]}; the codes are of"
            " another tokenizer, or its number of codes is not that of --code-dict-size"
        )
    return codes


def square_side(count: int, where: str = "") -> int:
    """Side of the square that a number of codes fills: 1024 -> 32. Raises: UserError."""
    side = math.isqrt(count)
    if side * side != count or not count:
        raise UserError(
            f"{place(where)}expects the codes of a square image (such as 64, 256 or 1024), found"
            f" {count}; were some cut off?"
        )
    return side
