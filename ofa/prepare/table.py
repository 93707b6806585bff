"""Rows under a task's names of its columns -> the files of the task: one rule per kind of column.

TableRow("a.jsonl:7", {"id": "7", "text": "left dog", "box": [1, 2, 3, 4]}, image="img/a.jpg")
7 <tab> a <tab> left dog <tab> 1.0,2.0,3.0,4.0 <tab> /9j/4AAQ...   for the task ``refcoco``
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa.errors import UserError
from ofa.io.image_files import stored_form, turned_box
from ofa.io.images import upright_size
from ofa.io.values import (
    TELLING_BOXES,
    RowError,
    finding,
    in_fractions,
    may_be_xywh,
    one_line,
    read_box,
    read_decimal,
    text_of,
    words_of,
)
from ofa.prepare.annotations import Problems
from ofa.prepare.answer_column import (
    answer_column,
    answer_of,
    confidences,
    note_answers,
    number_answers,
)
from ofa.prepare.dataset import PreparedDataset, label_text, split_at_random
from ofa.prepare.source import SPLITS
from ofa.prepare.tsv_writer import CAPTION_KINDS, IMAGE, CaptionedImage, ImagePath
from ofa.task.answers import ANSWER_SET, CLASS_SET
from ofa.task.columns import Column
from ofa.task.text import CONFIDENCE, JOIN, learned_answer, objects_field, parse_answers

if TYPE_CHECKING:
    # imports torch: what only reads tables starts without it
    from ofa.task.task_spec import TaskSpec

logger = logging.getLogger(__name__)

CORNERS = ("x0", "y0", "x1", "y1")  # instead of a column ``box``
# pixels by which annotated boxes may leave the image (COCO's do, by rounding): they are clipped
BEYOND = 1.0

FormOf = Callable[[str], tuple[tuple[int, int], int]]  # as ``stored_form``
Filled = list[tuple[str, list[str]]]  # image and cells of rows


@dataclass(frozen=True)
class TableRow:
    """A row of the table, under the task's names of the columns.

    Args:
        where: ``photos.csv:17``. number: of the row, its default id. prefix: of ids.
        image: path of the (first) image. others: column -> path of a further image.
        size: width and height of the image as it is annotated: the box is one of stored pixels.
        box_format: as of ``TableOptions``. keep_case: answers stay as they are typed.
    """

    where: str
    values: Mapping[str, Any]
    split: str = "train"
    image: str = ""
    size: tuple[int, int] | None = None
    number: int = 0
    prefix: str = ""
    box_format: str = "xyxy"
    keep_case: bool = True
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


def dataset_of(
    spec: "TaskSpec | str",
    rows: Iterable[TableRow],
    problems: Problems,
    options: Any,
    inputs: Sequence[str],
    name: str = "",
    choose_answers: Callable[[Filled], Mapping[str, int]] | None = None,
) -> PreparedDataset:
    """The files of a task, one per split.

    Args:
        options: ``val_fraction``, if there is one, divides the rows by image.
        inputs: the annotation files that were read.
        name: how the files are called, if not as the task says: ``refcocog_{}.tsv``.
        choose_answers: training rows, which it may change -> the answer set; None: all they teach.
    """
    if isinstance(spec, str):
        from ofa.tasks import spec_of

        spec = spec_of(spec)
    columns, rows, found = file_columns(spec), list(rows), PreparedDataset(inputs=inputs)
    parts = {split: [row for row in rows if row.split == split] for split in SPLITS}
    if getattr(options, "val_fraction", None) is not None:
        by_image = [row.image or row.where for row in rows]
        parts = split_at_random(rows, by_image, options.val_fraction, options.seed)
    if holds_captions(columns):
        splits = {
            split: captioned(parts[split], columns[2], problems)
            for split in ("train", "val", "test")
        }
        found.add_captions(splits, spec.files[0])
        return found
    filled = {split: fill(part, columns, problems) for split, part in parts.items()}
    found.sizes = {row.image: row.size for row in rows if row.size}
    problems.settle()
    note_answers(columns, [cells for _, cells in filled["train"]])
    number_classes(found, columns, filled, choose_answers)
    for split, part in filled.items():
        end = spec.usage.validation if split == "val" and not name else split
        file = (name or f"{spec.files[0]}_{{}}.tsv").format(end)
        if part and spec.has("image"):
            found.add_rows(file, part, f"{split}_rows")
        elif part:
            found.readers[file] = partial(_cells, part)
    return found


def file_columns(spec: "TaskSpec") -> dict[int, Column]:
    """Number in the files that are written -> column."""
    numbers = spec.numbers()
    return dict(zip(numbers.values(), spec.columns_named(numbers), strict=True))


def holds_captions(columns: Mapping[int, Column]) -> bool:
    """Whether the files are those of a captioning data set."""
    return {number: column.kind for number, column in columns.items()} == CAPTION_KINDS


def captioned(rows: Sequence[TableRow], column: Column, problems: Problems) -> list[CaptionedImage]:
    """One image with all its captions, in the order of the file."""
    captions: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        with problems.at(row.where):
            unlabeled = row.split == "test" and is_empty(row, column, row.value(column))
            texts = [] if unlabeled else texts_of(row, column)
            if not texts and not unlabeled:
                raise RowError(f"a {column.public_name}, found an empty text")
            captions.setdefault((row.image_id, row.image), []).extend(texts)
    return [CaptionedImage(name, tuple(texts), path) for (name, path), texts in captions.items()]


def fill(rows: Sequence[TableRow], columns: Mapping[int, Column], problems: Problems) -> Filled:
    """The cells of the rows of a split. The number of a class is filled in when all are known."""
    filled, form_of = [], cache(stored_form)
    for row in rows:
        with problems.at(row.where):
            cells = [""] * (max(columns) + 1)
            if has_image_ids(columns):
                cells[1] = row.image_id
            for number, column in columns.items():
                cells[number] = cell_of(row, column, form_of)
            filled.append((row.image, cells))
    for number, column in columns.items():
        if column.kind == "box" and rows and rows[0].box_format == "xyxy" and not rows[0].size:
            note_xywh([(image, cells[number]) for image, cells in filled], form_of)
    return filled


def note_xywh(boxes: Sequence[tuple[str, str]], form_of: FormOf) -> None:
    """Warn where no box of many tells corners from widths. Args: boxes: image and cell of each
    row; the cell may be empty."""
    boxes = [(image, cell) for image, cell in boxes if cell]
    corners = ((map(float, cell.split(",")), image) for image, cell in boxes)
    if len(boxes) >= TELLING_BOXES and all(
        may_be_xywh(tuple(box), upright_size(*form_of(image))) for box, image in corners
    ):
        logger.warning(
            "all %d boxes make sense as x,y,width,height too; if they are, add --box-format xywh",
            len(boxes),
        )


def has_image_ids(columns: Mapping[int, Column]) -> bool:
    """Whether the files have the image's id where no column of the task stands."""
    kinds = {column.kind for column in columns.values()}
    return {"id", "image"} <= kinds and max(columns) > 0 and 1 not in columns


def number_classes(
    found: PreparedDataset,
    columns: Mapping[int, Column],
    parts: Mapping[str, Filled],
    choose_answers: Callable[[Filled], Mapping[str, int]] | None,
) -> None:
    """The label file of a column of any classes, whose numbers stand in the column before if that
    is no column of the task; the answer set of what training rows teach."""
    for number, column in columns.items():
        if column.kind == "label" and not column.labels:
            rows = [cells for part in parts.values() for _, cells in part if cells[number]]
            words = sorted({cells[number] for cells in rows})
            labels = {text: label for label, text in enumerate(words, start=1)}
            found.texts[CLASS_SET] = label_text(labels)
            if number and number - 1 not in columns:
                for cells in rows:
                    cells[number - 1] = str(labels[cells[number]])
        elif column.kind == "answer" and parts["train"]:
            taught = (learned_answer(cells[number]) for _, cells in parts["train"])
            chosen = choose_answers(parts["train"]) if choose_answers else number_answers(taught)
            found.texts[ANSWER_SET] = label_text(chosen)


def _cells(rows: Filled, problems: Problems) -> Iterator[list[str]]:
    return (cells for _, cells in rows)


# ------------------------------------------------------------------------------------ cells


def cell_of(row: TableRow, column: Column, form_of: FormOf) -> str:
    """A column of a row as a TSV has it. Raises: RowError that says what was expected."""
    value = row.value(column)
    if row.split == "test" and column.target and is_empty(row, column, value):
        return ""
    if column.kind == "id":
        return row.uniq_id
    if column.kind == "image":
        return ImagePath(row.others[column.name]) if column.name in row.others else IMAGE
    if column.kind == "box":
        return box_of(row, value, form_of)
    if value is None and not column.needed:
        return ""
    if column.kind == "texts":
        return JOIN.join(texts_of(row, column))
    if column.kind == "answer":
        return answers_of(row, value)
    if column.kind == "boxes":
        if not isinstance(value, list):
            return words_of(value, "a list of objects", "objects")
        return objects_field(
            value, lambda one: box_of(replace(row, values=one), one.get("box"), form_of)
        )
    name = column.public_name
    if column.kind == "confidence":
        return str(_score(value, f"a number from 0 to 1 as {name!r}"))
    if column.may_be_empty:
        text = one_line(text_of(value, f"a text as {name!r}", name))
    else:
        text = words_of(value, f"a {name}", name)
    label = column.label_of(text) if column.labels else text
    if label is None:
        raise RowError(f"a {name} ({', '.join(column.labels)}), found {text!r}")
    return label


def is_empty(row: TableRow, column: Column, value: Any) -> bool:
    """Whether a row has nothing in a column that is to be predicted, as in test splits."""
    if column.kind == "box" and value is None:
        return all(row.values.get(name) in (None, "") for name in CORNERS)
    return value in (None, [], {}) or isinstance(value, str) and not value.strip()


def texts_of(row: TableRow, column: Column) -> list[str]:
    """A list of texts, or a text of parts joined by ``&&``; empty ones are left out."""
    value, name = row.value(column), column.public_name
    parts = value if isinstance(value, list) else text_of(value, f"a {name}", name).split(JOIN)
    texts = (one_line(text_of(part, f"a {name}", name, "raw")) for part in parts)
    return [text for text in texts if text]


def _score(value: Any, expected: str = "answers with confidences from 0 to 1") -> float:
    with suppress(ValueError):
        if 0 <= (score := read_decimal(value)) <= 1:
            return score
    raise RowError(f"{expected}, found {finding(value)}")


def answers_of(row: TableRow, value: Any) -> str:
    """Of one answer, of several people's, or with confidences: an object, or as a TSV has them."""
    same = str if row.keep_case else str.lower
    if isinstance(value, str) and CONFIDENCE in value:
        try:
            value = parse_answers(value)
        except UserError as error:
            raise RowError(str(error).removeprefix("expects ")) from None
    elif not isinstance(value, dict) or "answer" in value:
        several = isinstance(value, list)
        parts = value if several else text_of(value, "an answer", "answer").split(JOIN)
        given = [part for part in parts if not isinstance(part, str) or part.strip()]
        value = confidences([same(answer_of(part)) for part in given])
    scores: dict[str, float] = {}
    for answer, score in value.items():
        name = same(answer_of(answer))
        scores[name] = max(_score(score), scores.get(name, 0.0))
    if not scores:
        raise RowError("an answer, found an empty text")
    return answer_column(scores)


def box_of(row: TableRow, value: Any, form_of: FormOf) -> str:
    """As ``read_box``, or of the columns ``x0 y0 x1 y1``."""
    if value is None and row.values.keys() >= set(CORNERS):
        value = [row.values[name] for name in CORNERS]
    box, form = read_box(value), form_of(row.image)
    size = row.size or upright_size(*form)
    if not all(size):
        return "0,0,0,0"  # broken images are named later
    corners = corners_in_pixels(box, row.box_format, size)
    if row.size:
        corners, size = turned_box(corners, row.size, form)
    return clipped(corners, size, box, row.box_format)


def corners_in_pixels(
    box: tuple[float, ...], box_format: str, size: tuple[int, int]
) -> tuple[float, ...]:
    """xyxy in pixels of an image of this size."""
    corners, _, norm = box_format.partition("_")
    found = ",".join(f"{number:g}" for number in box)
    if norm and not in_fractions(box):
        raise RowError(
            f"a box of fractions from 0 to 1, as --box-format {box_format} says, found {found}"
        )
    if not norm and any(box) and in_fractions(box) and max(size) > 1:
        raise RowError(
            f"a box in pixels, found {found}: less than one pixel",
            "are these fractions of the image? Then add --box-format xyxy_norm, or xywh_norm",
        )
    if corners == "xywh":
        box = box[0], box[1], box[0] + box[2], box[1] + box[3]
    return tuple(number * side for number, side in zip(box, (*size, *size))) if norm else box


def clipped(
    box: Sequence[float], size: tuple[int, int], given: Sequence[float], box_format: str
) -> str:
    """``[10, 20.126, 30, 40]`` -> ``"10.0,20.13,30.0,40.0"``, within the image.

    Args: box: xyxy in pixels. given, box_format: as it stands in the file, for messages.
    """
    (x0, y0, x1, y1), (width, height) = box, size
    found = ",".join(f"{number:g}" for number in given)
    is_xywh, remedy = box_format.startswith("xywh"), ""
    if box_format == "xyxy" and may_be_xywh(box, size):
        remedy = "x,y,width,height? Then add --box-format xywh"
    if box_format == "xywh" and given[0] < given[2] <= width and given[1] < given[3] <= height:
        remedy = "corners? Then leave out --box-format xywh"
    if x1 <= x0 or y1 <= y0:
        expected = "width and height above 0" if is_xywh else "x0 < x1 and y0 < y1"
        fault = "empty" if is_xywh else "turned round or empty"
        raise RowError(f"a box with {expected}, found {found} ({fault})", remedy)
    inside = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    overhang = max(-x0, -y0, x1 - width, y1 - height)
    if overhang > BEYOND or inside[2] <= inside[0] or inside[3] <= inside[1]:
        remedy = remedy if is_xywh else ""
        where = f"the image of {width} x {height} pixels"
        raise RowError(f"a box inside {where}, found {found}", remedy)
    return ",".join(repr(round(float(number), 2)) for number in inside)
