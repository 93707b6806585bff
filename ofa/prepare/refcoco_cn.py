"""RefCOCO-CN -> rows of the Chinese grounding files, ``refcoco_cn_train.tsv`` and so on.

As published (TSV), or a JSONL file with the images beside it; both become the published columns
(uniq-id, text, x0,y0,x1,y1, image)::

    79_1 <tab> 左边的红色汽车 <tab> 10.5,20.0,200.0,150.0 <tab> /9j/4AAQ...
    {"id": "79_1", "image": "a.jpg", "text": "左边的红色汽车", "box": [10.5, 20, 200, 150]}
"""

from dataclasses import dataclass

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_files import TABLE, stored_form, table_images, turned_box
from ofa.io.numbers import read_decimal
from ofa.io.values import Ids, RowError, one_line
from ofa.prepare.annotations import Problems
from ofa.prepare.csv_jsonl import OwnTableOptions, read_own_table
from ofa.prepare.dataset import PreparedDataset, box_cell
from ofa.prepare.source import Source, SourceOptions, TableOptions, given_splits
from ofa.prepare.tsv_writer import IMAGE

SPLITS = ("train", "val", "testA", "testB")
EXPRESSIONS = "lines with id, image, text, box; or a published file (base64 images)"
IMAGE_COLUMN = 3  # of the published files


@dataclass(frozen=True, kw_only=True)
class RefcocoCnOptions(SourceOptions, TableOptions):
    """RefCOCO-CN."""

    train: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    val: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    testA: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    testB: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    images: tuple[str, ...] = option(
        (), "images of JSONL files: folders, or image ids with base64", metavar="DIR|TSV"
    )


def read_refcoco_cn(options: RefcocoCnOptions, problems: Problems) -> PreparedDataset:
    """The splits that are given."""
    splits = given_splits(options, *SPLITS)
    found = PreparedDataset(inputs=list(splits.values()))
    for split, path in splits.items():
        if path.endswith(TABLE):
            rows = published_rows(path, problems)
        elif options.images:
            rows = own_rows(path, options, problems)
        else:
            raise UserError(
                f"--{split} {path}: expected --images with the images of a JSONL file, found"
                " none; give it"
            )
        found.add_rows(f"refcoco_cn_{split}.tsv", rows, f"{split}_sentences")
    return found


def own_rows(
    path: str, options: RefcocoCnOptions, problems: Problems
) -> list[tuple[str, tuple[str, ...]]]:
    """The rows of a JSONL file, without the image id that other grounding files have."""
    table = OwnTableOptions(
        files=(path,),
        task="refcoco",
        images=options.images,
        columns=options.columns,
        box_format=options.box_format,
        out=options.out,
    )
    return [
        (group.source, (uniq_id, text, box, image))
        for groups in read_own_table("jsonl", table, problems).files.values()
        for group in groups
        for uniq_id, _, text, box, image in group.rows
    ]


def published_rows(path: str, problems: Problems) -> list[tuple[str, tuple[str, ...]]]:
    """The rows of a published file, each checked: a text, and a box inside its image."""
    rows: list[tuple[str, tuple[str, ...]]] = []
    ids = Ids("id", "make the ids unique; is the file put together of two?")
    with open(path, encoding="utf-8") as file:
        images = table_images(path, IMAGE_COLUMN)
        for number, (line, (uniq_id, image)) in enumerate(zip(file, images), start=1):
            _, text, box, *_ = line.split("\t", IMAGE_COLUMN)
            where = f"{path}:{number}"
            with problems.at(where):
                cell = _box_cell(box, image)
                if not one_line(text):
                    raise RowError("a text in column 1, found none")
                ids.add(uniq_id, where)
                rows.append((image, (uniq_id, one_line(text), cell, IMAGE)))
    return rows


def _box_cell(text: str, image: str) -> str:
    """The box in upright pixels; it is published in those as they are stored. Raises: RowError."""
    try:
        box = tuple(map(read_decimal, text.split(",")))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise RowError(f"a box x0,y0,x1,y1 in column 2, found {text[:40]!r}")
    size, orientation = stored_form(image)
    if not all(size):  # a broken image, which is named later
        return text
    return box_cell(*turned_box(box, size, (size, orientation)))


SOURCES = {
    "refcoco-cn": Source(
        RefcocoCnOptions,
        read_refcoco_cn,
        "refcoco_cn_SPLIT.tsv for every split",
        "ofa prepare refcoco-cn --train refcoco_cn_train.jsonl --val refcoco_cn_val.jsonl --images "
        "train2014 --out dataset/refcoco_cn_data",
    )
}
