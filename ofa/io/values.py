"""What a value of JSON or of a table says: one rule for captions, answers, labels, ids and numbers.

``str(value)`` would make the words ``None``, ``nan`` and ``{'answer': 'yes'}`` of missing values
and objects, which a model then learns; here they are a ``RowError``: "a caption, found null".
``int`` and ``float`` would read ``1_000``, ``１２`` and ``nan``, and ``1e39``, which is infinite as
float32; here a number is in plain decimal notation and finite.
"""

import argparse
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args

from ofa.errors import UserError
from ofa.io.json_files import load_json

SHOWN = 60  # characters of a value in a message
ID_NUMBER = re.compile(r"0*([0-9]+?)(?:\.0+)?")
SURROGATE = re.compile("[\ud800-\udfff]")  # JSON may have one alone: a pair that was cut in two
DATA = re.compile(r"""\{\s*['"].*\}|\[\s*(?:['"{]|None\b|nan\b).*\]|b'.*'|b".*\"""", re.DOTALL)
TELLING_BOXES = 20  # of which one at least tells corners from widths
# As programs write a missing value.
MISSING = frozenset(("nan", "NaN", "NAN", "null", "NULL", "None", "NA", "N/A", "#N/A", "<NA>"))
DECIMAL = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?\s*")
INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")  # below 2 ** 63
LARGEST = 3.4028234663852886e38  # of a float32
LONGEST = 400  # characters of a number
# of types, in JSON's words
TYPE_NAMES: dict[Any, str] = {
    NoneType: "null",
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
}
SEPARATOR = re.compile(r"\s*[,\s]\s*")  # between the numbers of a box


class RowError(Exception):
    """Why a row cannot be used, without its place: ``a caption, found null``. Args: remedy: what
    often helps many rows at once, said once for them."""

    def __init__(self, reason: str, remedy: str = ""):
        super().__init__(reason + (remedy and f"; {remedy}"))
        self.reason, self.remedy = reason, remedy


class WrittenFloat(float):
    """A number of JSON and its ``text`` there: ``str`` would make ``1.5`` of ``1.50``."""

    text: str

    def __new__(cls, text: str | float):
        number = super().__new__(cls, text)
        number.text = str(text)
        return number


def load_values(text: str | bytes) -> Any:
    """Plain data of JSON, fractions as ``WrittenFloat``. Raises: ValueError as ``load_json``."""
    return load_json(text, fraction=WrittenFloat)


def text_of(value: Any, what: str, *keys: str) -> str:
    """The text of a value.

    Args: what: was expected, for the message: ``a caption``. keys: of an annotation object that
    stands for its text: ``{"answer": "yes", "answer_id": 1}``.
    Raises: RowError if it is no text that UTF-8 can hold and no finite number.
    """
    if isinstance(value, Mapping):
        value = next((value[key] for key in keys if key in value), value)
    if isinstance(value, str):
        if SURROGATE.search(value):
            raise RowError(f"{what}, found half of a character in {ascii(value[:SHOWN])}")
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return getattr(value, "text", repr(float(value)))
    raise RowError(f"{what}, found {finding(value)}")


def words_of(value: Any, what: str, *keys: str) -> str:
    """As ``text_of``, in one line. Raises: RowError also if nothing but spaces is there."""
    text = one_line(text_of(value, what, *keys))
    if not text:
        raise RowError(f"{what}, found an empty text")
    return text


def texts_of(value: Any, what: str, *keys: str) -> list[str]:
    """As ``text_of``, of a list of texts, one text, or null. Raises: RowError."""
    texts = value if isinstance(value, list) else [] if value is None else [value]
    return [text_of(text, what, *keys) for text in texts]


def one_line(text: str) -> str:
    """Text without tabs, line breaks and NUL, so that it is one field of one row."""
    return " ".join(text.replace("\0", "").split())


def finding(value: Any) -> str:
    """A value that is no text, for a message: ``null``, ``NaN``, ``the list [1, 2]``."""
    if isinstance(value, (float, bool)) or value is None:
        return json.dumps(value)
    names: dict[type, str] = {dict: "object", list: "list", tuple: "list"}
    try:
        shown = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        shown = repr(value)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    shown = shown.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"the {names.get(type(value), type(value).__name__)} {shown}"


def not_one_text(text: str) -> str:
    """Who wrote ``nan`` or ``{'answer': 'yes'}`` in a cell of a table; empty for a text."""
    text = text.strip()
    if text in MISSING:
        return "as programs write a missing value"
    return "as Python writes data" if DATA.fullmatch(text) else ""


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


def read_box(value: Any) -> tuple[float, ...]:
    """Four numbers, of a list or a text: ``10,20,30,40``, ``[10 20 30 40]``. Raises: RowError."""
    with suppress(ValueError, RowError):
        text = not isinstance(value, (list, tuple))
        numbers = (
            SEPARATOR.split(text_of(value, "", "box", "bbox").strip("[]() ")) if text else value
        )
        if len(box := tuple(map(read_decimal, numbers))) == 4:
            return box
    shown = repr(value[:SHOWN]) if isinstance(value, str) else finding(value)
    raise RowError(f"a box of four numbers, found {shown}")


def read_integer(value: Any) -> int:
    """``"17"``, ``17`` or ``17.0``, at most 18 digits. Raises: ValueError for anything else."""
    if isinstance(value, str) and INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return value
    raise ValueError("no integer")


def value_as(where: str, value: Any, annotation: Any) -> Any:
    """A value of JSON or of a Python call as the type of an option: 3 and 3.0 are integers, True is
    none. Raises: UserError: ``beam expects an integer, found "three"``."""
    kinds = set(get_args(annotation) or (annotation,))
    if Any in kinds or isinstance(value, bool) and bool in kinds:
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(ValueError):
            if int in kinds and (isinstance(value, Integral) or float not in kinds):
                return read_integer(int(value) if isinstance(value, Integral) else float(value))
            if float in kinds:
                return read_decimal(float(value))
        if float in kinds and not math.isfinite(value):
            raise UserError(f"{where} expects a finite number, found {json.dumps(float(value))}")
    if any(isinstance(value, kind) for kind in kinds & {str, list, dict, NoneType}):
        return value
    names = sorted(TYPE_NAMES.get(kind) or str(getattr(kind, "__name__", kind)) for kind in kinds)
    found = json.dumps(value, default=repr, ensure_ascii=False)[:SHOWN]
    raise UserError(f"{where} expects {' or '.join(names)}, found {found}")


def name_and_value(form: str) -> Callable[[str], tuple[str, str]]:
    """What reads ``NAME=VALUE`` of a command line.

    Args: form: what is expected, with an example: ``NAME=COLUMN, such as image=file_name``.
    """

    def read_pair(text: str) -> tuple[str, str]:
        name, _, value = text.partition("=")
        if not (name and value):
            raise argparse.ArgumentTypeError(f"expected {form}, found {text!r}")
        return name, value

    return read_pair


def in_fractions(box: Sequence[float]) -> bool:
    """Whether a box that should be in pixels has fractions of the image: no number is above 1."""
    return all(0 <= number <= 1 for number in box)


def may_be_xywh(box: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a box that should have corners makes as much sense as x, y, width, height. Args:
    size: of the image, in pixels as the box."""
    fits = all(corner + side <= edge for corner, side, edge in zip(box, box[2:], size))
    return fits and not in_fractions(box)


def id_key(text: str) -> str:
    """One key for ``1``, ``01`` and ``1.0``, which programs take for one id."""
    number = ID_NUMBER.fullmatch(text)
    return number[1] if number else text


class Ids:
    """Ids, each of which may come once. Args: what: they name. remedy: end of the message."""

    REMEDY = "make the ids unique, or give each file an --id-prefix of its own"

    def __init__(self, what: str, remedy: str = REMEDY):
        self.what, self.remedy = what, remedy
        self.first: dict[str, tuple[str, str]] = {}  # key -> id and place

    def add(self, text: str, where: str, prefix: str = "") -> None:
        """Args: prefix: of the ids of this file. Raises: UserError that names both places."""
        key = prefix + id_key(text)
        if key in self.first:
            known, place = self.first[key]
            same = "" if known == text else f", the same number as {known}"
            name = repr(text) if self.what == "id" else f"{self.what} {text}"
            raise UserError(
                f"{where}: expected every {self.what} once, found {name} again{same}, as in"
                f" {place}; {self.remedy}"
            )
        self.first[key] = text, where


def finite(content: Any) -> Any:
    """Plain data in which NaN and inf are null: ``json.dump`` would write what is not JSON."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return content
