"""People's own data: a CSV file with a header or a JSONL file, one entry per row -> the training
files of a task.

    image,question,answer       {"image": "a.jpg", "caption": ["A dog.", "A brown dog runs."]}
    a.jpg,what is it?,a dog     {"image": "b.jpg", "text": "left dog", "box": [10, 20, 110, 220]}

A column of another name is named with ``--columns image=photo``. Which columns there are, and what
each holds, the task declares.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.values import SHOWN, Ids, RowError, not_one_text, words_of
from ofa.prepare.annotations import (
    Entry,
    Problems,
    find_image,
    one_of,
    read_csv,
    read_json_lines,
    read_prefixes,
)
from ofa.prepare.answer_column import ANSWER_SET, number_answers
from ofa.prepare.coco_captions import check_unique
from ofa.prepare.dataset import PreparedDataset, label_text, split_at_random
from ofa.prepare.source import ImageOptions, Source, TableOptions, image_folders
from ofa.prepare.table_cells import CORNERS, TableRow, cell_of, texts_of
from ofa.prepare.tsv_writer import CAPTION_KINDS, CaptionedImage, Group
from ofa.task.columns import Column
from ofa.task.text import learned_answer

if TYPE_CHECKING:
    # imports torch: what only reads tables starts without it
    from ofa.task.task_spec import TaskSpec

logger = logging.getLogger(__name__)

SPLITS = {name: name for name in ("train", "val", "test")}
SPLITS |= dict.fromkeys(("valid", "validation", "dev"), "val")
# of every task; else the row's number, and the image's name without its ending
OPTIONAL = ("id", "image_id")


@dataclass(frozen=True, kw_only=True)
class OwnTableOptions(ImageOptions, TableOptions):
    """People's own table."""

    files: tuple[str, ...] = option(help="a row or a line per entry", positional=True)
    task: str = option(help="task that the data are for: caption, vqa, refcoco, ...")
    images: tuple[str, ...] = option((), "folders or TSV files of the images, if there are any")
    split: Literal["train", "val", "test"] = option(
        "train", "split of entries that have no column 'split'", exclusive="split"
    )
    val_fraction: float | None = option(
        None, "part of the images, at random, for validation", exclusive="split"
    )
    id_prefix: tuple[str, ...] | None = option(
        None, "prefix of the ids of each file; alone: the files' names", empty=True
    )
    keep_case: bool = option(False, "keep capitals in answers; else lower case")


@dataclass(frozen=True, kw_only=True)
class CsvOptions(OwnTableOptions):
    """The same as CSV."""

    delimiter: str | None = option(
        None,
        "between columns, if not a tab in .tsv files or else a comma",
        parse=lambda text: character(text),
    )


def character(text: str) -> str:
    """One character, also as ``\\t``."""
    text = text.replace("\\t", "\t")
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character such as ; or a tab")
    return text


def read_own_table(
    kind: str, options: OwnTableOptions, problems: Problems, spec: "TaskSpec | None" = None
) -> PreparedDataset:
    """The files of a task. Args: kind: ``csv`` or ``jsonl``. spec: the task; None: that of
    ``--task``."""
    from ofa.tasks import spec_of

    spec = spec or spec_of(options.task)
    check_columns_option(spec, options)
    entries = read_entries(kind, options)
    check_columns(spec, options, [entry for _, entry in entries])
    rows = place_rows(spec, options, entries, problems)
    if kind == "csv":
        rows = [row for row in rows if holds_texts(row, spec, problems)]
    else:
        warn_of_missing(rows, spec)
    captions = {n: column.kind for n, column in file_columns(spec).items()} == CAPTION_KINDS
    if spec.has("id") and not captions:
        check_ids(rows)
    parts = {name: [row for row in rows if row.split == name] for name in ("train", "val", "test")}
    if options.val_fraction is not None:
        parts = split_at_random(
            rows, lambda row: row.image or row.where, options.val_fraction, options.seed
        )
    found = PreparedDataset(inputs=list(options.files))
    if captions:
        found.caption_files = spec.files[0]
        found.images_of = {name: captioned(part, spec, problems) for name, part in parts.items()}
        check_unique(found.images_of)
        return found
    for name, part in parts.items():
        add_file(found, spec, name, part, problems)
    problems.settle()
    number_classes(found, spec)
    if not spec.has("image"):
        found.readers = {name: partial(rows_again, groups) for name, groups in found.files.items()}
        found.files = {}
    return found


def file_columns(spec: "TaskSpec") -> dict[int, Column]:
    """Number in the files that are written -> column."""
    numbers = spec.numbers()
    return dict(zip(numbers.values(), spec.columns_named(numbers), strict=True))


def check_columns_option(spec: "TaskSpec", options: OwnTableOptions) -> None:
    """Raises: UserError for a task of images without images, and for ``--columns`` that the task
    does not know."""
    if spec.has("image") and not options.images:
        raise UserError(
            f"--images: task '{spec.name}' expects the folder of the images that the table names,"
            " found none; give it"
        )
    columns = sorted(file_columns(spec).values(), key=spec.columns.index)
    columns = [column for column in columns if column.kind != "id"]
    others = [*(CORNERS if spec.has("box") else ()), "id", "split"]
    others += ["image_id"] if spec.has("image") else []
    known = {*others, *(name for column in columns for name in column.names)}
    for name, column in options.columns:
        if name not in known:
            listed = dict.fromkeys([*(column.public_name for column in columns), *others])
            raise UserError(
                f"--columns {name}={column}: task {spec.name!r} knows the columns"
                f" {', '.join(listed)}; correct the name before '='"
            )


def read_entries(kind: str, options: OwnTableOptions) -> list[tuple[str, Entry]]:
    """(id prefix, entry) of all files."""
    found = []
    for path, prefix in zip(options.files, read_prefixes(options.id_prefix, options.files)):
        entries = (
            read_csv(path, getattr(options, "delimiter", None))
            if kind == "csv"
            else read_json_lines(path)
        )
        found += [(prefix, entry) for entry in entries]
    return found


def check_columns(spec: "TaskSpec", options: OwnTableOptions, entries: Sequence[Entry]) -> None:
    """Raises: UserError if no entry has a column of the task. An entry without it has null
    there."""
    columns = dict(options.columns)
    known = dict.fromkeys(name for entry in entries for name in entry)
    for column in file_columns(spec).values():
        there = any(columns.get(name, name) in known for name in column.names)
        in_corners = column.kind == "box" and set(CORNERS) <= {*known, *columns}
        if column.needed and column.kind != "id" and not there and not in_corners:
            name = column.public_name
            raise UserError(
                f"{entries[0].where}: expected a column {columns.get(name, name)!r} for the task's"
                f" {name!r}, found {', '.join(known)}; name it with --columns {name}=..."
            )


def place_rows(
    spec: "TaskSpec",
    options: OwnTableOptions,
    entries: Sequence[tuple[str, Entry]],
    problems: Problems,
) -> list[TableRow]:
    """The entries under the task's column names, with their splits and images."""
    rows, images = [], image_folders(options)
    for number, (prefix, entry) in enumerate(entries):
        with problems.at(entry.where):
            named = {name: entry.get(column) for name, column in options.columns}
            row = TableRow(
                entry.where,
                {**entry, **named},
                number,
                prefix,
                options.box_format,
                options.keep_case,
            )
            stated = one_of(row.text("split") or options.split, SPLITS, "a split")
            paths: dict[str, str] = {}
            for column in spec.images:
                what = f"the name of an image as {column.public_name!r}"
                name = words_of(row.value(column), what, column.public_name)
                assert images is not None  # of check_columns_option
                paths[column.name] = find_image(images, name)
            image = paths.pop(next(iter(paths))) if paths else ""
            row = replace(row, split=SPLITS[stated], image=image, others=paths)
            _ = row.uniq_id, row.image_id  # both are texts
            rows.append(row)
    return rows


def check_ids(rows: Sequence[TableRow]) -> None:
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
    for row in rows:
        ids.add(row.uniq_id.removeprefix(row.prefix), row.where, row.prefix)
        if (row.image_id, row.image) not in images:
            images.add((row.image_id, row.image))
            image_id = row.image_id.removeprefix(row.prefix)
            image_ids.add(image_id, f"{row.where} ({row.image})", row.prefix)


def values_of_texts(row: TableRow, spec: "TaskSpec") -> Iterator[tuple[str, Any]]:
    """Name and value of every column of texts."""
    for column in file_columns(spec).values():
        if column.kind in ("text", "texts", "label", "answer"):
            yield column.public_name, row.value(column)


def holds_texts(row: TableRow, spec: "TaskSpec", problems: Problems) -> bool:
    """Whether a row of a CSV file holds texts: there, null, lists and objects are words as well."""
    optional = ((name, row.values.get(name)) for name in OPTIONAL)
    for name, value in (*values_of_texts(row, spec), *optional):
        if value and (kind := not_one_text(value)):
            problems.add(
                f"{row.where}: expected a text as {name!r}, found {value[:SHOWN]!r}, {kind}; if"
                " it is meant, write it in JSONL"
            )
            return False
    return True


def warn_of_missing(rows: Sequence[TableRow], spec: "TaskSpec") -> None:
    """Words that programs write for a missing value may be meant: they stay, but nobody is left
    in the dark."""
    found = [
        (row.where, name)
        for row in rows
        for name, value in values_of_texts(row, spec)
        if isinstance(value, str) and not_one_text(value)
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


# ------------------------------------------------------------------------------------ files


def file_name(spec: "TaskSpec", split: str) -> str:
    """``vqa_train.tsv``."""
    return f"{spec.files[0]}_{spec.usage.validation if split == 'val' else split}.tsv"


def add_file(
    found: PreparedDataset,
    spec: "TaskSpec",
    split: str,
    rows: Sequence[TableRow],
    problems: Problems,
) -> None:
    """The rows of a split. The number of a class is filled in when all are known."""
    columns, cells = file_columns(spec), []
    for row in rows:
        with problems.at(row.where):
            filled = [""] * (max(columns) + 1)
            if spec.has("id") and spec.has("image") and 1 < len(filled):
                filled[1] = row.image_id  # where no column of the task stands
            for number, column in columns.items():
                filled[number] = cell_of(row, column)
            cells.append((row.image, tuple(filled)))
    if cells:
        found.add_rows(file_name(spec, split), cells, f"{split}_rows")


def rows_again(groups: Sequence[Group], problems: Problems) -> Iterator[tuple[str, ...]]:
    """The rows of a file of texts alone."""
    return (row for group in groups for row in group.rows)


def captioned(
    rows: Sequence[TableRow], spec: "TaskSpec", problems: Problems
) -> list[CaptionedImage]:
    """One image with all its captions, in the order of the file."""
    captions: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        with problems.at(row.where):
            texts = texts_of(row, spec.targets[0])
            if not texts:
                raise RowError(f"a {spec.targets[0].public_name}, found an empty text")
            captions.setdefault((row.image_id, row.image), []).extend(texts)
    return [
        CaptionedImage(image_id, tuple(texts), path) for (image_id, path), texts in captions.items()
    ]


def number_classes(found: PreparedDataset, spec: "TaskSpec") -> None:
    """The label file of columns that hold any class, the answer set of those that hold answers."""
    columns = file_columns(spec)
    for number, column in columns.items():
        if column.kind == "label" and not column.labels:
            has_number = number > 0 and number - 1 not in columns
            number_labels(found, number, number - 1 if has_number else None)
        elif column.kind == "answer":
            groups = found.files.get(file_name(spec, "train"), [])
            taught = [learned_answer(row[number]) for group in groups for row in group.rows]
            if taught:
                found.texts[ANSWER_SET] = label_text(number_answers(taught))


def number_labels(found: PreparedDataset, words: int, number: int | None) -> None:
    """Labels from 1 in the order of their words, and ``class2label.json``. Args: words, number:
    columns; None: rows have no number."""
    groups = [group for groups in found.files.values() for group in groups]
    every = sorted({row[words] for group in groups for row in group.rows})
    labels = {text: place for place, text in enumerate(every, start=1)}
    found.texts["class2label.json"] = label_text(labels)
    if number is not None:
        for name, groups in found.files.items():
            found.files[name] = [
                Group(
                    group.source,
                    tuple(
                        (*row[:number], str(labels[row[words]]), *row[number + 1 :])
                        for row in group.rows
                    ),
                )
                for group in groups
            ]


SOURCES = {
    kind: Source(
        options,
        partial(read_own_table, kind),
        "the files of the task, such as vqa_train.tsv and vqa_val.tsv",
        f"ofa prepare {kind} photos.{kind} --task vqa_gen --images photos --columns image=file "
        f"answer=reply --val-fraction 0.1 --out data/photos",
    )
    for kind, options in (("csv", CsvOptions), ("jsonl", OwnTableOptions))
}
