"""The cells of one row of people's own table, as the files of a task have them: one rule per kind
of column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.image_files import image_size
from ofa.io.numbers import read_decimal
from ofa.io.values import RowError, finding, in_fractions, one_line, text_of, words_of
from ofa.prepare.answer_column import answer_column, answer_of, confidences
from ofa.prepare.dataset import box_cell, refuse_fractions
from ofa.prepare.tsv_writer import IMAGE, ImagePath
from ofa.task.columns import Column
from ofa.task.text import CONFIDENCE, JOIN, parse_answers

CORNERS = ("x0", "y0", "x1", "y1")  # instead of a column ``box``


@dataclass(frozen=True)
class TableRow:
    """A row of the table, under the task's names of the columns.

    Args:
        where: ``photos.csv:17``. image: path of the (first) image. others: column -> path of a
            further image.
        number: of the row, its default id. prefix: of ids.
        box_format: as of ``TableOptions``. keep_case: answers stay as they are typed.
    """

    where: str
    values: Mapping[str, Any]
    number: int = 0
    prefix: str = ""
    box_format: str = "xyxy"
    keep_case: bool = False
    split: str = ""
    image: str = ""
    others: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Of a column that may be missing or null. Raises: RowError for what is no text."""
        value = self.values.get(name)
        return "" if value is None else one_line(text_of(value, f"a text as {name!r}", name))

    def value(self, column: Column) -> Any:
        """Of the task's column, under any of its names; None if it is missing or null."""
        found = (self.values.get(name) for name in (column.public_name, *column.names))
        return next((value for value in found if value is not None), None)

    @property
    def image_id(self) -> str:
        return self.prefix + (self.text("image_id") or Path(self.image).stem)

    @property
    def uniq_id(self) -> str:
        return self.prefix + (self.text("id") or str(self.number))


def cell_of(row: TableRow, column: Column) -> str:
    """A column of a row as a TSV has it. Raises: RowError that says what was expected."""
    value = row.value(column)
    if column.kind == "id":
        return row.uniq_id
    if column.kind == "image":
        return ImagePath(row.others[column.name]) if column.name in row.others else IMAGE
    if column.kind == "box":
        return box_of(row, value)
    if value is None and not column.needed:
        return ""
    if column.kind == "texts":
        return JOIN.join(texts_of(row, column))
    if column.kind == "answer":
        return answers_of(row, value)
    if column.kind == "boxes":
        return objects_of(row, value)
    if column.kind == "confidence":
        return confidence_of(value, column.public_name)
    return words_in(value, column)


def words_in(value: Any, column: Column) -> str:
    """A text, or one of the column's labels."""
    name = column.public_name
    if column.may_be_empty:
        text = one_line(text_of(value, f"a text as {name!r}", name))
    else:
        text = words_of(value, f"a {name}", name)
    if not column.labels:
        return text
    label = column.label_of(text)
    if label is None:
        raise RowError(f"a {name} ({', '.join(column.labels)}), found {text!r}")
    return label


def texts_of(row: TableRow, column: Column) -> list[str]:
    """A list of texts, or a text of parts joined by ``&&``; empty ones are left out."""
    value, name = row.value(column), column.public_name
    parts = value if isinstance(value, list) else text_of(value, f"a {name}", name).split(JOIN)
    texts = (one_line(text_of(part, f"a {name}", name, "raw")) for part in parts)
    return [text for text in texts if text]


def confidence_of(value: Any, name: str) -> str:
    score = _score(value)
    if not 0 <= score <= 1:
        raise RowError(f"a number from 0 to 1 as {name!r}, found {finding(value)}")
    return str(score)


def _score(value: Any) -> float:
    try:
        return read_decimal(value)
    except ValueError:
        raise RowError(f"answers with confidences from 0 to 1, found {finding(value)}") from None


def answers_of(row: TableRow, value: Any) -> str:
    """Of one answer, of several people's, or of answers with confidences: a JSON object, or as a
    TSV has them."""
    same = str if row.keep_case else str.lower
    if isinstance(value, dict) and "answer" not in value:
        scored = [(answer_of(answer), _score(score)) for answer, score in value.items()]
    elif isinstance(value, str) and CONFIDENCE in value:
        try:
            parsed = parse_answers(value)
        except UserError as error:
            raise RowError(str(error).removeprefix("expects ")) from None
        scored = [(answer_of(answer), score) for answer, score in parsed.items()]
    else:
        several = isinstance(value, list)
        parts = value if several else text_of(value, "an answer", "answer").split(JOIN)
        given = [part for part in parts if not isinstance(part, str) or part.strip()]
        answers = [same(answer_of(part)) for part in given]
        scored = list(confidences(answers).items()) if answers else []
    scores: dict[str, float] = {}
    for answer, score in scored:
        scores[same(answer)] = max(score, scores.get(same(answer), score))
    if not scores:
        raise RowError("an answer, found an empty text")
    if not all(0 <= score <= 1 for score in scores.values()):
        raise RowError(f"answers with confidences from 0 to 1, found {finding(value)}")
    return answer_column(scores)


def box_of(row: TableRow, value: Any) -> str:
    """Four numbers as a list or a text, or those of the columns ``x0 y0 x1 y1``."""
    try:
        if value is None:
            numbers = [row.values[name] for name in CORNERS]
        elif isinstance(value, list):
            numbers = value
        else:
            numbers = text_of(value, "a box", "box", "bbox").strip("[] ").split(",")
        box = list(map(read_decimal, numbers))
    except (ValueError, KeyError, RowError):
        box = []
    if len(box) != 4:
        shown = repr(value[:60]) if isinstance(value, str) else finding(value)
        raise RowError(f"a box of four numbers, found {shown}")
    size = image_size(row.image)
    if not all(size):
        return "0,0,0,0"  # broken images are named later
    return box_cell(corners_in_pixels(box, row.box_format, size), size)


def corners_in_pixels(
    box: Sequence[float], box_format: str, size: tuple[int, int]
) -> Sequence[float]:
    """xyxy in pixels. Args: size: width and height of the image. Raises: RowError for numbers that
    cannot be of this format."""
    corners, _, norm = box_format.partition("_")
    if norm and not in_fractions(box):
        raise RowError(
            f"a box of fractions from 0 to 1, as --box-format {box_format} says, found"
            f" {','.join(f'{number:g}' for number in box)}"
        )
    if corners == "xywh":
        if not norm:
            refuse_fractions(box)
        box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    return [number * side for number, side in zip(box, (*size, *size))] if norm else box


def objects_of(row: TableRow, value: Any) -> str:
    """Objects ``{"box": [...], "label": "dog"}``, or a text as a TSV has it."""
    if not isinstance(value, list):
        return words_of(value, "a list of objects", "objects")
    parts = []
    for number, one in enumerate(value):
        if not isinstance(one, Mapping):
            raise RowError(
                f'objects such as {{"box": [0, 0, 9, 9], "label": "dog"}}, found {finding(one)}'
            )
        words = words_of(one.get("label"), "a label of an object", "label").replace(JOIN, "&")
        parts.append(f"{box_of(replace(row, values=one), one.get('box'))},{number},{words}")
    return JOIN.join(parts)
