"""Rules of images, ids, labels, image codes and boxes."""

import re
from functools import partial

import numpy as np

from ofa.doctor.boxes import boxes_of, turned, upright
from ofa.doctor.rule import QUOTED, Rule, Settings, empty, shown
from ofa.io.numbers import read_decimal
from ofa.io.values import in_fractions
from ofa.task.columns import Column

# -------------------------------------------------------------------------------------------
# images

BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
LITERAL = re.compile(r"""^b(['"])(.*)\1$""", re.DOTALL)


def _bytes_literal(cell: str, settings: Settings) -> str:
    return (
        f"{shown(cell[:14])}: Python's notation of bytes" if cell.startswith(("b'", 'b"')) else ""
    )


def _unwrap_literal(cell: str, settings: Settings) -> str:
    match = LITERAL.match(cell)
    return match[2] if match else cell


def _data_url(cell: str, settings: Settings) -> str:
    return f"{shown(cell[:30])}: a data URL" if cell.startswith("data:") else ""


def _base64(cell: str, settings: Settings) -> str:
    try:
        others: str | bytes = cell.rstrip("=").encode("ascii").translate(None, BASE64)
    except UnicodeEncodeError:
        others = re.sub(r"[A-Za-z0-9+/_-]", "", cell)
    if not others:
        return ""
    if len(cell) < 300 and ("." in cell or " " in cell):
        return f"{shown(cell)}: a path or a sentence"
    return f"the character {shown(others[:1])} in {shown(cell)}"


def _padding(cell: str, settings: Settings) -> str:
    return (
        f"{len(cell)} characters: the end is missing"
        if len(cell) % 4 or cell.endswith("===")
        else ""
    )


def _pad(cell: str, settings: Settings) -> str:
    text = cell.rstrip("=")
    return text + "=" * (-len(text) % 4) if len(text) % 4 != 1 else cell


def plain_base64(cell: str) -> bool:
    """Whether ``IMAGE_RULES`` hold at a glance."""
    return (
        len(cell) > 3
        and len(cell) % 4 == 0
        and cell.isascii()
        and not cell.encode().translate(None, BASE64 + b"=")
        and ("=" not in cell[:-2])
    )


IMAGE_RULES = (
    Rule("image-empty", "an image in base64", empty, "leave the row out, or give a grey image"),
    Rule(
        "bytes-literal",
        "base64 alone",
        _bytes_literal,
        "write base64.b64encode(data).decode(), not str()",
        _unwrap_literal,
    ),
    QUOTED,
    Rule(
        "data-url",
        "base64 alone",
        _data_url,
        "keep only what follows the comma",
        lambda cell, _: cell.partition(",")[2],
    ),
    Rule(
        "base64",
        "base64, standard or URL-safe",
        _base64,
        "check --selected-cols, or encode the image again",
        lambda cell, _: re.sub(r"\s+", "", cell) if len(cell) > 300 else cell,
    ),
    Rule(
        "base64-length",
        "base64 padded with = to groups of four",
        _padding,
        "pad it; if it was cut off, encode the image again",
        _pad,
    ),
)

# ---------------------------------------------------------------------------------- ids, labels,
# codes


def _float_id(cell: str, settings: Settings) -> str:
    return shown(cell) if cell.endswith(".0") and cell[:-2].isdecimal() else ""


def _label(cell: str, settings: Settings, column: Column) -> str:
    return "" if cell in column.labels else shown(cell)


def _known_label(cell: str, settings: Settings, column: Column) -> str:
    return cell.strip().lower() if cell.strip().lower() in column.labels else cell


def _class_words(cell: str, settings: Settings) -> str:
    return "" if settings.answers is None or cell in settings.answers else shown(cell)


def _confidence(cell: str, settings: Settings) -> str:
    try:
        return "" if 0 <= read_decimal(cell) <= 1 else shown(cell)
    except ValueError:
        return shown(cell)


def _code_numbers(cell: str, settings: Settings) -> str:
    other = cell.encode().translate(None, b"0123456789 ").decode("utf-8", "replace")
    if other or not cell:
        return f"the character {other[:1]!r}" if other else "an empty field"
    numbers = np.fromstring(cell, np.int64, sep=" ")  # a third of the time of int() on each
    if len(numbers) != cell.count(" ") + 1:
        return "two spaces in a row, or one at an end"
    largest = np.max(numbers)
    return str(largest) if largest >= settings.num_codes else ""


def _plain_codes(cell: str, settings: Settings) -> str:
    return " ".join(cell.replace(",", " ").strip(" []").split())


def _code_count(cell: str, settings: Settings) -> str:
    found = cell.count(" ") + 1
    return "" if not settings.codes or found == settings.codes else f"{found}, not {settings.codes}"


ID_RULES = (
    Rule("id-empty", "an id", empty, "give every row an id"),
    QUOTED,
    Rule(
        "id-float",
        "an id as it is",
        _float_id,
        "read ids as text (pandas: dtype=str)",
        lambda cell, _: cell[:-2],
    ),
)
CONFIDENCE_RULES = (Rule("confidence", "a number from 0 to 1", _confidence, "correct the number"),)


def label_rules(column: Column) -> tuple[Rule, ...]:
    """Of a column that names its labels."""
    fix = "correct it; is it the file of another data set?"
    return QUOTED, Rule(
        "label",
        "a label of the task",
        partial(_label, column=column),
        fix,
        partial(_known_label, column=column),
    )


CLASS_RULES = (
    Rule("text-empty", "words", empty, "fill it in, or remove the row"),
    Rule(
        "class-known",
        "words of the label file",
        _class_words,
        "correct them; is it the label file of another data set?",
    ),
)
CODE_RULES = (
    QUOTED,
    Rule(
        "code-range",
        "numbers from 0 to the number of codes, separated by spaces",
        _code_numbers,
        "make the codes again with the tokenizer of this vocabulary",
        _plain_codes,
    ),
    Rule(
        "code-count",
        "as many codes as the image has",
        _code_count,
        "make the codes again: 1024 for an image of 256 x 256 pixels, 256 for the middle of it in"
        " pretraining",
    ),
)

# ----------------------------------------------------------------------------------------------
# boxes


def _box_grammar(cell: str, settings: Settings, kind: str) -> str:
    return shown(cell) if boxes_of(cell, kind) is None else ""


def _turned_boxes(cell: str, settings: Settings, kind: str) -> str:
    wrong = [box for box in boxes_of(cell, kind) or () if turned(box)]
    return (
        f"{','.join(f'{number:g}' for number in wrong[0])}: turned round or without area"
        if wrong
        else ""
    )


def _upright_boxes(cell: str, settings: Settings, kind: str) -> str:
    return upright(cell, kind)


def _fractions(cell: str, settings: Settings, kind: str) -> str:
    boxes = boxes_of(cell, kind)
    return f"{cell[:40]}: less than one pixel" if boxes and all(map(in_fractions, boxes)) else ""


def box_rules(kind: str, grammar: str) -> tuple[Rule, ...]:
    return (
        QUOTED,
        Rule(
            "box-grammar",
            grammar,
            partial(_box_grammar, kind=kind),
            "write pixels of the image, separated by commas",
        ),
        Rule(
            "box-order",
            "x0 < x1 and y0 < y1",
            partial(_turned_boxes, kind=kind),
            "write left,top,right,bottom; width and height are no corners",
            partial(_upright_boxes, kind=kind),
        ),
        Rule(
            "box-fraction",
            "a box in pixels",
            partial(_fractions, kind=kind),
            "if these are fractions of the image, multiply them by its width and height",
            note=True,
        ),
    )
