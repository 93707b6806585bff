"""People's own data: a CSV file with a header or a JSONL file, one entry per row -> the training
files of a task, which declares the columns.

    image,question,answer       {"image": "a.jpg", "caption": ["A dog.", "A brown dog runs."]}
    a.jpg,what is it?,a dog     {"image": "b.jpg", "text": "left dog", "box": [10, 20, 110, 220]}
"""

import argparse
import difflib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_files import ImageFolders
from ofa.io.terminal import with_noun
from ofa.io.values import SHOWN, Ids, RowError, not_one_text, words_of
from ofa.prepare.annotations import (
    Problems,
    find_image,
    one_of,
    read_csv,
    read_json_lines,
    read_prefixes,
)
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.source import DivideOptions, ImageOptions, TableOptions, source
from ofa.prepare.table import (
    CORNERS,
    TableRow,
    dataset_of,
    file_columns,
    has_image_ids,
    holds_captions,
)
from ofa.task.columns import Column

if TYPE_CHECKING:
    # imports torch: what only reads tables starts without it
    from ofa.task.task_spec import TaskSpec

logger = logging.getLogger(__name__)

# What other data sets call the columns, the likeliest first; by our names.
OTHER_NAMES = {
    "image": "file_name filename file image_path image_file img_path img path photo",
    "caption": "text captions sentence description title",
    "question": "query prompt",
    "answer": "answers response label",
    "label": "class category class_name labels target answer gold_label",
    "text": "sentence expression phrase ref caption query label",
    "box": "bbox region bounding_box",
    "hypothesis": "sentence2 sentence text caption",
    "premise": "sentence1",
    "source": "text document article",
    "target": "summary",
}
BOX_NAMES = (
    *("x y w h", "x y width height", "xmin ymin xmax ymax", "x1 y1 x2 y2"),
    *("left top right bottom", "x_min y_min x_max y_max"),
)
SPLITS = {name: name for name in ("train", "val", "test")}
SPLITS |= dict.fromkeys(("valid", "validation", "dev"), "val")


@dataclass(frozen=True, kw_only=True)
class OwnTableOptions(ImageOptions, TableOptions, DivideOptions):
    files: tuple[str, ...] = option(help="a row or a line per entry", positional=True)
    task: str = option(help="task that the data are for: caption, vqa, refcoco, ...")
    images: tuple[str, ...] = option((), "folders or TSV files of the images, if there are any")
    split: Literal["train", "val", "test"] = option(
        "train", "split of entries that have no column 'split'", exclusive="split"
    )
    keep_case: bool = option(False, "keep capitals in answers; else lower case")


def character(text: str) -> str:
    """One character, also as ``\\t``."""
    text = text.replace("\\t", "\t")
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character such as ; or a tab")
    return text


@dataclass(frozen=True, kw_only=True)
class CsvOptions(OwnTableOptions):
    delimiter: str | None = option(
        None, "between columns, if not as the header shows: , ; | or a tab", parse=character
    )


@source(CsvOptions, "csv")
@source(OwnTableOptions, "jsonl")
def read_own_table(
    options: OwnTableOptions, problems: Problems, spec: "TaskSpec | None" = None
) -> PreparedDataset:
    """The files of the task. Args: spec: it; None: that of ``--task``.

    Writes the files of the task, such as vqa_train.tsv and vqa_val.tsv and manifest.json.

    example: ofa prepare KIND photos.KIND --task vqa_gen --images photos --columns image=file
    answer=response --val-fraction 0.1 --out data/photos
    """
    from ofa.tasks import spec_of

    spec = spec or spec_of(options.task)
    rows = read_rows(options, problems, spec)
    columns = file_columns(spec)
    if spec.has("id") and not holds_captions(columns):
        check_ids(rows, has_image_ids(columns))
    found = dataset_of(spec, rows, problems, options, options.files)
    note_without_validation(rows, options.val_fraction)
    return found


def read_rows(options: OwnTableOptions, problems: Problems, spec: "TaskSpec") -> list[TableRow]:
    """The rows of all files under the task's column names, with their splits and images."""
    if spec.has("image") and not options.images:
        raise UserError(
            f"--images: task '{spec.name}' expects the folder of the images that the table names,"
            " found none; give it"
        )
    called = dict(options.columns)
    check_names(spec, called)
    public = {name: one.public_name for one in columns_to_fill(spec) for name in one.names}
    called = {public.get(name, name): column for name, column in called.items()}
    rows: list[TableRow] = []
    known: dict[str, None] = {}  # columns of any row
    folded = {name.casefold(): name for name in (*names_of(spec), *called.values())}
    for path, prefix in zip(options.files, read_prefixes(options.id_prefix, options.files)):
        if isinstance(options, CsvOptions):
            entries = read_csv(path, options.delimiter)
        else:
            entries = read_json_lines(path)
        for entry in entries:
            values = {folded.get(name.strip().casefold(), name): entry[name] for name in entry}
            values |= {name: entry[name] for name in folded.values() if name in entry}
            known |= dict.fromkeys(values)
            values |= {name: values.get(column) for name, column in called.items()}
            rows.append(TableRow(entry.where, values, number=len(rows), prefix=prefix))
    is_csv = isinstance(options, CsvOptions)  # its first line names the columns
    check_columns(spec, called, known, f"{options.files[0]}:1" if is_csv else rows[0].where)
    images = ImageFolders(options.images) if options.images else None
    placed, words = [], []
    for row in rows:
        with problems.at(row.where):
            row = place(row, options, spec, images)
            found = list(words_of_programs(row, spec))
            # in CSV, null, lists and objects are words as well
            if found and isinstance(options, CsvOptions):
                raise RowError(found[0][1], "if it is meant, write it in JSONL")
            words += [(name, row.where) for name, _ in found]
            placed.append(row)
    if words:
        logger.warning(
            "%s such as 'nan', 'NULL' or a list, as programs write values, the first %r in %s;"
            " taken as written: remove the rows if nobody wrote them",
            *(with_noun(len(words), "text"), *words[0]),
        )
    return placed


def note_without_validation(rows: Sequence[TableRow], fraction: float | None) -> None:
    """Warn where there is nothing to validate with. Args: fraction: kept for it."""
    splits = {row.split for row in rows}
    if fraction is None and "train" in splits and "val" not in splits:
        logger.warning("no validation part: add --val-fraction 0.1, or say what belongs to it")


def columns_to_fill(spec: "TaskSpec") -> list[Column]:
    """Columns of the task that the table has to have: all but the ids, which may be numbered."""
    columns = sorted(file_columns(spec).values(), key=spec.columns.index)
    return [column for column in columns if column.kind != "id"]


def names_of(spec: "TaskSpec", public: bool = False) -> list[str]:
    """Every name that a column of a table may have. Args: public: the usual one of each."""
    names = [
        name
        for column in columns_to_fill(spec)
        for name in ([column.public_name] if public else column.names)
    ]
    names += [*(CORNERS if spec.has("box") else ()), "id", "split"]
    return [*names, "image_id"] if spec.has("image") else names


def check_names(spec: "TaskSpec", called: Mapping[str, str]) -> None:
    """Raises: UserError for names in ``--columns`` that the task does not know.

    Args: called: column -> its name in the table, where it is another one.
    """
    if unknown := called.keys() - set(names_of(spec)):
        name, listed = min(unknown), dict.fromkeys(names_of(spec, public=True))
        raise UserError(
            f"--columns {name}={called[name]}: task {spec.name!r} knows the columns"
            f" {', '.join(listed)}; correct the name before '='"
        )


def check_columns(
    spec: "TaskSpec", called: Mapping[str, str], known: Collection[str], where: str
) -> None:
    """Raises: UserError if no row has a column that the task needs.

    Args: called: as of ``check_names``. known: columns of any row. where: they are named.
    """
    missing, used = [], set()
    for column in columns_to_fill(spec):
        there = {called.get(name, name) for name in column.names}.intersection(known)
        corners = {called.get(name, name) for name in CORNERS}.intersection(known)
        corners = corners if column.kind == "box" else set()
        used |= there | corners
        if column.needed and not there and len(corners) < len(CORNERS):
            missing.append(column.public_name)
    if missing:
        name = missing[0]
        left = [column for column in known if column not in used]
        meant = list(filter(None, (like(name, left) for name in missing)))
        remedy = f"did you mean --columns {' '.join(meant)}?" if meant else ""
        header = "" if used or meant else ", or write the names of the columns in the first line"
        raise UserError(
            f"{where}: expected a column {called.get(name, name)!r} for the task's {name!r},"
            f" found {', '.join(known)}; {remedy or f'name it with --columns {name}=...'}{header}"
        )


def like(name: str, found: Collection[str]) -> str:
    """What may be meant by a column that is missing: ``image=file_name``, for a box also
    ``x0=left y0=top x1=right y1=bottom``; or nothing. Args: found: columns that have no use yet."""
    folded = {column.casefold(): column for column in found}
    usual = [other for other in OTHER_NAMES.get(name, "").split() if other in folded]
    for other in (*usual, *difflib.get_close_matches(name, folded, 1)):
        return f"{name}={folded[other]}"
    for names in map(str.split, BOX_NAMES if name == "box" else ()):
        if folded.keys() >= set(names):
            pairs = (f"{corner}={folded[other]}" for corner, other in zip(CORNERS, names))
            return " ".join(pairs) + " --box-format xywh" * names[3].startswith("h")
    return ""


def place(
    row: TableRow, options: OwnTableOptions, spec: "TaskSpec", images: ImageFolders | None
) -> TableRow:
    """The row with its split and images. Raises: RowError."""
    stated = one_of(row.text("split").lower() or options.split, SPLITS, "a split")
    paths: dict[str, str] = {}
    for column in spec.images:
        assert images is not None, "asked for in read_rows"
        what = f"the name of an image as {column.public_name!r}"
        name = words_of(row.value(column), what, column.public_name)
        paths[column.name] = find_image(images, name)
    image = paths.pop(spec.images[0].name) if paths else ""
    form: dict[str, Any] = {"box_format": options.box_format, "keep_case": options.keep_case}
    row = replace(row, split=SPLITS[stated], image=image, others=paths, **form)
    _ = row.uniq_id, row.image_id  # both are texts
    return row


def words_of_programs(row: TableRow, spec: "TaskSpec") -> Iterator[tuple[str, str]]:
    """Name and finding of texts such as ``nan``, which programs write for a missing value."""
    texts = {
        column.public_name: row.value(column)
        for column in file_columns(spec).values()
        if column.kind in ("text", "texts", "label", "answer")
    }
    # of every task; else the row's number, and the image's name without its ending
    texts |= {name: row.values.get(name) for name in ("id", "image_id")}
    for name, value in texts.items():
        if isinstance(value, str) and (found := not_one_text(value)):
            yield name, f"a text as {name!r}, found {value[:SHOWN]!r}, {found}"


def check_ids(rows: Sequence[TableRow], of_images: bool) -> None:
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
        if of_images and (row.image_id, row.image) not in images:
            images.add((row.image_id, row.image))
            image_id = row.image_id.removeprefix(row.prefix)
            image_ids.add(image_id, f"{row.where} ({row.image})", row.prefix)
