"""People's own data: a CSV file with a header or a JSONL file, one entry per row -> the training
files of a task.

    image,question,answer       {"image": "a.jpg", "caption": ["A dog.", "A brown dog runs."]}
    a.jpg,what is it?,a dog     {"image": "b.jpg", "text": "left dog", "box": [10, 20, 110, 220]}

A column of another name is named with ``--columns image=photo``. Which columns a task needs:
``FIELDS``.
"""

import csv
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from ofa.prepare.snli_ve import LABELS
from ofa.prepare.tsv_writer import IMAGE, CaptionedImage
from ofa.prepare.vqa2 import ANSWER_SET
from ofa.task.text import CONFIDENCE, JOIN, learned_answer, parse_answers

logger = logging.getLogger(__name__)

SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
CORNERS = ("x0", "y0", "x1", "y1")
YES_MAYBE_NO = dict(zip(("yes", "maybe", "no"), LABELS))
BOX_FORMATS = ("xyxy", "xywh", "xyxy_norm", "xywh_norm")
OPTIONAL = (
    "id",
    "image_id",
)  # of every task; else the entry's number, and the image's name without its ending


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    Args: where: ``photos.csv:17``. prefix: of ids. keep_case: answers stay as they are typed.
    """

    where: str
    values: Mapping[str, Any]
    split: str = "train"
    image: str = ""
    number: int = 0
    prefix: str = ""
    keep_case: bool = False

    def text(self, name: str) -> str:
        """Of a column that may be missing or null. Raises: RowError for what is no text."""
        value = self.values.get(name)
        return "" if value is None else one_line(text_of(value, f"a text as {name!r}", name))

    def needed(self, name: str) -> str:
        """Raises: RowError if there is no text."""
        return words_of(self.values.get(name), f"a {name}", name)

    def texts(self, name: str) -> list[str]:
        """A list of texts, or a text of parts joined by ``&&``; empty ones are left out. Raises:
        RowError for what is no text."""
        value = self.values.get(name)
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


def _question_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    objects = entry.texts("objects") if entry.values.get("objects") is not None else []
    return (
        entry.uniq_id,
        entry.image_id,
        entry.needed("question"),
        _answers(entry),
        JOIN.join(objects),
        IMAGE,
    )


def _region_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    return (
        entry.uniq_id,
        entry.image_id,
        entry.needed("question"),
        _box(entry, box_format),
        _answers(entry),
        IMAGE,
    )


def _grounding_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    return entry.uniq_id, entry.image_id, entry.needed("text"), _box(entry, box_format), IMAGE


def _entailment_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    written = entry.needed("label")
    label = YES_MAYBE_NO.get(written.lower(), written.lower())
    if label not in LABELS:
        raise RowError(f"a label ({', '.join(LABELS)}), found {written!r}")
    return (
        entry.uniq_id,
        entry.image_id,
        IMAGE,
        entry.needed("hypothesis"),
        entry.text("caption"),
        label,
    )


def _class_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    words = entry.needed("label")
    return IMAGE, words, words  # the number of the label is filled in when all are known


def _reading_row(entry: Entry, box_format: str) -> tuple[str, ...]:
    return entry.uniq_id, IMAGE, entry.needed("text")


@dataclass(frozen=True)
class OwnTask:
    """Columns that a task needs and may have, the file it makes, an entry's row, and which
    column has answers."""

    needs: tuple[str, ...]
    may_have: tuple[str, ...]
    file_name: str
    row: Callable[[Entry, str], tuple[str, ...]] | None
    answers: int | None = None


FIELDS = {
    "caption": OwnTask(("image", "caption"), (), "caption_{}.tsv", None),
    "vqa_gen": OwnTask(
        ("image", "question", "answer"), ("objects",), "vqa_{}.tsv", _question_row, 3
    ),
    "grounded_qa": OwnTask(
        ("image", "question", "box", "answer"), CORNERS, "grounded_qa_{}.tsv", _region_row, 4
    ),
    "refcoco": OwnTask(("image", "text", "box"), CORNERS, "refcoco_{}.tsv", _grounding_row),
    "snli_ve": OwnTask(
        ("image", "hypothesis", "label"), ("caption",), "snli_ve_{}.tsv", _entailment_row
    ),
    "image_classify": OwnTask(("image", "label"), (), "image_classify_{}.tsv", _class_row),
    "ocr": OwnTask(("image", "text"), (), "ocr_{}.tsv", _reading_row),
}


def read_own_table(
    kind: str,
    files: Sequence[str],
    task: str,
    images: ImageFolders,
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
        split: of all entries that have no column ``split``. val_fraction: divide all by image
            instead.
        box_format: ``xyxy`` corners or ``xywh`` corner and size, pixels, or ``xyxy_norm``,
            ``xywh_norm``: fractions of the image.
        delimiter: None: a tab for ``.tsv``, else a comma. id_prefix: before the ids of each file,
            see ``read_prefixes``.
        keep_case: answers stay as they are typed; else they are lowered, as those of VQA v2 are.
    """
    own = FIELDS[task]
    unknown = [
        name for name in columns if name not in (*own.needs, *own.may_have, *OPTIONAL, "split")
    ]
    if unknown:
        raise UserError(
            f"--columns {unknown[0]}={columns[unknown[0]]}: task {task!r} knows the columns"
            f" {', '.join((*own.needs, *own.may_have, *OPTIONAL, 'split'))}; correct the name"
            " before '='"
        )
    entries = [
        replace(entry, prefix=prefix, keep_case=keep_case)
        for path, prefix in zip(files, read_prefixes(id_prefix, files))
        for entry in (_csv_entries(path, delimiter) if kind == "csv" else _jsonl_entries(path))
    ]
    _check_columns(entries, own, columns)
    placed = [
        _placed(entry, number, own, columns, split, images, problems)
        for number, entry in enumerate(entries)
    ]
    entries = [entry for entry in placed if entry is not None]
    if kind == "csv":
        entries = [entry for entry in entries if _has_texts(entry, own, problems)]
    else:
        _warn_of_missing(entries, own)
    if own.row is not None and own.row is not _class_row:
        _check_ids(entries)
    parts = {
        name: [entry for entry in entries if entry.split == name]
        for name in ("train", "val", "test")
    }
    if val_fraction is not None:
        parts = {"test": []} | split_at_random(
            entries, lambda entry: entry.image, val_fraction, seed
        )
    found = PreparedDataset(
        kind,
        inputs=list(files),
        settings={
            "task": task,
            "columns": dict(columns),
            "split": split,
            "val_fraction": val_fraction,
            "seed": seed,
            "box_format": box_format,
            "delimiter": delimiter,
            **({"keep_case": True} if keep_case else {}),
        },
    )
    if task == "caption":
        found.images_of = {name: _captioned(group, problems) for name, group in parts.items()}
        check_unique(found.images_of)
    else:
        _fill(found, own, parts, box_format, problems)
    found.counts |= problems.counts()
    problems.settle()
    if task == "image_classify":
        _number_labels(found)
    elif own.answers is not None:
        _number_answers(found, own)
    return found


def _fill(
    found: PreparedDataset,
    own: OwnTask,
    parts: Mapping[str, list[Entry]],
    box_format: str,
    problems: Problems,
) -> None:
    """The rows of all splits; what cannot become one goes to ``problems``."""
    for name, group in parts.items():
        rows = []
        for entry in group:
            try:
                rows.append((entry.image, own.row(entry, box_format)))
            except RowError as error:
                problems.add(f"{entry.where}: expected {error}")
            except UserError as error:  # of parse_answers, which names the place
                problems.add(str(error))
        if rows:
            upstream = "dev" if name == "val" and own.row is _entailment_row else name
            found.files[own.file_name.format(upstream)] = grouped(rows)
            found.counts[f"{name}_rows"] = len(rows)


def _placed(
    entry: Entry,
    number: int,
    own: OwnTask,
    columns: Mapping[str, str],
    split: str,
    images: ImageFolders,
    problems: Problems,
) -> Entry | None:
    """The entry under the task's column names, with its split and its image; None if it cannot
    be used."""
    values = entry.values | {name: entry.values.get(column) for name, column in columns.items()}
    entry = replace(entry, values=values, number=number)
    try:
        stated = entry.text("split") or split
        if stated not in SPLITS:
            raise RowError(f"a split ({', '.join(SPLITS)}), found {stated[:SHOWN]!r}")
        image_name = words_of(entry.values.get("image"), "the name of an image", "image")
        _ = entry.uniq_id, entry.image_id  # both are texts
    except RowError as error:
        problems.add(f"{entry.where}: expected {error}")
        return None
    image = images.find(image_name)
    if image is None:
        problems.add(f"{entry.where}: expected an image {image_name!r} below {images}, found none")
        return None
    return replace(entry, split=SPLITS[stated], image=image)


def _check_columns(entries: Sequence[Entry], own: OwnTask, columns: Mapping[str, str]) -> None:
    """Raises: UserError if no entry has a column of the task. An entry without it has null
    there."""
    known = dict.fromkeys(name for entry in entries for name in entry.values)
    for name in own.needs:
        column = columns.get(name, name)
        if column not in known and not (name == "box" and set(CORNERS) <= {*known, *columns}):
            raise UserError(
                f"{entries[0].where}: expected a column {column!r} for the task's {name!r}, found "
                f"{', '.join(known)}; name it with --columns {name}=..."
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


def _text_columns(own: OwnTask) -> list[str]:
    return [name for name in (*own.needs, *own.may_have) if name not in ("image", "box", *CORNERS)]


def _has_texts(entry: Entry, own: OwnTask, problems: Problems) -> bool:
    """Whether a row of a CSV file holds texts: there, null, lists and objects are words as well."""
    for name in (*_text_columns(own), *OPTIONAL):
        value = entry.values.get(name) or ""
        if kind := not_one_text(value):
            problems.add(
                f"{entry.where}: expected a text as {name!r}, found {value[:SHOWN]!r}, {kind}; if"
                " it is meant, write it in JSONL"
            )
            return False
    return True


def _warn_of_missing(entries: Sequence[Entry], own: OwnTask) -> None:
    """Words that programs write for a missing value may be meant: they stay, but nobody is left
    in the dark."""
    found = [
        (entry.where, name)
        for entry in entries
        for name in _text_columns(own)
        if _is_missing(entry.values.get(name))
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


def _answers(entry: Entry) -> str:
    """The answer column: of one answer, of several people's, or of answers with confidences (a
    JSON object)."""
    value = entry.values.get("answer")
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


def _box(entry: Entry, box_format: str) -> str:
    value = entry.values.get("box")
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


def _captioned(entries: Sequence[Entry], problems: Problems) -> list[CaptionedImage]:
    """One image with all its captions, in the order of the file."""
    captions: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        try:
            texts = entry.texts("caption")
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


def _number_labels(found: PreparedDataset) -> None:
    """Labels from 1 in the order of their words, and ``class2label.json``."""
    words = sorted(
        {row[2] for groups in found.files.values() for group in groups for row in group.rows}
    )
    labels = {text: number for number, text in enumerate(words, start=1)}
    for name, groups in found.files.items():
        found.files[name] = [
            type(group)(
                group.source, tuple((IMAGE, str(labels[row[2]]), row[2]) for row in group.rows)
            )
            for group in groups
        ]
    found.texts["class2label.json"] = label_text(labels)


def _number_answers(found: PreparedDataset, own: OwnTask) -> None:
    """The answer set of what training rows teach."""
    groups = found.files.get(own.file_name.format("train"), [])
    if groups:
        taught = (learned_answer(row[own.answers]) for group in groups for row in group.rows)
        found.texts[ANSWER_SET] = label_text(number_answers(taught))
