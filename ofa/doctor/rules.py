"""The table of rules: those of the bytes of a row, and those of every kind of column."""

from ofa.doctor.field_rules import (
    CLASS_RULES,
    CODE_RULES,
    CONFIDENCE_RULES,
    ID_RULES,
    IMAGE_RULES,
    box_rules,
    label_rules,
    plain_base64,
)
from ofa.doctor.rule import Rule, Settings, shown
from ofa.doctor.text_rules import answer_rules, text_rules
from ofa.task.columns import Column
from ofa.task.text import JOIN


def _carriage_return(row: bytes, settings: Settings) -> str:
    return f"one after {shown(row[: row.index(13)][-20:])}" if b"\r" in row else ""


def _nul(row: bytes, settings: Settings) -> str:
    return f"{row.count(0)} in the row" if b"\0" in row else ""


def _utf8(row: bytes, settings: Settings) -> str:
    try:
        row.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"the byte 0x{row[error.start]:02x} in column {row[: error.start].count(9)}"
    return ""


def _empty_row(row: bytes, settings: Settings) -> str:
    return "" if row.strip() else "an empty line"


def _width(row: bytes, settings: Settings) -> str:
    found = row.count(b"\t") + 1
    if found == settings.width:
        return ""
    return (
        f"{found}: is there a {'line break' if found < settings.width else 'tab'} inside a field?"
    )


ROW_RULES = (
    Rule("nul", "no NUL bytes", _nul, "remove them", lambda row, _: row.replace(b"\0", b"")),
    Rule(
        "carriage-return",
        "no carriage return inside a row",
        _carriage_return,
        "replace it by a space",
        lambda row, _: row.replace(b"\r", b" "),
    ),
    Rule("utf-8", "UTF-8 text", _utf8, "save the file as UTF-8"),
    Rule("empty-row", "a row of columns", _empty_row, "remove the line"),
    Rule(
        "columns",
        "as many tab-separated columns as the other rows have",
        _width,
        "write spaces instead of tabs and line breaks inside a field",
    ),
)


def plain_row(row: bytes, settings: Settings) -> bool:
    """Whether ``ROW_RULES`` hold at a glance: most rows need no more."""
    return (
        row.isascii()
        and row.count(b"\t") == settings.width - 1
        and not (b"\r" in row or b"\0" in row)
        and row != b""
    )


def rules_of(column: Column) -> tuple[Rule, ...]:
    """The rules of a column, in order; after a fault the later rules of a cell are not asked."""
    if column.kind in ("text", "texts"):
        return text_rules(column)
    if column.kind == "label":
        return label_rules(column) if column.labels else CLASS_RULES
    return answer_rules(column) if column.kind == "answer" else RULES[column.kind]


RULES = {
    "id": ID_RULES,
    "image": IMAGE_RULES,
    "image_codes": CODE_RULES,
    "box": box_rules("box", "a box x0,y0,x1,y1 of four numbers"),
    "boxes": box_rules("boxes", f"objects x0,y0,x1,y1,category,name joined by {JOIN}"),
    "confidence": CONFIDENCE_RULES,
}
GLANCES = {"image": plain_base64}  # kind of column -> whether its rules hold at a glance
