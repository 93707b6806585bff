"""People's own data: a CSV file with a header or a JSONL file, one entry per row -> the training
files of a task.

    image,question,answer       {"image": "a.jpg", "caption": ["A dog.", "A brown dog runs."]}
    a.jpg,what is it?,a dog     {"image": "b.jpg", "text": "left dog", "box": [10, 20, 110, 220]}

A column of another name is named with ``--columns image=photo``. Which columns there are, and what
each holds, the task declares.
"""

import csv
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa.errors import UserError
from ofa.io.image_files import TABLE, ImageFolders, image_size
from ofa.io.numbers import read_decimal
from ofa.io.values import (
    SHOWN,
    Ids,
    RowError,
    finding,
    in_fractions,
    not_one_text,
    one_line,
    text_of,
    words_of,
)
from ofa.prepare.answer_column import answer_column, answer_of, confidences, number_answers
from ofa.prepare.coco_captions import check_unique
from ofa.prepare.prepared_dataset import (
    IN_FRACTIONS,
    PreparedDataset,
    Problems,
    checked_box,
    grouped,
    label_text,
    read_json_lines,
    read_prefixes,
    split_at_random,
)
from ofa.prepare.tsv_writer import IMAGE, CaptionedImage, ImagePath
from ofa.prepare.vqa2 import ANSWER_SET
from ofa.task.columns import Column
from ofa.task.text import CONFIDENCE, JOIN, learned_answer, parse_answers

if TYPE_CHECKING:
    # imports torch: what only reads tables starts without it
    from ofa.task.task_spec import TaskSpec

logger = logging.getLogger(__name__)

SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
CORNERS = ("x0", "y0", "x1", "y1")  # instead of a column ``box``
BOX_FORMATS = ("xyxy", "xywh", "xyxy_norm", "xywh_norm")
CAPTION = "caption"  # the task whose files are those of two stages, see ``ofa.prepare.tsv_writer``
# of every task; else the entry's number, and the image's name without its ending
OPTIONAL = ("id", "image_id")


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    Args: where: ``photos.csv:17``. image: path of the (first) image. others: column -> path of a
    further image. prefix: of ids. keep_case: answers stay as they are typed.
    """

    where: str
    values: Mapping[str, Any]
    split: str = "train"
    image: str = ""
    others: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    prefix: str = ""
    keep_case: bool = False

    def text(self, name: str) -> str:
        """Of a column that may be missing or null. Raises: RowError for what is no text."""
        value = self.values.get(name)
        return "" if value is None else one_line(text_of(value, f"a text as {name!r}", name))

    def value(self, column: Column) -> Any:
        """Of the task's column, under any of its names; None if it is missing or null."""
        return next(
            (
                self.values[name]
                for name in (column.public_name, *column.names)
                if self.values.get(name) is not None
            ),
            None,
        )

    def texts(self, column: Column) -> list[str]:
        """A list of texts, or a text of parts joined by ``&&``; empty ones are left out. Raises:
        RowError for what is no text."""
        value, name = self.value(column), column.public_name
        parts = value if isinstance(value, list) else text_of(value, f"a {name}", name).split(JOIN)
        return [
            text
            for text in (one_line(text_of(part, f"a {name}", name, "raw")) for part in parts)
            if text
        ]

    @property
    def image_id(self) -> str:
        return self.prefix + (self.text("image_id") or Path(self.image).stem)

    @property
    def uniq_id(self) -> str:
        return self.prefix + (self.text("id") or str(self.number))


def file_columns(spec: "TaskSpec") -> dict[int, Column]:
    """Number in the files that are written -> column."""
    numbers = spec.numbers()
    return dict(zip(numbers.values(), spec.columns_named(numbers), strict=True))


def row_of(entry: Entry, spec: "TaskSpec", box_format: str) -> tuple[str, ...]:
    """The row of an entry as the usual files of the task have it. The number of a class is filled
    in when all are known.

    Raises: RowError that says what is missing.
    """
    columns = file_columns(spec)
    row = [""] * (max(columns) + 1)
    if spec.has("id") and spec.has("image") and 1 < len(row):
        row[1] = entry.image_id  # where no column of the task stands
    for number, column in columns.items():
        row[number] = cell_of(entry, column, box_format)
    return tuple(row)


def cell_of(entry: Entry, column: Column, box_format: str) -> str:
    """A column of an entry as a TSV has it. Raises: RowError."""
    value, name = entry.value(column), column.public_name
    if column.kind == "image":
        return ImagePath(entry.others[column.name]) if column.name in entry.others else IMAGE
    if column.kind == "id":
        return entry.uniq_id
    if value is None and not column.needed and column.kind != "box":
        return ""
    if column.kind == "texts":
        return JOIN.join(entry.texts(column))
    if column.kind == "answer":
        return _answers(entry, value)
    if column.kind == "box":
        return _box(entry, value, box_format)
    if column.kind == "boxes":
        return _boxes(entry, value, box_format)
    if column.kind == "confidence":
        if not 0 <= (score := _confidence(value)) <= 1:
            raise RowError(f"a number from 0 to 1 as {name!r}, found {finding(value)}")
        return str(score)
    text = (
        one_line(text_of(value, f"a text as {name!r}", name))
        if column.may_be_empty
        else words_of(value, f"a {name}", name)
    )
    if column.labels:
        label = column.label_of(text)
        if label is None:
            raise RowError(f"a {name} ({', '.join(column.labels)}), found {text!r}")
        return label
    return text


def read_own_table(
    kind: str,
    files: Sequence[str],
    spec: "TaskSpec",
    images: ImageFolders | None,
    problems: Problems,
    columns: Mapping[str, str],
    split: str = "train",
    val_fraction: float | None = None,
    seed: int = 1,
    box_format: str = "xyxy",
    delimiter: str | None = None,
    id_prefix: Sequence[str] | None = None,
    keep_case: bool = False,
) -> PreparedDataset:
    """The files of a task.

    Args:
        kind: ``csv`` or ``jsonl``. columns: the task's name of a column -> its name in the file.
        images: where the images lie; None for tasks of texts alone.
        split: of all entries that have no column ``split``. val_fraction: divide all by image
            instead.
        box_format: ``xyxy`` corners or ``xywh`` corner and size, pixels, or ``xyxy_norm``,
            ``xywh_norm``: fractions of the image.
        delimiter: None: a tab for ``.tsv``, else a comma. id_prefix: before the ids of each file,
            see ``read_prefixes``.
        keep_case: answers stay as they are typed; else they are lowered, as those of VQA v2 are.
    """
    if spec.has("image") and images is None:
        raise UserError(
            f"--images: task '{spec.name}' expects the folder of the images that the table names,"
            " found none; give it"
        )
    known = known_columns(spec)
    unknown = [name for name in columns if name not in known]
    if unknown:
        less_usual = {name for column in spec.columns for name in column.names} - {
            column.public_name for column in spec.columns
        }
        listed = [name for name in known if name not in less_usual]
        raise UserError(
            f"--columns {unknown[0]}={columns[unknown[0]]}: task {spec.name!r} knows the columns "
            f"{', '.join(listed)}; correct the name before '='"
        )
    entries = [
        replace(entry, prefix=prefix, keep_case=keep_case)
        for path, prefix in zip(files, read_prefixes(id_prefix, files))
        for entry in (_csv_entries(path, delimiter) if kind == "csv" else _jsonl_entries(path))
    ]
    _check_columns(entries, spec, columns)
    placed = [
        _placed(entry, number, spec, columns, split, images, problems)
        for number, entry in enumerate(entries)
    ]
    entries = [entry for entry in placed if entry is not None]
    if kind == "csv":
        entries = [entry for entry in entries if _has_texts(entry, spec, problems)]
    else:
        _warn_of_missing(entries, spec)
    captions = spec.name == CAPTION
    if spec.has("id") and not captions:
        _check_ids(entries)
    parts = {
        name: [entry for entry in entries if entry.split == name]
        for name in ("train", "val", "test")
    }
    if val_fraction is not None:
        parts = {"test": []} | split_at_random(
            entries, lambda entry: entry.image or entry.where, val_fraction, seed
        )
    found = PreparedDataset(
        kind,
        inputs=list(files),
        settings={
            "task": spec.name,
            "columns": dict(columns),
            "split": split,
            "val_fraction": val_fraction,
            "seed": seed,
            "box_format": box_format,
            "delimiter": delimiter,
            **({"keep_case": True} if keep_case else {}),
        },
    )
    if captions:
        found.images_of = {name: _captioned(group, spec, problems) for name, group in parts.items()}
        check_unique(found.images_of)
    else:
        _fill(found, spec, parts, box_format, problems)
    found.counts |= problems.counts()
    problems.settle()
    for number, column in file_columns(spec).items():
        if column.kind == "label" and not column.labels:
            _number_labels(
                found,
                number,
                number - 1 if number and number - 1 not in file_columns(spec) else None,
            )
        elif column.kind == "answer":
            _number_answers(found, spec, number)
    return found


def known_columns(spec: "TaskSpec") -> dict[str, None]:
    """Names that a table of users may have for a task."""
    columns = sorted(file_columns(spec).values(), key=spec.columns.index)
    names = [
        name
        for column in columns
        if column.kind != "id"
        for name in (column.public_name, *column.names)
    ]
    corners = CORNERS if spec.has("box") else ()
    return dict.fromkeys(
        (*names, *corners, "id", *(["image_id"] if spec.has("image") else []), "split")
    )


def _fill(
    found: PreparedDataset,
    spec: "TaskSpec",
    parts: Mapping[str, list[Entry]],
    box_format: str,
    problems: Problems,
) -> None:
    """The rows of all splits; what cannot become one goes to ``problems``."""
    for name, group in parts.items():
        rows = []
        for entry in group:
            try:
                rows.append((entry.image, row_of(entry, spec, box_format)))
            except RowError as error:
                problems.add(f"{entry.where}: expected {error}")
            except UserError as error:  # of parse_answers, which names the place
                problems.add(str(error))
        if rows:
            found.files[file_name(spec, name)] = grouped(rows)
            found.counts[f"{name}_rows"] = len(rows)


def file_name(spec: "TaskSpec", split: str) -> str:
    """``vqa_train.tsv``."""
    return f"{spec.files[0]}_{spec.usage.validation if split == 'val' else split}.tsv"


def _placed(
    entry: Entry,
    number: int,
    spec: "TaskSpec",
    columns: Mapping[str, str],
    split: str,
    images: ImageFolders | None,
    problems: Problems,
) -> Entry | None:
    """The entry under the task's column names, with its split and its image; None if it cannot
    be used."""
    named = {name: entry.values.get(column) for name, column in columns.items()}
    entry = replace(entry, values={**entry.values, **named}, number=number)
    try:
        stated = entry.text("split") or split
        if stated not in SPLITS:
            raise RowError(f"a split ({', '.join(SPLITS)}), found {stated[:SHOWN]!r}")
        names = {
            column.name: words_of(
                entry.value(column),
                f"the name of an image as {column.public_name!r}",
                column.public_name,
            )
            for column in spec.images
        }
        _ = entry.uniq_id, entry.image_id  # both are texts
    except RowError as error:
        problems.add(f"{entry.where}: expected {error}")
        return None
    paths: dict[str, str] = {}
    for column, name in names.items():
        path = images.find(name) if images is not None else None
        if path is None:
            problems.add(f"{entry.where}: expected an image {name!r} below {images}, found none")
            return None
        paths[column] = path
    image = paths.pop(next(iter(paths))) if paths else ""
    return replace(entry, split=SPLITS[stated], image=image, others=paths)


def _check_columns(entries: Sequence[Entry], spec: "TaskSpec", columns: Mapping[str, str]) -> None:
    """Raises: UserError if no entry has a column of the task. An entry without it has null
    there."""
    known = dict.fromkeys(name for entry in entries for name in entry.values)
    for column in file_columns(spec).values():
        there = any(columns.get(name, name) in known for name in column.names)
        in_corners = column.kind == "box" and set(CORNERS) <= {*known, *columns}
        if column.needed and column.kind != "id" and not there and not in_corners:
            name = column.public_name
            raise UserError(
                f"{entries[0].where}: expected a column {columns.get(name, name)!r} for the task's"
                f" {name!r}, found {', '.join(known)}; name it with --columns {name}=..."
            )


def _check_ids(entries: Sequence[Entry]) -> None:
    """Result files name rows by their id, and an image id is of one image."""
    ids = Ids(
        "id",
        "make them unique, give each file an --id-prefix of its own, or leave the column out: rows"
        " are numbered then",
    )
    image_ids = Ids(
        "image",
        "give each image an id of its own in a column image_id, or each file an --id-prefix",
    )
    images: set[tuple[str, str]] = set()
    for entry in entries:
        ids.add(entry.uniq_id.removeprefix(entry.prefix), entry.where, entry.prefix)
        if (entry.image_id, entry.image) not in images:
            images.add((entry.image_id, entry.image))
            image_ids.add(
                entry.image_id.removeprefix(entry.prefix),
                f"{entry.where} ({entry.image})",
                entry.prefix,
            )


def _texts(entry: Entry, spec: "TaskSpec") -> Iterator[tuple[str, Any]]:
    """Name and value of every column of texts."""
    for column in file_columns(spec).values():
        if column.kind in ("text", "texts", "label", "answer"):
            yield column.public_name, entry.value(column)


def _has_texts(entry: Entry, spec: "TaskSpec", problems: Problems) -> bool:
    """Whether a row of a CSV file holds texts: there, null, lists and objects are words as well."""
    for name, value in (
        *_texts(entry, spec),
        *((name, entry.values.get(name)) for name in OPTIONAL),
    ):
        if value and (kind := not_one_text(value)):
            problems.add(
                f"{entry.where}: expected a text as {name!r}, found {value[:SHOWN]!r}, {kind}; if"
                " it is meant, write it in JSONL"
            )
            return False
    return True


def _warn_of_missing(entries: Sequence[Entry], spec: "TaskSpec") -> None:
    """Words that programs write for a missing value may be meant: they stay, but nobody is left
    in the dark."""
    found = [
        (entry.where, name)
        for entry in entries
        for name, value in _texts(entry, spec)
        if _is_missing(value)
    ]
    if found:
        where, name = found[0]
        logger.warning(
            "%d texts are words such as 'nan' or 'NULL', or lists, as programs write values, the"
            " first as %r in %s; they are taken as they are: remove these rows if nobody wrote"
            " them",
            len(found),
            name,
            where,
        )


def _is_missing(value: Any) -> bool:
    return isinstance(value, str) and not_one_text(value) != ""


def _csv_entries(path: str, delimiter: str | None) -> list[Entry]:
    entries = []
    try:
        with _long_fields(), open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(
                file, delimiter=delimiter or ("\t" if path.endswith(TABLE) else ","), strict=True
            )
            repeated = [
                name for name, number in Counter(reader.fieldnames or ()).items() if number > 1
            ]
            if repeated:
                raise UserError(
                    f"{path}:1: expected every column once, found {repeated[0]!r} again; rename one"
                    " of them"
                )
            for values in reader:
                if None in values or None in values.values():
                    raise UserError(
                        f"{path}:{reader.line_num}: expected {len(reader.fieldnames or ())} columns"
                        " as the header has, found another number; is a field with the delimiter"
                        " in it quoted?"
                    )
                entries.append(Entry(f"{path}:{reader.line_num}", values))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: expected a CSV file in UTF-8 with a header, found {error}"
        ) from None
    if not entries:
        raise UserError(f"{path}: expected a header and rows, found no row")
    return entries


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields of any length, such as an image; the limit is the process's."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _jsonl_entries(path: str) -> list[Entry]:
    return [Entry(f"{path}:{number}", values) for number, values in read_json_lines(path)]


def _answers(entry: Entry, value: Any) -> str:
    """The answer column: of one answer, of several people's, or of answers with confidences (a
    JSON object)."""
    same = str if entry.keep_case else str.lower
    if isinstance(value, dict) and "answer" not in value:
        scored = [(answer_of(answer), _confidence(score)) for answer, score in value.items()]
    elif isinstance(value, str) and CONFIDENCE in value:
        scored = [
            (answer_of(answer), score)
            for answer, score in parse_answers(value, entry.where).items()
        ]
    else:
        parts = (
            value if isinstance(value, list) else text_of(value, "an answer", "answer").split(JOIN)
        )
        answers = [
            same(answer_of(part))
            for part in parts
            if not (isinstance(part, str) and not part.strip())
        ]
        scored = list(confidences(answers).items()) if answers else []
    scores: dict[str, float] = {}
    for answer, score in scored:
        scores[same(answer)] = max(score, scores.get(same(answer), score))
    if not scores:
        raise RowError("an answer, found an empty text")
    if not all(0 <= score <= 1 for score in scores.values()):
        raise RowError(f"answers with confidences from 0 to 1, found {finding(value)}")
    return answer_column(scores)


def _confidence(value: Any) -> float:
    try:
        return read_decimal(value)
    except ValueError:
        raise RowError(f"answers with confidences from 0 to 1, found {finding(value)}") from None


def _box(entry: Entry, value: Any, box_format: str) -> str:
    try:
        if value is None:
            numbers = [entry.values[name] for name in CORNERS]
        else:
            numbers = (
                value
                if isinstance(value, list)
                else text_of(value, "a box", "box", "bbox").strip("[] ").split(",")
            )
        box = [read_decimal(number) for number in numbers]
    except (ValueError, KeyError, RowError):
        box = []
    if len(box) != 4:
        raise RowError(
            "a box of four numbers, found"
            f" {repr(value[:60]) if isinstance(value, str) else finding(value)}"
        )
    size = image_size(entry.image)
    if not all(size):
        return "0,0,0,0"  # broken images are named later
    return _in_pixels(box, box_format, size)


def _boxes(entry: Entry, value: Any, box_format: str) -> str:
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
        parts.append(
            f"{_box(replace(entry, values=one), one.get('box'), box_format)},{number},{words}"
        )
    return JOIN.join(parts)


def _in_pixels(box: Sequence[float], box_format: str, size: tuple[int, int]) -> str:
    """Box column of four numbers of ``BOX_FORMATS``. Args: size: width and height of the image.
    Raises: RowError."""
    corners, _, norm = box_format.partition("_")
    if norm and not in_fractions(box):
        raise RowError(
            f"a box of fractions from 0 to 1, as --box-format {box_format} says, found"
            f" {','.join(f'{number:g}' for number in box)}"
        )
    if not norm and corners == "xywh" and in_fractions(box):
        raise RowError(IN_FRACTIONS.format(",".join(f"{number:g}" for number in box)))
    if corners == "xywh":
        box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    if norm:
        box = [number * side for number, side in zip(box, (*size, *size))]
    text, wrong = checked_box(box, size)
    if wrong:
        raise RowError(wrong)
    return text


def _captioned(
    entries: Sequence[Entry], spec: "TaskSpec", problems: Problems
) -> list[CaptionedImage]:
    """One image with all its captions, in the order of the file."""
    captions: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        try:
            texts = entry.texts(spec.targets[0])
        except RowError as error:
            problems.add(f"{entry.where}: expected {error}")
            continue
        if not texts:
            problems.add(f"{entry.where}: expected a caption, found an empty text")
            continue
        captions.setdefault((entry.image_id, entry.image), []).extend(texts)
    return [
        CaptionedImage(image_id, tuple(texts), path) for (image_id, path), texts in captions.items()
    ]


def _number_labels(found: PreparedDataset, words: int, number: int | None) -> None:
    """Labels from 1 in the order of their words, and ``class2label.json``. Args: words, number:
    columns; None: rows have no number."""
    every = sorted(
        {row[words] for groups in found.files.values() for group in groups for row in group.rows}
    )
    labels = {text: place for place, text in enumerate(every, start=1)}
    if number is not None:
        for name, groups in found.files.items():
            found.files[name] = [
                replace(
                    group,
                    rows=tuple(with_cell(row, number, labels[row[words]]) for row in group.rows),
                )
                for group in groups
            ]
    found.texts["class2label.json"] = label_text(labels)


def with_cell(row: tuple[str, ...], number: int, value: int) -> tuple[str, ...]:
    return *row[:number], str(value), *row[number + 1 :]


def _number_answers(found: PreparedDataset, spec: "TaskSpec", column: int) -> None:
    """The answer set of what training rows teach."""
    groups = found.files.get(file_name(spec, "train"), [])
    if groups:
        taught = (learned_answer(row[column]) for group in groups for row in group.rows)
        found.texts[ANSWER_SET] = label_text(number_answers(taught))
