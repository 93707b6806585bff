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
from ofa.io.image_files import ImageFolders, is_hidden, list_images
from ofa.io.values import SHOWN, RowError, one_line
from ofa.prepare.annotations import Problems, find_image, numbered_lines
from ofa.prepare.dataset import PreparedDataset, label_text
from ofa.prepare.source import SourceOptions, given_splits, source
from ofa.prepare.tsv_writer import IMAGE

logger = logging.getLogger(__name__)

KAGGLE_HEADER = "ImageId,"
CLASS_FOLDERS = "a folder per synset, or a list of lines 'file synset' or 'file label'"


@dataclass(frozen=True, kw_only=True)
class ImagenetOptions(SourceOptions):
    train: str | None = option(None, CLASS_FOLDERS, metavar="DIR|LIST")
    val: str | None = option(None, CLASS_FOLDERS, metavar="DIR|LIST")
    test: str | None = option(None, CLASS_FOLDERS, metavar="DIR|LIST")
    synsets: str = option(help="lines 'synset words', in the order of the labels")
    images: tuple[str, ...] = option((), "folders of the files of a list")
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
            pairs = _from_folders(path, labels)
        else:
            pairs = _from_list(path, labels, options, problems)
            found.inputs = [*found.inputs, path]
        rows = [(image, (IMAGE, str(label), words[label - 1])) for image, label in pairs]
        found.add_rows(f"imagenet_1k_{split}.tsv", rows, f"{split}_images")
    class2label: dict[str, int] = {}
    for label, text in enumerate(words, start=1):
        class2label.setdefault(text, label)
    found.texts["class2label.json"] = label_text(class2label)
    return found


def read_synsets(path: str, first_only: bool = False) -> dict[str, str]:
    """Synset -> words, in the order of the labels: lines ``n02119789 kit fox, Vulpes macrotis``.
    Args: first_only: keep what stands before the first comma."""
    synsets: dict[str, str] = {}
    for where, line in numbered_lines(path, "'synset words'"):
        synset, _, words = line.partition("\t" if "\t" in line else " ")
        words = one_line(words.split(",")[0] if first_only else words)
        if not words or synset in synsets:
            raise UserError(
                f"{where}: expected a new synset and its words, found {line[:SHOWN]!r}; is it"
                " synset_words.txt or LOC_synset_mapping.txt?"
            )
        synsets[synset] = words
    same = [words for words, count in Counter(synsets.values()).items() if count > 1]
    if same:
        message = "%s: %d words stand for more than one synset and count as the same answer: %s"
        logger.warning(message, path, len(same), ", ".join(same[:5]))
    return synsets


def _from_folders(top: str, labels: Mapping[str, int]) -> list[tuple[str, int]]:
    """(file, label) in the order of labels and names."""
    below = sorted(path for path in Path(top).iterdir() if path.is_dir())
    folders = {path.name: path for path in below if not is_hidden(path.name)}
    unknown = [name for name in folders if name not in labels]
    if unknown or not folders:
        what = f"{unknown[0]!r} ({len(unknown)} such folders)" if unknown else "no sub-folder"
        raise UserError(
            f"{top}: expected one sub-folder per synset of --synsets, found {what}; "
            "is it the right folder, and the right list?"
        )
    return [
        (str(file), labels[name])
        for name in sorted(folders, key=labels.__getitem__)
        for file in list_images(folders[name], may_be_empty=True)
    ]


def _from_list(
    path: str, labels: Mapping[str, int], options: ImagenetOptions, problems: Problems
) -> list[tuple[str, int]]:
    """(file, label) of a list file, in its order."""
    if not options.images:
        raise UserError(
            f"{path}: a list of files needs --images, the folder they lie in; found none"
        )
    images, pairs = ImageFolders(options.images), []
    for where, line in numbered_lines(path, "'file synset' or 'file label'"):
        if line.startswith(KAGGLE_HEADER) and where == f"{path}:1":
            continue
        with problems.at(where):
            name, _, rest = line.partition("," if "," in line else " ")
            text = (rest.split() or [""])[0]
            is_number = text.isdecimal() and len(text) < 19
            label = labels.get(text, int(text) - options.first_label + 1 if is_number else 0)
            if not 1 <= label <= len(labels):
                raise RowError(
                    f"'file synset' or 'file label' of {len(labels)} labels counted from"
                    f" {options.first_label}, found {line[:SHOWN]!r}"
                )
            pairs.append((find_image(images, name, f"{name}.JPEG", f"{name}.jpg"), label))
    return pairs
