"""People's own data: a CSV file with a header or a JSONL file, one entry per row -> the training files of a task.

    image,question,answer                       {"image": "a.jpg", "caption": ["A dog.", "A brown dog runs."]}
    a.jpg,what is it?,a dog                     {"image": "b.jpg", "text": "the left dog", "box": [10, 20, 110, 220]}

A column of another name is named with ``--columns image=photo``. Which columns a task needs: ``FIELDS``.
"""

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.io.numbers import read_decimal
from ofa.coco_captions import check_unique
from ofa.errors import UserError
from ofa.picture_files import PictureFolders, picture_size
from ofa.preparation import IMAGE, Picture
from ofa.sources.found import Found, Problems, checked_box, grouped, label_text, one_line, read_json_lines, split_at_random
from ofa.sources.snli_ve import LABELS
from ofa.sources.vqa2 import ANSWER_SET, answer_column, clean_answer, confidences, number_answers
from ofa.text import CONFIDENCE, JOIN, learned_answer, parse_answers

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
CORNERS = ("x0", "y0", "x1", "y1")
YES_MAYBE_NO = dict(zip(("yes", "maybe", "no"), LABELS))
OPTIONAL = ("id", "image_id")  # of every task; else the entry's number, and the picture's name without its ending


@dataclass(frozen=True)
class Entry:
    """One row of the table. ``where``: ``photos.csv:17``."""

    where: str
    values: Mapping[str, Any]
    split: str = "train"
    picture: str = ""
    number: int = 0

    def text(self, name: str) -> str:
        return one_line("" if self.values.get(name) is None else self.values[name])

    def texts(self, name: str) -> list[str]:
        """A list, or a text of parts joined by ``&&``."""
        value = self.values.get(name)
        parts = value if isinstance(value, list) else str("" if value is None else value).split(JOIN)
        return [text for text in map(one_line, parts) if text]

    @property
    def image_id(self) -> str:
        return self.text("image_id") or Path(self.picture).stem

    @property
    def uniq_id(self) -> str:
        return self.text("id") or str(self.number)


class Wrong(Exception):
    """Why an entry cannot become a row: ``a question, found an empty text``."""


def _question_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    question = _needed(entry, "question")
    return entry.uniq_id, entry.image_id, question, _answers(entry), JOIN.join(entry.texts("objects")), IMAGE


def _region_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    return entry.uniq_id, entry.image_id, _needed(entry, "question"), _box(entry, box_format), _answers(entry), IMAGE


def _grounding_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    return entry.uniq_id, entry.image_id, _needed(entry, "text"), _box(entry, box_format), IMAGE


def _entailment_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    label = YES_MAYBE_NO.get(entry.text("label").lower(), entry.text("label").lower())
    if label not in LABELS:
        raise Wrong(f"a label ({', '.join(LABELS)}), found {entry.text('label')!r}")
    return entry.uniq_id, entry.image_id, IMAGE, _needed(entry, "hypothesis"), entry.text("caption"), label


def _class_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    words = _needed(entry, "label")
    return IMAGE, words, words  # the number of the label is filled in when all are known


def _reading_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    return entry.uniq_id, IMAGE, _needed(entry, "text")


@dataclass(frozen=True)
class OwnTask:
    """Columns that a task needs and may have, the file it makes, an entry's row, and which column has answers."""

    needs: tuple[str, ...]
    may_have: tuple[str, ...]
    file_name: str
    row: Callable[[Entry, str], tuple[str, ...]] | None
    answers: int | None = None


FIELDS = {
    "caption": OwnTask(("image", "caption"), (), "caption_{}.tsv", None),
    "vqa_gen": OwnTask(("image", "question", "answer"), ("objects",), "vqa_{}.tsv", _question_row, 3),
    "grounded_qa": OwnTask(("image", "question", "box", "answer"), CORNERS, "grounded_qa_{}.tsv", _region_row, 4),
    "refcoco": OwnTask(("image", "text", "box"), CORNERS, "refcoco_{}.tsv", _grounding_row),
    "snli_ve": OwnTask(("image", "hypothesis", "label"), ("caption",), "snli_ve_{}.tsv", _entailment_row),
    "image_classify": OwnTask(("image", "label"), (), "image_classify_{}.tsv", _class_row),
    "ocr": OwnTask(("image", "text"), (), "ocr_{}.tsv", _reading_row),
}


def read_own_table(kind: str, files: Sequence[str], task: str, images: PictureFolders, problems: Problems,
                   columns: Mapping[str, str], split: str = "train", val_fraction: float | None = None, seed: int = 1,
                   box_format: str = "xyxy", delimiter: str | None = None) -> Found:
    """The files of a task.

    Args:
        kind: ``csv`` or ``jsonl``. columns: the task's name of a column -> its name in the file.
        split: of all entries that have no column ``split``. val_fraction: divide all by picture instead.
        box_format: ``xyxy`` corners or ``xywh`` corner and size, pixels. delimiter: None: a tab for ``.tsv``, else a comma.
    """
    own = FIELDS[task]
    unknown = [name for name in columns if name not in (*own.needs, *own.may_have, *OPTIONAL, "split")]
    if unknown:
        raise UserError(f"--columns {unknown[0]}={columns[unknown[0]]}: task {task!r} knows the columns "
                        f"{', '.join((*own.needs, *own.may_have, *OPTIONAL, 'split'))}; correct the name before '='")
    entries = [entry for path in files
               for entry in (_csv_entries(path, delimiter) if kind == "csv" else _jsonl_entries(path))]
    entries = [_placed(entry, number, own, columns, split, images, problems) for number, entry in enumerate(entries)]
    entries = [entry for entry in entries if entry is not None]
    if own.row is not None and own.row is not _class_row:
        _check_ids(entries)
    parts = {name: [entry for entry in entries if entry.split == name] for name in ("train", "val", "test")}
    if val_fraction is not None:
        parts = {"test": []} | split_at_random(entries, lambda entry: entry.picture, val_fraction, seed)
    found = Found(kind, inputs=list(files), settings={
        "task": task, "columns": dict(columns), "split": split, "val_fraction": val_fraction, "seed": seed,
        "box_format": box_format, "delimiter": delimiter})
    if task == "caption":
        found.pictures_of = {name: _captioned(group, problems) for name, group in parts.items()}
        check_unique(found.pictures_of)
    else:
        _fill(found, own, parts, box_format, problems)
    problems.settle()
    if task == "image_classify":
        _number_labels(found)
    elif own.answers is not None:
        _number_answers(found, own)
    return found


def _fill(found: Found, own: OwnTask, parts: Mapping[str, list[Entry]], box_format: str, problems: Problems) -> None:
    """The rows of all splits; what cannot become one goes to ``problems``."""
    for name, group in parts.items():
        rows = []
        for entry in group:
            try:
                rows.append((entry.picture, own.row(entry, box_format)))
            except Wrong as finding:
                problems.add(f"{entry.where}: expected {finding}")
            except UserError as error:  # of parse_answers, which names the place
                problems.add(str(error))
        if rows:
            official = "dev" if name == "val" and own.row is _entailment_row else name
            found.files[own.file_name.format(official)] = grouped(rows)
            found.counts[f"{name}_rows"] = len(rows)


def _placed(entry: Entry, number: int, own: OwnTask, columns: Mapping[str, str], split: str, images: PictureFolders,
            problems: Problems) -> Entry | None:
    """The entry under the task's column names, with its split and its picture."""
    values = entry.values | {name: entry.values.get(column) for name, column in columns.items()}
    corners = all(name in values for name in CORNERS)
    for name in own.needs:
        column = columns.get(name, name)
        if column not in entry.values and not (name == "box" and corners):
            raise UserError(f"{entry.where}: expected a column {column!r} for the task's {name!r}, found "
                            f"{', '.join(map(str, entry.values))}; name it with --columns {name}=...")
    stated = str(values.get("split") or split)
    if stated not in SPLITS:
        raise UserError(f"{entry.where}: expected a split ({', '.join(SPLITS)}), found {stated!r}")
    image = one_line(values.get("image") or "")
    picture = images.find(image) if image else None
    if picture is None:
        problems.add(f"{entry.where}: expected a picture {image!r} below {images}, found none")
        return None
    return Entry(entry.where, values, SPLITS[stated], picture, number)


def _check_ids(entries: Sequence[Entry]) -> None:
    """Result files name rows by their id."""
    first: dict[str, str] = {}
    for entry in entries:
        if entry.uniq_id in first:
            raise UserError(f"{entry.where}: expected every id once, found {entry.uniq_id!r} again, as in {first[entry.uniq_id]}; "
                            "make them unique, or leave the column out: rows are numbered then")
        first[entry.uniq_id] = entry.where


def _csv_entries(path: str, delimiter: str | None) -> list[Entry]:
    csv.field_size_limit(sys.maxsize)
    entries = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter or ("\t" if path.endswith(".tsv") else ","), strict=True)
            for values in reader:
                if None in values or None in values.values():
                    raise UserError(f"{path}:{reader.line_num}: expected {len(reader.fieldnames or ())} columns as the header "
                                    "has, found another number; is a field with the delimiter in it quoted?")
                entries.append(Entry(f"{path}:{reader.line_num}", values))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: expected a CSV file in UTF-8 with a header, found {error}") from None
    if not entries:
        raise UserError(f"{path}: expected a header and rows, found no row")
    return entries


def _jsonl_entries(path: str) -> list[Entry]:
    return [Entry(f"{path}:{number}", values) for number, values in read_json_lines(path)]


def _needed(entry: Entry, name: str) -> str:
    text = entry.text(name)
    if not text:
        raise Wrong(f"a {name}, found an empty text")
    return text


def _answers(entry: Entry) -> str:
    """The answer column: of one answer, of several people's, or of answers with confidences (a JSON object)."""
    value = entry.values["answer"]
    if isinstance(value, dict):
        try:
            scores = {clean_answer(answer): read_decimal(score) for answer, score in value.items()}
        except ValueError:
            scores = {}
    elif CONFIDENCE in str(value):
        scores = parse_answers(str(value), entry.where)
    else:
        answers = [clean_answer(answer) for answer in entry.texts("answer")]
        scores = confidences([answer for answer in answers if answer]) if any(answers) else {}
    if not scores or not all(scores) or not all(0 <= score <= 1 for score in scores.values()):
        raise Wrong(f"answers with confidences from 0 to 1, found {str(value)[:60]!r}")
    return answer_column(scores)


def _box(entry: Entry, box_format: str) -> str:
    value = entry.values.get("box")
    try:
        if value is None:
            numbers = [entry.values[name] for name in CORNERS]
        else:
            numbers = value if isinstance(value, list) else str(value).strip("[] ").split(",")
        box = [read_decimal(number) for number in numbers]
    except (ValueError, KeyError):
        box = []
    if len(box) != 4:
        raise Wrong(f"a box of four numbers, found {str(value)[:60]!r}")
    if box_format == "xywh":
        box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    size = picture_size(entry.picture)
    text, finding = checked_box(box, size) if all(size) else ("0,0,0,0", "")  # broken pictures are named later
    if finding:
        raise Wrong(finding)
    return text


def _captioned(entries: Sequence[Entry], problems: Problems) -> list[Picture]:
    """One picture with all its captions, in the order of the file."""
    captions: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if not entry.texts("caption"):
            problems.add(f"{entry.where}: expected a caption, found an empty text")
            continue
        captions.setdefault((entry.image_id, entry.picture), []).extend(entry.texts("caption"))
    return [Picture(image_id, tuple(texts), path) for (image_id, path), texts in captions.items()]


def _number_labels(found: Found) -> None:
    """Labels from 1 in the order of their words, and ``class2label.json``."""
    words = sorted({row[2] for groups in found.files.values() for group in groups for row in group.rows})
    labels = {text: number for number, text in enumerate(words, start=1)}
    for name, groups in found.files.items():
        found.files[name] = [type(group)(group.source, tuple((IMAGE, str(labels[row[2]]), row[2]) for row in group.rows))
                             for group in groups]
    found.texts["class2label.json"] = label_text(labels)


def _number_answers(found: Found, own: OwnTask) -> None:
    """The answer set of what training rows teach."""
    groups = found.files.get(own.file_name.format("train"), [])
    if groups:
        taught = (learned_answer(row[own.answers]) for group in groups for row in group.rows)
        found.texts[ANSWER_SET] = label_text(number_answers(taught))
