"""Numbers as text or from JSON: plain decimal notation, finite, or an error.

Python's own ``int`` and ``float`` also read ``1_000``, ``１２`` and ``nan``, and ``1e39`` is
infinite as float32.
"""

import re
from typing import Any

DECIMAL = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?\s*")
INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")  # below 2 ** 63
LARGEST = 3.4028234663852886e38  # of a float32
LONGEST = 400  # characters of a number


def read_decimal(value: Any) -> float:
    """``"0.6"``, ``" -1e3 "`` or a number of JSON, finite also as float32. Raises: ValueError."""
    if isinstance(value, str):
        if len(value) > LONGEST or not DECIMAL.fullmatch(value):
            raise ValueError("no decimal number")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("no number")
    elif isinstance(value, int) and value.bit_length() > 128:  # float() would raise OverflowError
        raise ValueError("too large a number")
    number = float(value)
    if not -LARGEST <= number <= LARGEST:  # also NaN
        raise ValueError("not finite")
    return number


def read_integer(value: Any) -> int:
    """``"17"``, ``17`` or ``17.0``, at most 18 digits. Raises: ValueError for anything else."""
    if isinstance(value, str) and INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return value
    raise ValueError("no integer")
