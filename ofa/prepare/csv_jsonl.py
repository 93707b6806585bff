"""People's own data: a CSV file with a header or a JSONL file, one entry per row -> the training
files of a task.

    image,question,answer       {"image": "a.jpg", "caption": ["A dog.", "A brown dog runs."]}
    a.jpg,what is it?,a dog     {"image": "b.jpg", "text": "left dog", "box": [10, 20, 110, 220]}

A column of another name is named with ``--columns image=photo``. Which columns there are, and what
each holds, the task declares.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_files import ImageFolders
from ofa.io.values import SHOWN, Ids, RowError, not_one_text, words_of
from ofa.prepare.annotations import (
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
    rows = read_rows(kind, options, problems, spec)
    parts = {name: [row for row in rows if row.split == name] for name in ("train", "val", "test")}
    if options.val_fraction is not None:
        parts = split_at_random(
            rows, lambda row: row.image or row.where, options.val_fraction, options.seed
        )
    found = PreparedDataset(inputs=list(options.files))
    columns = file_columns(spec)
    if {number: column.kind for number, column in columns.items()} == CAPTION_KINDS:
        found.caption_files = spec.files[0]
        found.images_of = {
            name: captioned(part, columns[2], problems) for name, part in parts.items()
        }
        check_unique(found.images_of)
        return found
    if spec.has("id"):
        check_ids(rows)
    cells = {name: cells_of(part, columns, problems) for name, part in parts.items()}
    problems.settle()
    number_classes(found, columns, cells)
    for name, part in cells.items():
        end = spec.usage.validation if name == "val" else name
        if part:
            found.add_rows(f"{spec.files[0]}_{end}.tsv", part, f"{name}_rows")
    if not spec.has("image"):
        found.readers = {name: partial(rows_again, groups) for name, groups in found.files.items()}
        found.files = {}
    return found


def file_columns(spec: "TaskSpec") -> dict[int, Column]:
    """Number in the files that are written -> column."""
    numbers = spec.numbers()
    return dict(zip(numbers.values(), spec.columns_named(numbers), strict=True))


def read_rows(
    kind: str, options: OwnTableOptions, problems: Problems, spec: "TaskSpec"
) -> list[TableRow]:
    """The rows of all files under the task's column names, with their splits and images."""
    if spec.has("image") and not options.images:
        raise UserError(
            f"--images: task '{spec.name}' expects the folder of the images that the table names,"
            " found none; give it"
        )
    check_option(spec, options)
    rows = []
    for path, prefix in zip(options.files, read_prefixes(options.id_prefix, options.files)):
        entries = (
            read_csv(path, getattr(options, "delimiter", None))
            if kind == "csv"
            else read_json_lines(path)
        )
        for entry in entries:
            values = {**entry, **{name: entry.get(column) for name, column in options.columns}}
            form = (options.box_format, options.keep_case)
            rows.append(TableRow(entry.where, values, len(rows), prefix, *form))
    check_columns(spec, options, rows)
    images, placed, words = image_folders(options), [], []
    for row in rows:
        with problems.at(row.where):
            row = place(row, options.split, spec, images)
            found = list(words_of_programs(row, spec))
            if found and kind == "csv":  # there, null, lists and objects are words as well
                raise RowError(f"{found[0][1]}; if it is meant, write it in JSONL")
            words += [(name, row.where) for name, _ in found]
            placed.append(row)
    if words:
        logger.warning(
            "%d texts are words such as 'nan' or 'NULL', or lists, as programs write values, the"
            " first as %r in %s; they are taken as they are: remove these rows if nobody wrote"
            " them",
            *(len(words), *words[0]),
        )
    return placed


def check_option(spec: "TaskSpec", options: OwnTableOptions) -> None:
    """Raises: UserError for names in ``--columns`` that the task does not know."""
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


def check_columns(spec: "TaskSpec", options: OwnTableOptions, rows: Sequence[TableRow]) -> None:
    """Raises: UserError if no row has a column of the task. A row without it has null there."""
    columns = dict(options.columns)
    known = dict.fromkeys(name for row in rows for name in row.values)
    for column in file_columns(spec).values():
        there = any(columns.get(name, name) in known for name in column.names)
        there |= column.kind == "box" and known.keys() >= set(CORNERS)
        if column.needed and column.kind != "id" and not there:
            name = column.public_name
            found = ", ".join(name for name in known if name not in columns)
            raise UserError(
                f"{rows[0].where}: expected a column {columns.get(name, name)!r} for the task's"
                f" {name!r}, found {found}; name it with --columns {name}=..."
            )


def place(row: TableRow, split: str, spec: "TaskSpec", images: ImageFolders | None) -> TableRow:
    """The row with its split and images. Raises: RowError."""
    stated = one_of(row.text("split") or split, SPLITS, "a split")
    paths: dict[str, str] = {}
    for column in spec.images if images else ():
        what = f"the name of an image as {column.public_name!r}"
        name = words_of(row.value(column), what, column.public_name)
        paths[column.name] = find_image(images, name)
    image = paths.pop(next(iter(paths))) if paths else ""
    row = replace(row, split=SPLITS[stated], image=image, others=paths)
    _ = row.uniq_id, row.image_id  # both are texts
    return row


def words_of_programs(row: TableRow, spec: "TaskSpec") -> Iterator[tuple[str, str]]:
    """Name and finding of texts such as ``nan``, which programs write for a missing value: they
    may be meant."""
    texts = [
        (column.public_name, row.value(column))
        for column in file_columns(spec).values()
        if column.kind in ("text", "texts", "label", "answer")
    ]
    for name, value in [*texts, *((name, row.values.get(name)) for name in OPTIONAL)]:
        if isinstance(value, str) and (found := not_one_text(value)):
            yield name, f"a text as {name!r}, found {value[:SHOWN]!r}, {found}"


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


# ------------------------------------------------------------------------------------ files


def cells_of(
    rows: Sequence[TableRow], columns: Mapping[int, Column], problems: Problems
) -> list[tuple[str, list[str]]]:
    """Image and cells of the rows of a split. The number of a class is filled in when all are
    known."""
    filled, kinds = [], {column.kind for column in columns.values()}
    for row in rows:
        with problems.at(row.where):
            cells = [""] * (max(columns) + 1)
            if {"id", "image"} <= kinds and len(cells) > 1:
                cells[1] = row.image_id  # where no column of the task stands
            for number, column in columns.items():
                cells[number] = cell_of(row, column)
            filled.append((row.image, cells))
    return filled


def number_classes(
    found: PreparedDataset,
    columns: Mapping[int, Column],
    parts: Mapping[str, list[tuple[str, list[str]]]],
) -> None:
    """The label file of a column that holds any class, whose numbers stand in the column before if
    that is no column of the task; the answer set of what training rows teach."""
    for number, column in columns.items():
        if column.kind == "label" and not column.labels:
            rows = [cells for part in parts.values() for _, cells in part]
            words = sorted({cells[number] for cells in rows})
            labels = {text: label for label, text in enumerate(words, start=1)}
            found.texts["class2label.json"] = label_text(labels)
            if number and number - 1 not in columns:
                for cells in rows:
                    cells[number - 1] = str(labels[cells[number]])
        elif column.kind == "answer" and parts["train"]:
            taught = (learned_answer(cells[number]) for _, cells in parts["train"])
            found.texts[ANSWER_SET] = label_text(number_answers(taught))


def rows_again(groups: Sequence[Group], problems: Problems) -> Iterator[tuple[str, ...]]:
    """The rows of a file of texts alone."""
    return (row for group in groups for row in group.rows)


def captioned(rows: Sequence[TableRow], column: Column, problems: Problems) -> list[CaptionedImage]:
    """One image with all its captions, in the order of the file."""
    captions: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        with problems.at(row.where):
            texts = texts_of(row, column)
            if not texts:
                raise RowError(f"a {column.public_name}, found an empty text")
            captions.setdefault((row.image_id, row.image), []).extend(texts)
    return [
        CaptionedImage(image_id, tuple(texts), path) for (image_id, path), texts in captions.items()
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
