"""RefCOCO-CN -> rows of the Chinese grounding files, ``refcoco_cn_train.tsv`` and so on.

As published (TSV), or a JSONL file with the images beside it; both become the published columns
(uniq-id, text, x0,y0,x1,y1, image)::

    79_1 <tab> 左边的红色汽车 <tab> 10.5,20.0,200.0,150.0 <tab> /9j/4AAQ...
    {"id": "79_1", "image": "a.jpg", "text": "左边的红色汽车", "box": [10.5, 20, 200, 150]}
"""

from collections.abc import Mapping

from ofa.errors import UserError
from ofa.io.image_files import TABLE, ImageFolders, stored_form, table_images, turned_box
from ofa.io.numbers import read_decimal
from ofa.io.values import Ids, one_line
from ofa.prepare.csv_jsonl import read_own_table
from ofa.prepare.prepared_dataset import PreparedDataset, Problems, checked_box, grouped
from ofa.prepare.tsv_writer import IMAGE, Group
from ofa.tasks import spec_of

IMAGE_COLUMN = 3  # column of the published files
NAME = "refcoco_cn_{}.tsv"


def read_refcoco_cn(
    splits: Mapping[str, str],
    images: ImageFolders | None,
    problems: Problems,
    columns: Mapping[str, str],
    box_format: str = "xyxy",
) -> PreparedDataset:
    """Args: splits: name such as ``train`` or ``testA`` -> file. columns, box_format: of JSONL
    files, see ``read_own_table``."""
    found = PreparedDataset(
        "refcoco-cn",
        inputs=list(splits.values()),
        settings={"columns": dict(columns), "box_format": box_format},
    )
    for split, path in splits.items():
        if path.endswith(TABLE):
            found.files[NAME.format(split)] = published_rows(path, problems)
            problems.settle()
        elif images is None:
            raise UserError(
                f"--{split} {path}: expected --images with the images of a JSONL file, found"
                " none; give it"
            )
        else:
            own = read_own_table(
                "jsonl",
                [path],
                spec_of("refcoco"),
                images,
                problems,
                columns,
                box_format=box_format,
            ).files
            found.files[NAME.format(split)] = [
                Group(group.source, tuple(map(chinese_order, group.rows)))
                for groups in own.values()
                for group in groups
            ]
        found.counts |= problems.counts()
        found.counts[f"{split}_sentences"] = sum(
            len(group.rows) for group in found.files[NAME.format(split)]
        )
    return found


def chinese_order(row: tuple[str, ...]) -> tuple[str, ...]:
    """id, image-id, text, box, image -> id, text, box, image."""
    return row[0], row[2], row[3], row[4]


def published_rows(path: str, problems: Problems) -> list[Group]:
    """The rows of a published file, each checked: a text, and a box inside its image."""
    rows, ids = [], Ids("id", "make the ids unique; is the file put together of two?")
    with open(path, encoding="utf-8") as file:
        for number, (line, (uniq_id, image)) in enumerate(
            zip(file, table_images(path, IMAGE_COLUMN)), 1
        ):
            _, text, box, *_ = line.split("\t", IMAGE_COLUMN)
            size, orientation = stored_form(image)
            try:
                corners = [read_decimal(corner) for corner in box.split(",")]
            except ValueError:
                corners = []
            if len(corners) != 4:
                finding = f"a box x0,y0,x1,y1 in column 2, found {box[:40]!r}"
            else:
                # as published: of the pixels as they are stored
                turned = turned_box(tuple(corners), size, (size, orientation))
                # broken images are named later
                box, finding = checked_box(*turned) if all(size) else (box, "")
            if finding or not one_line(text):
                problems.add(
                    f"{path}:{number}: expected {finding or 'a text in column 1, found none'}"
                )
                continue
            ids.add(uniq_id, f"{path}:{number}")
            rows.append((image, (uniq_id, one_line(text), box, IMAGE)))
    return grouped(rows)
