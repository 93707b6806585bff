"""ImageNet: folders named by synset, or lists of files, and the synsets' words -> rows ``image
<tab> 769 <tab> rugby ball``, the label counted from 1 in the order of the synset file."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_files import ImageFolders
from ofa.io.values import SHOWN, RowError, one_line
from ofa.prepare.annotations import Problems
from ofa.prepare.dataset import PreparedDataset, label_text
from ofa.prepare.image_folder import ClassOptions, class_files, read_class_names, sub_folders
from ofa.prepare.source import given_splits, source
from ofa.prepare.tsv_writer import IMAGE

logger = logging.getLogger(__name__)

SYNSETS_FILE = "is it synset_words.txt or LOC_synset_mapping.txt?"


@dataclass(frozen=True, kw_only=True)
class ImagenetOptions(ClassOptions):
    synsets: str = option(help="lines 'synset words', in the order of the labels")
    first_label: Literal[0, 1] = option(0, "first of the labels in a list")
    first_words_only: bool = option(False, "only the words before the first comma")


@source(ImagenetOptions, "imagenet")
def read_imagenet(options: ImagenetOptions, problems: Problems) -> PreparedDataset:
    """Folders, or lists of lines ``file synset``, ``file label`` or those of Kaggle.

    Writes imagenet_1k_train.tsv, imagenet_1k_val.tsv, class2label.json and manifest.json.

    example: ofa prepare imagenet --train ILSVRC/train --val LOC_val_solution.csv --images
    ILSVRC/val --synsets LOC_synset_mapping.txt --out dataset/imagenet_1k_data
    """
    splits = given_splits(options)
    synsets = read_synsets(options.synsets, options.first_words_only)
    labels = {synset: number for number, synset in enumerate(synsets, start=1)}
    words = list(synsets.values())
    found = PreparedDataset(inputs=[options.synsets])
    for split, path in splits.items():
        if Path(path).is_dir():
            check_folders(path, labels)
        else:
            found.inputs = [*found.inputs, path]
        images, rows = ImageFolders(options.images or [Path(path).parent]), []
        for where, image, key in class_files(path, images, problems):
            with problems.at(where):
                label = label_of(key, labels, options.first_label)
                rows.append((image, (IMAGE, str(label), words[label - 1])))
        if Path(path).is_dir():
            rows.sort(key=lambda row: int(row[1][1]))  # a list keeps its order
        found.add_rows(f"imagenet_1k_{split}.tsv", rows, f"{split}_images")
    class2label: dict[str, int] = {}
    for label, text in enumerate(words, start=1):
        class2label.setdefault(text, label)
    found.texts["class2label.json"] = label_text(class2label)
    return found


def read_synsets(path: str, first_only: bool = False) -> dict[str, str]:
    """Synset -> words, in the order of the labels: lines ``n02119789 kit fox, Vulpes macrotis``.
    Args: first_only: keep what stands before the first comma."""
    synsets = read_class_names(path, "synset", SYNSETS_FILE)
    if first_only:
        synsets = {synset: one_line(words.split(",")[0]) for synset, words in synsets.items()}
    same = [words for words, count in Counter(synsets.values()).items() if count > 1]
    if same:
        message = "%s: %d words stand for more than one synset and count as the same answer: %s"
        logger.warning(message, path, len(same), ", ".join(same[:5]))
    return synsets


def check_folders(top: str, labels: Mapping[str, int]) -> None:
    """Raises: UserError for folders of anything but synsets."""
    unknown = [name for name in sub_folders(top) if name not in labels]
    if unknown:
        raise UserError(
            f"{top}: expected one sub-folder per synset of --synsets, found {unknown[0]!r}"
            f" ({len(unknown)} such folders); is it the right folder, and the right list?"
        )


def label_of(key: str, labels: Mapping[str, int], first: int) -> int:
    """The label, from 1, of a synset, or of a label counted from ``first``; Kaggle's boxes follow
    it. Raises: RowError."""
    text = (key.split() or [""])[0]
    is_number = text.isdecimal() and len(text) < 19
    label = labels.get(text, int(text) - first + 1 if is_number else 0)
    if not 1 <= label <= len(labels):
        raise RowError(
            f"'file synset' or 'file label' of {len(labels)} labels counted from {first}, found"
            f" {key[:SHOWN]!r}"
        )
    return label
