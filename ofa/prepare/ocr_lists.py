"""Images of text and lists of what is written on them -> rows of the text recognition files.

train/word_1.png <tab> Open daily        as PaddleOCR and many others write their lists
word_1.png, "Open daily"                 as the ICDAR competitions do; "###" is left out
train/word_1.png Open daily              a path without spaces, a space, the text
"""

import re
from dataclasses import dataclass
from pathlib import Path

from ofa.io.flags import option
from ofa.io.image_files import ImageFolders
from ofa.io.values import SHOWN, RowError, one_line
from ofa.prepare.annotations import Problems, find_image, numbered_lines
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.source import SourceOptions, given_splits, source
from ofa.prepare.tsv_writer import IMAGE

QUOTED = re.compile(r'(?P<path>[^,]+?)\s*,\s*"(?P<text>.*)"')
ILLEGIBLE = "###"


@dataclass(frozen=True, kw_only=True)
class OcrOptions(SourceOptions):
    train: str | None = option(None, "images and texts of ocr_train.tsv")
    val: str | None = option(None, "images and texts of ocr_val.tsv")
    test: str | None = option(None, "images and texts of ocr_test.tsv")
    images: tuple[str, ...] = option((), "folders of the image files, if not that of each list")


@source(OcrOptions, "ocr")
def read_ocr_lists(options: OcrOptions, problems: Problems) -> PreparedDataset:
    """One file per split.

    Writes ocr_train.tsv, ocr_val.tsv, ocr_test.tsv (of the lists that are given) and manifest.json.

    example: ofa prepare ocr --train rec_gt_train.txt --val rec_gt_val.txt --images words --out
    dataset/ocr_data. A list has lines 'image TAB text', as PaddleOCR's, or 'image, "text"', as
    those of ICDAR.
    """
    files = given_splits(options)
    found = PreparedDataset(inputs=list(files.values()))
    for split, path in files.items():
        images, rows, illegible = ImageFolders(options.images or [Path(path).parent]), [], 0
        for where, line in numbered_lines(path, "'image <tab> text'"):
            with problems.at(where):
                name, text = parted(line)
                if text == ILLEGIBLE:
                    illegible += 1
                    continue
                cells = f"{split}_{where.rpartition(':')[2]}", IMAGE, text
                rows.append((find_image(images, name), cells))
        found.add_rows(f"ocr_{split}.tsv", rows, f"{split}_texts")
        found.counts[f"{split}_illegible"] = illegible
    return found


def parted(line: str) -> tuple[str, str]:
    """Name of the image and text of a line. Raises: RowError if it has no text."""
    if "\t" in line:
        name, _, text = line.partition("\t")
    elif match := QUOTED.fullmatch(line.strip()):
        name, text = match["path"], match["text"].replace('\\"', '"')
    else:
        name, _, text = line.strip().partition(" ")
    if not one_line(text):
        raise RowError(f"an image and its text, found {line[:SHOWN]!r}")
    return name.strip(), one_line(text)
