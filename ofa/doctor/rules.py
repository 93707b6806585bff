"""The rules of the bytes of a row, and those of every kind of column."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ofa.doctor.boxes import boxes_of, shown_box, turned, upright
from ofa.doctor.rule import QUOTED, REPAIRED, Rule, Settings, empty, fraction, shown
from ofa.doctor.text_rules import (
    ANSWER_RULES,
    CUT,
    EMPTY_CLASS,
    EMPTY_SCENE_TEXT,
    EMPTY_TEXT,
    MISSING,
    TEXT_QUOTED,
    UNKNOWN_PIECES,
)
from ofa.io.values import in_fractions
from ofa.task.columns import Column
from ofa.task.text import JOIN

# --- rows


def plain_row(row: bytes, settings: Settings) -> bool:
    """Whether ``ROW_RULES`` hold at a glance: most rows need no more."""
    tabs = row.count(b"\t")
    return bool(
        row
        and row.isascii()
        and tabs == settings.width - 1
        and b"\r" not in row
        and b"\0" not in row
    )


def _utf8(row: bytes, settings: Settings) -> str:
    try:
        row.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"the byte 0x{row[error.start]:02x} in column {row[: error.start].count(9)}"
    return ""


def _width(row: bytes, settings: Settings) -> str:
    found = row.count(b"\t") + 1
    culprit = "line break" if found < settings.width else "tab"
    return "" if found == settings.width else f"{found}: is there a {culprit} inside a field?"


ROW_RULES = (
    Rule(
        "nul",
        "no NUL bytes",
        "remove them",
        lambda row, _: f"{row.count(0)} in the row" if b"\0" in row else "",
        lambda row: row.replace(b"\0", b""),
    ),
    Rule(
        "carriage-return",
        "no carriage return inside a row",
        "replace it by a space",
        lambda row, _: f"one after {shown(row[: row.index(13)][-20:])}" if b"\r" in row else "",
        lambda row: row.replace(b"\r", b" "),
    ),
    Rule("utf-8", "UTF-8 text", "save the file as UTF-8", _utf8),
    Rule(
        "empty-row",
        "a row of columns",
        "remove the line",
        lambda row, settings: "" if row.strip() else "an empty line",
    ),
    Rule(
        "columns",
        "as many tab-separated columns as the other rows have",
        "write spaces instead of tabs and line breaks inside a field",
        _width,
        with_fix=REPAIRED,
    ),
)

# --- images

BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"


def plain_base64(cell: str) -> bool:
    """Whether ``IMAGE_RULES`` hold at a glance."""
    return (
        len(cell) > 3
        and len(cell) % 4 == 0
        and cell.isascii()
        and not cell.encode().translate(None, BASE64 + b"=")
        and ("=" not in cell[:-2])
    )


def _base64(cell: str, column: Column, settings: Settings) -> str:
    other = re.search(r"[^A-Za-z0-9+/_-]", cell.rstrip("="))
    if other is None:
        return ""
    if len(cell) < 300 and ("." in cell or " " in cell):
        return f"{shown(cell)}: a path or a sentence"
    return f"the character {shown(other[0])} in {shown(cell)}"


def _padding(cell: str, column: Column, settings: Settings) -> str:
    sound = len(cell) % 4 == 0 and not cell.endswith("===")
    return "" if sound else f"{len(cell)} characters: the end is missing"


def _pad(cell: str, column: Column) -> str:
    text = cell.rstrip("=")
    return text + "=" * (-len(text) % 4) if len(text) % 4 != 1 else cell


IMAGE_RULES = (
    Rule("image-empty", "an image in base64", "leave the row out, or give a grey image", empty),
    Rule(
        "bytes-literal",
        "base64 alone",
        "write base64.b64encode(data).decode(), not str()",
        lambda cell, *_: (
            f"{shown(cell[:14])}: Python's notation of bytes" if cell[:2] in ("b'", 'b"') else ""
        ),
        lambda cell, column: re.sub(r"""^b(['"])(.*)\1$""", r"\2", cell, flags=re.DOTALL),
    ),
    QUOTED,
    Rule(
        "data-url",
        "base64 alone",
        "keep only what follows the comma",
        lambda cell, *_: f"{shown(cell[:30])}: a data URL" if cell.startswith("data:") else "",
        lambda cell, column: cell.partition(",")[2],
    ),
    Rule(
        "base64",
        "base64, standard or URL-safe",
        "check --selected-cols, or encode the image again",
        _base64,
        lambda cell, column: re.sub(r"\s+", "", cell) if len(cell) > 300 else cell,
    ),
    Rule(
        "base64-length",
        "base64 padded with = to groups of four",
        "pad it; if it was cut off, encode the image again",
        _padding,
        _pad,
    ),
)

# --- labels and image codes


def _known_label(cell: str, column: Column) -> str:
    label = cell.strip().lower()
    return label if label in column.labels else cell


def _code_numbers(cell: str, column: Column, settings: Settings) -> str:
    other = cell.encode().translate(None, b"0123456789 ").decode("utf-8", "replace")
    if other or not cell:
        return f"the character {other[:1]!r}" if other else "an empty field"
    numbers = np.fromstring(cell, np.int64, sep=" ")  # a third of the time of int() on each
    if len(numbers) != cell.count(" ") + 1:
        return "two spaces in a row, or one at an end"
    largest = np.max(numbers)
    return str(largest) if largest >= settings.num_codes else ""


def _code_count(cell: str, column: Column, settings: Settings) -> str:
    found = cell.count(" ") + 1
    return "" if not settings.codes or found == settings.codes else f"{found}, not {settings.codes}"


LABEL = Rule(
    "label",
    "a label of the task",
    "correct it; is it the file of another data set?",
    lambda cell, column, _: "" if cell in column.labels else shown(cell),
    _known_label,
)
CLASS = Rule(
    "class-known",
    "words of the label file",
    "correct them; is it the label file of another data set?",
    lambda cell, column, settings: (
        "" if settings.answers is None or cell in settings.answers else shown(cell)
    ),
)
CODE_RULES = (
    QUOTED,
    Rule(
        "code-range",
        "numbers from 0 to the number of codes, separated by spaces",
        "make the codes again with the tokenizer of this vocabulary",
        _code_numbers,
        lambda cell, column: " ".join(cell.replace(",", " ").strip(" []").split()),
    ),
    Rule(
        "code-count",
        "as many codes as the image has",
        "make the codes again: 1024 for an image of 256 x 256 pixels, 256 for the middle of it in"
        " pretraining",
        _code_count,
    ),
)

# --- boxes


def _turned_box(cell: str, column: Column, settings: Settings) -> str:
    wrong = next(filter(turned, boxes_of(cell, column.kind) or ()), None)
    return f"{shown_box(wrong)}: turned round or without area" if wrong else ""


def _fractions(cell: str, column: Column, settings: Settings) -> str:
    boxes = boxes_of(cell, column.kind)
    return f"{cell[:40]}: less than one pixel" if boxes and all(map(in_fractions, boxes)) else ""


BOX_RULES = (
    QUOTED,
    Rule(
        "box-grammar",
        "a box x0,y0,x1,y1 of four numbers",
        "write pixels of the image, separated by commas",
        lambda cell, column, _: shown(cell) if boxes_of(cell, column.kind) is None else "",
    ),
    Rule(
        "box-order",
        "x0 < x1 and y0 < y1",
        "write left,top,right,bottom; width and height are no corners",
        _turned_box,
        lambda cell, column: upright(cell, column.kind),
    ),
    Rule(
        "box-fraction",
        "a box in pixels",
        "if these are fractions of the image, multiply them by its width and height",
        _fractions,
        note=True,
    ),
)
BOXES_GRAMMAR = replace(BOX_RULES[1], expects=f"objects x0,y0,x1,y1,category,name joined by {JOIN}")

# --- by kind

GLANCES: dict[str, Callable[[str], bool]] = {"image": plain_base64}  # kind -> do its rules hold?
RULES: dict[str, tuple[Rule, ...]] = {
    "id": (
        Rule("id-empty", "an id", "give every row an id", empty),
        QUOTED,
        Rule(
            "id-float",
            "an id as it is",
            "read ids as text (pandas: dtype=str)",
            lambda cell, *_: shown(cell) if cell.endswith(".0") and cell[:-2].isdecimal() else "",
            lambda cell, column: cell[:-2],
        ),
    ),
    "image": IMAGE_RULES,
    "image_codes": CODE_RULES,
    "box": BOX_RULES,
    "boxes": (QUOTED, BOXES_GRAMMAR, *BOX_RULES[2:]),
    "confidence": (Rule("confidence", "a number from 0 to 1", "correct the number", fraction),),
    "label": (QUOTED, LABEL),
    "class": (EMPTY_CLASS, CLASS),
    "answer": (*ANSWER_RULES, MISSING, CUT["answer"]),
}


def rules_of(column: Column) -> tuple[Rule, ...]:
    """The rules of a column, in order; after a fault the later rules of a cell are not asked.

    A text that may be empty and is not predicted may be anything.
    """
    if column.kind in ("text", "texts"):
        if not (column.target or column.needed):
            return ()
        words = EMPTY_SCENE_TEXT if column.scene_text else EMPTY_TEXT
        cut = CUT["target" if column.target else "source"]
        return TEXT_QUOTED, words, MISSING, cut, UNKNOWN_PIECES
    return RULES["class" if column.kind == "label" and not column.labels else column.kind]
