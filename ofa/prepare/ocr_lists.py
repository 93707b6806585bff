"""Images of text and lists of what is written on them -> rows of the text recognition files.

train/word_1.png <tab> Open daily        as PaddleOCR and many others write their lists
word_1.png, "Open daily"                 as the ICDAR competitions do; "###" is left out
train/word_1.png Open daily              a path without spaces, a space, the text
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ofa.errors import UserError
from ofa.io.image_files import ImageFolders
from ofa.io.text_files import read_lines
from ofa.io.values import one_line
from ofa.prepare.prepared_dataset import PreparedDataset, Problems, grouped
from ofa.prepare.tsv_writer import IMAGE

QUOTED = re.compile(r'(?P<path>[^,]+?)\s*,\s*"(?P<text>.*)"')
ILLEGIBLE = "###"


def read_label_lists(
    files: Mapping[str, str], images: ImageFolders | None, problems: Problems
) -> PreparedDataset:
    """One file per split, ``ocr_train.tsv`` and so on.

    Args: files: split -> list. images: where the images are; None: beside each list.
    """
    found = PreparedDataset("ocr", inputs=list(files.values()), settings={"splits": list(files)})
    for split, path in files.items():
        folders, rows, illegible = images or ImageFolders([Path(path).parent]), [], 0
        for number, line in numbered_lines(path):
            where = f"{path}:{number}"
            name, text = parted(line)
            image = folders.find(name) if text else None
            if text == ILLEGIBLE:
                illegible += 1
            elif not text:
                problems.add(f"{where}: expected an image and its text, found {line[:60]!r}")
            elif image is None:
                problems.add(f"{where}: expected an image {name!r} below {folders}, found none")
            else:
                rows.append((image, (f"{split}_{number}", IMAGE, text)))
        found.files[f"ocr_{split}.tsv"] = grouped(rows)
        found.counts |= {f"{split}_texts": len(rows), f"{split}_illegible": illegible}
    found.counts |= problems.counts()
    problems.settle()
    return found


def numbered_lines(path: str) -> list[tuple[int, str]]:
    """Numbers, from 1, and content of the lines that hold something. Raises: UserError if there
    are none."""
    numbered = [
        (number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip()
    ]
    if not numbered:
        raise UserError(f"{path}: expected lines 'image <tab> text', found an empty file")
    return numbered


def parted(line: str) -> tuple[str, str]:
    """Name of the image and text of a line; the text is empty if there is none."""
    if "\t" in line:
        name, _, text = line.partition("\t")
    elif match := QUOTED.fullmatch(line.strip()):
        name, text = match["path"], match["text"].replace('\\"', '"')
    else:
        name, _, text = line.strip().partition(" ")
    return name.strip(), one_line(text)
