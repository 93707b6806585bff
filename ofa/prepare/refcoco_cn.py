"""RefCOCO-CN -> rows of the Chinese grounding files: as published (TSV), or a JSONL file with the
images beside it; both become the published columns.

    79_1 <tab> 左边的红色汽车 <tab> 10.5,20.0,200.0,150.0 <tab> /9j/4AAQ...
    {"id": "79_1", "image": "a.jpg", "text": "左边的红色汽车", "box": [10.5, 20, 200, 150]}
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_files import TABLE, stored_form, table_images
from ofa.io.values import Ids, words_of
from ofa.prepare.annotations import Problems
from ofa.prepare.csv_jsonl import OwnTableOptions, check_ids, read_rows
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.source import SourceOptions, TableOptions, given_splits, source
from ofa.prepare.table import TableRow, dataset_of
from ofa.tasks import spec_of

EXPRESSIONS = "lines with id, image, text, box; or a published file (base64 images)"
IMAGE_COLUMN = 3  # of the published files
PUBLISHED_COLS = "0,3,1,2"  # of id, image, text and box


@dataclass(frozen=True, kw_only=True)
class RefcocoCnOptions(SourceOptions, TableOptions):
    train: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    val: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    testA: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    testB: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    images: tuple[str, ...] = option(
        (), "images of JSONL files: folders, or image ids with base64", metavar="DIR|TSV"
    )


@source(RefcocoCnOptions, "refcoco-cn")
def read_refcoco_cn(options: RefcocoCnOptions, problems: Problems) -> PreparedDataset:
    """The splits that are given.

    Writes refcoco_cn_SPLIT.tsv for every split and manifest.json.

    example: ofa prepare refcoco-cn --train refcoco_cn_train.jsonl --val refcoco_cn_val.jsonl
    --images train2014 --out dataset/refcoco_cn_data
    """
    spec = replace(spec_of("refcoco"), default_cols=PUBLISHED_COLS)
    names = ("images", "columns", "box_format", "out")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    splits, rows = given_splits(options), list[TableRow]()
    for split, path in splits.items():
        if path.endswith(TABLE):
            rows += published_rows(path, split, problems)
        elif not options.images:
            raise UserError(
                f"--{split} {path}: expected --images with the images of a JSONL file, found"
                " none; give it"
            )
        else:
            table = OwnTableOptions(files=(path,), task="refcoco", **given)
            own_rows = read_rows(table, problems, spec)
            check_ids(own_rows, of_images=False)
            rows += [replace(row, split=split) for row in own_rows]
    inputs = list(splits.values())
    return dataset_of(spec, rows, problems, options, inputs, "refcoco_cn_{}.tsv")


def published_rows(path: str, split: str, problems: Problems) -> Iterator[TableRow]:
    """The rows of a published file, whose boxes are in pixels as they are stored."""
    ids = Ids("id", "make the ids unique; is the file put together of two?")
    with open(path, encoding="utf-8") as file:
        images = table_images(path, IMAGE_COLUMN)
        for number, (line, (uniq_id, image)) in enumerate(zip(file, images), start=1):
            where = f"{path}:{number}"
            _, text, box, *_ = line.split("\t", IMAGE_COLUMN)
            with problems.at(where):
                ids.add(uniq_id, where)
                text = words_of(text, "a text in column 1")
                values = {"id": uniq_id, "text": text, "box": box}
                yield TableRow(where, values, split, image, stored_form(image)[0])
