"""Who breaks the rules of a row's bytes and of its cells, by the kind of their column.

A check yields (name of a rule, finding) in order. It is not asked on after a fault, only after
notes: what comes later may rely on what came before.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ofa.doctor.rule import RULES, shown
from ofa.doctor.schemas import Settings, language
from ofa.io.values import in_fractions, not_one_text, read_decimal
from ofa.task.columns import Column
from ofa.task.text import CHINESE, CONFIDENCE, JOIN, has_words, learned_answer

Faults = Iterator[tuple[str, str]]
Box = tuple[float, ...]  # x0, y0, x1, y1

BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="
UNK = ("<unk>", "[UNK]")  # what a BPE writes for characters that it does not know
EMPTY = "an empty field"

best_answer = lru_cache(1)(learned_answer)  # a row is asked for it twice


def row_faults(row: bytes, width: int) -> Faults:
    """What keeps a row from being taken apart. Args: width: columns of every row."""
    if b"\0" in row:
        yield "nul", f"{row.count(0)} in the row"
    if b"\r" in row:
        yield "carriage-return", f"one after {shown(row[: row.index(13)][-20:])}"
    try:
        row.decode("utf-8")
    except UnicodeDecodeError as error:
        before = row[: error.start]
        yield "utf-8", f"the byte 0x{row[error.start]:02x} in column {before.count(9)}"
    if not row.strip():
        yield "empty-row", "an empty line"
    if (found := row.count(b"\t") + 1) != width:
        culprit = "line break" if found < width else "tab"
        yield "columns", f"{found}: is there a {culprit} inside a field?"


def cell_faults(cell: str, column: Column, settings: Settings) -> Faults:
    """What is wrong with a cell."""
    if len(cell) > 1 and cell[0] in "\"'" and cell[0] == cell[-1]:
        if column.kind not in ("text", "texts") and (column.labels or column.kind != "label"):
            yield "quoted", shown(cell)  # words may stand in quotes
    yield from CHECKS[column.kind](cell, column, settings)


def id_faults(cell: str, column: Column, settings: Settings) -> Faults:
    if not cell.strip():
        yield "id-empty", EMPTY
    if cell.endswith(".0") and cell[:-2].isdecimal():
        yield "id-float", shown(cell)


def image_faults(cell: str, column: Column, settings: Settings) -> Faults:
    whole = len(cell) % 4 == 0 and len(cell) > 3 and cell.isascii() and "=" not in cell[:-2]
    if whole and not cell.encode().translate(None, BASE64):  # most are, at a glance
        return
    if not cell.strip():
        yield "image-empty", EMPTY
    if cell.startswith(("b'", 'b"')):
        yield "bytes-literal", f"{shown(cell[:14])}: Python's notation of bytes"
    if cell.startswith("data:"):
        yield "data-url", f"{shown(cell[:30])}: a data URL"
    if other := re.search(r"[^A-Za-z0-9+/_-]", cell.rstrip("=")):
        is_text = len(cell) < 300 and ("." in cell or " " in cell)
        character = f"the character {shown(other[0])} in {shown(cell)}"
        yield "base64", f"{shown(cell)}: a path or a sentence" if is_text else character
    if len(cell) % 4 or cell.endswith("==="):
        yield "base64-length", f"{len(cell)} characters: the end is missing"


def code_faults(cell: str, column: Column, settings: Settings) -> Faults:
    if not cell:
        yield "code-range", EMPTY
    if other := cell.encode().translate(None, b"0123456789 "):
        yield "code-range", f"the character {other.decode('utf-8', 'replace')[0]!r}"
    codes = np.fromstring(cell, np.int64, sep=" ")  # a third of the time of int() on each
    if len(codes) != cell.count(" ") + 1:
        yield "code-range", "two spaces in a row, or one at an end"
    if (largest := np.max(codes)) >= settings.num_codes:
        yield "code-range", str(largest)
    if settings.codes and len(codes) != settings.codes:
        yield "code-count", f"{len(codes)}, not {settings.codes}"


def label_faults(cell: str, column: Column, settings: Settings) -> Faults:
    """A label of the task, or the words of any class."""
    if column.labels:
        if cell not in column.labels:
            yield "label", shown(cell)
    elif not cell.strip():
        yield "text-empty", EMPTY
    elif settings.answers is not None and cell not in settings.answers:
        yield "class-known", shown(cell)


def confidence_faults(cell: str, column: Column, settings: Settings) -> Faults:
    if not is_fraction(cell):
        yield "confidence", shown(cell)


def is_fraction(cell: str) -> bool:
    try:
        return 0 <= read_decimal(cell) <= 1
    except ValueError:
        return False


def box_faults(cell: str, column: Column, settings: Settings) -> Faults:
    boxes = boxes_of(cell, column.kind)
    if not boxes:
        yield f"box-grammar/{column.kind}", shown(cell)
        return
    if wrong := next(filter(has_no_area, boxes), None):
        yield "box-order", f"{shown_box(wrong)}: turned round or without area"
    if all(map(in_fractions, boxes)):
        yield "box-fraction", f"{cell[:40]}: less than one pixel"


def answer_faults(cell: str, column: Column, settings: Settings) -> Faults:
    for part in cell.split(JOIN):
        confidence, separator, answer = part.rpartition(CONFIDENCE)
        if not separator:
            yield "answer-grammar", f"{shown(part)} without a confidence"
        if not answer.strip():
            yield "answer-grammar", f"{shown(part)} without an answer"
        if CONFIDENCE in confidence:
            yield "answer-grammar", f"{shown(part)} with two confidences: is {JOIN} missing?"
    for confidence, _ in parts_of(cell):
        if not is_fraction(confidence):
            yield "answer-confidence", shown(confidence)
    best = best_answer(cell)
    if settings.answers is not None and not settings.evaluation and best not in settings.answers:
        yield "answer-unseen" if settings.held_out else "answer-known", shown(best)
    yield from text_notes(best, "cut-answer", column, settings)


def text_faults(cell: str, column: Column, settings: Settings) -> Faults:
    """A text that may be empty and is not predicted may be anything."""
    if not (column.target or column.needed):
        return
    inner = cell[1:-1]
    # a text may stand in quotes; that its own quotes are doubled gives a CSV writer away
    if cell[:1] == cell[-1:] == '"' and '"' in inner and '"' not in inner.replace('""', ""):
        yield "quoted", shown(cell)
    if not cell.strip():
        yield "text-empty/scene" if column.scene_text else "text-empty", EMPTY
    is_text = column.scene_text or cell[:1].isalnum() or any(map(has_words, cell.split(JOIN)))
    if not is_text:
        yield "text-empty", f"{shown(cell)}: nothing but punctuation"
    yield from text_notes(cell, "cut-target" if column.target else "cut-source", column, settings)
    if settings.bpe_dir:
        bpe, vocabulary = language(settings.bpe_dir)
        text = column.clean(cell) if column.scene_text else cell
        pieces = filter(None, bpe.encode(f" {text}").split(" "))
        if count := sum(piece in UNK or piece not in vocabulary for piece in pieces):
            yield "unknown-pieces", f"{count} in {shown(text)}"


def text_notes(text: str, cut: str, column: Column, settings: Settings) -> Faults:
    """Several texts of a target are references, which are never cut; of a Chinese text on an
    image characters are counted."""
    if kind := not_one_text(text):
        yield "text-missing", f"{shown(text.strip())}, {kind}"
    kept = (settings.max_tgt if column.target else settings.max_src) or column.max_words
    if not kept or (column.kind == "texts" and JOIN in text):
        return
    count, unit = 0, "words"
    if column.scene_text and CHINESE.search(text):
        count, unit = len(column.clean(text)), "characters"
    elif len(text) >= 2 * kept:  # a word and its space take two characters at least
        count = len(column.clean(text).split())
    if count > kept:
        yield cut, f"{count} {unit}, of which {kept} are kept"


CHECKS: dict[str, Callable[[str, Column, Settings], Faults]] = {
    "id": id_faults,
    "image": image_faults,
    "image_codes": code_faults,
    "box": box_faults,
    "boxes": box_faults,
    "confidence": confidence_faults,
    "label": label_faults,
    "answer": answer_faults,
    "text": text_faults,
    "texts": text_faults,
}

# --- repairs


def parts_of(cell: str) -> list[tuple[str, str]]:
    """(confidence, answer) as texts; the confidence is empty where there is no separator."""
    parts = (part.rpartition(CONFIDENCE) for part in cell.split(JOIN))
    return [(confidence, answer) for confidence, _, answer in parts]


def with_confidences(cell: str, *_: Any) -> str:
    parts = [(sure or "1.0", answer) for sure, answer in parts_of(cell) if answer.strip()]
    return JOIN.join(f"{sure}{CONFIDENCE}{answer}" for sure, answer in parts)


def padded(cell: str, *_: Any) -> str:
    text = cell.rstrip("=")
    return text + "=" * (-len(text) % 4) if len(text) % 4 != 1 else cell


def known_label(cell: str, column: Column, _: Settings) -> str:
    label = cell.strip().lower()
    return label if label in column.labels else cell


def upright(cell: str, column: Column, _: Settings) -> str:
    """The column with the corners of its boxes in order."""
    return with_boxes(
        cell, column.kind, lambda box: (*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:]))
    )


REPAIRS: dict[str, Callable] = {  # arguments as of the check
    "nul": lambda row, _: row.replace(b"\0", b""),
    "carriage-return": lambda row, _: row.replace(b"\r", b" "),
    "quoted": lambda cell, *_: cell[1:-1].replace('""', '"'),
    "id-float": lambda cell, *_: cell[:-2],
    "label": known_label,
    "bytes-literal": lambda cell, *_: re.sub(r"""^b(['"])(.*)\1$""", r"\2", cell, flags=re.DOTALL),
    "data-url": lambda cell, *_: cell.partition(",")[2],
    "base64": lambda cell, *_: re.sub(r"\s+", "", cell) if len(cell) > 300 else cell,
    "base64-length": padded,
    "code-range": lambda cell, *_: " ".join(cell.replace(",", " ").strip(" []").split()),
    "box-order": upright,
    "answer-grammar": with_confidences,
}


def first_fault(faults: Faults) -> str:
    """The name of its rule; empty if there are none but notes."""
    return next((rule for rule, _ in faults if not RULES[rule].note), "")


def repaired(content: Any, check: Callable[..., Faults], *context: Any) -> Any:
    """A row, or a cell, after every repair that its faults ask for, up to the first that stays.

    Args: context: what ``check`` is told besides.
    """
    asked = ""
    while (rule := first_fault(check(content, *context))) != asked and rule in REPAIRS:
        content, asked = REPAIRS[rule](content, *context), rule
    return content


# --- boxes


def boxes_of(cell: str, kind: str) -> list[Box] | None:
    """The boxes of a column; None if it is none. Args: kind: ``box``, ``x0,y0,x1,y1``, or
    ``boxes``, ``x0,y0,x1,y1,category,name&&...``."""
    boxes: list[Box] = []
    for part in [cell] if kind == "box" else cell.split(JOIN):
        fields = part.split(",", 5)
        if len(fields) != (4 if kind == "box" else 6) or not fields[-1].strip():
            return None
        try:
            boxes.append(tuple(map(read_decimal, fields[:4])))
        except ValueError:
            return None
    return boxes


def has_no_area(box: Box) -> bool:
    """As it stands."""
    return box[0] >= box[2] or box[1] >= box[3]


def shown_box(box: Iterable[float]) -> str:
    return ",".join(f"{number:g}" for number in box)


def with_boxes(cell: str, kind: str, change: Callable[[Box], Box | None]) -> str:
    """The column with other boxes; an object whose box becomes None is left out."""
    kept = []
    for part, old in zip([cell] if kind == "box" else cell.split(JOIN), boxes_of(cell, kind) or ()):
        if box := change(old):
            kept.append(",".join([*(repr(round(x, 4)) for x in box), *part.split(",", 4)[4:]]))
    return JOIN.join(kept)


def clipped(cell: str, kind: str, size: tuple[int, int]) -> str:
    """The column with boxes cut off at the border; objects wholly outside are left out."""

    def cut(box: Box) -> Box | None:
        inside = (max(box[0], 0.0), max(box[1], 0.0), *map(min, box[2:], map(float, size)))
        return None if has_no_area(inside) else inside

    return with_boxes(cell, kind, cut)
