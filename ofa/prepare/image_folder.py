"""Images sorted into classes: a folder per class, or a list of files and classes -> the files of
``image_classify``; ImageNet too, whose classes are synsets.

flowers/train/pink_primrose/image_0001.jpg      train, val and test, or the folders of the classes
image_0001.jpg 1        and in a file of names  1 pink primrose,  or JSON {"1": "pink primrose"}

Rows of ImageNet are ``image <tab> 769 <tab> rugby ball``, the label counted from 1 in the order of
the synset file.
"""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ofa.errors import UserError, did_you_mean
from ofa.io.flags import option
from ofa.io.image_files import ImageFolders, is_hidden, list_images
from ofa.io.json_files import read_json
from ofa.io.values import SHOWN, RowError, one_line, words_of
from ofa.prepare.annotations import Problems, find_image, numbered_lines
from ofa.prepare.csv_jsonl import SPLITS, note_without_validation
from ofa.prepare.dataset import PreparedDataset, label_text
from ofa.prepare.source import SourceOptions, given_splits, source
from ofa.prepare.table import TableRow, dataset_of
from ofa.prepare.tsv_writer import IMAGE
from ofa.task.answers import CLASS_SET

logger = logging.getLogger(__name__)

CLASSES = "a folder per class, or a list of lines 'file class'"
KAGGLE_HEADER = "ImageId,"
SYNSETS_FILE = "is it synset_words.txt or LOC_synset_mapping.txt?"
NUMBERED = re.compile(r"\d+[._ -]+(?=\D)")  # 001.Black_footed_Albatross


@dataclass(frozen=True, kw_only=True)
class ClassOptions(SourceOptions):
    train: str | None = option(None, CLASSES, metavar="DIR|LIST")
    val: str | None = option(None, CLASSES, metavar="DIR|LIST")
    test: str | None = option(None, CLASSES, metavar="DIR|LIST")
    images: tuple[str, ...] = option((), "folders of the files of a list, if not its own")


@dataclass(frozen=True, kw_only=True)
class ImageFolderOptions(ClassOptions):
    folder: str | None = option(
        None, "folders of the classes, or train, val and test with them", positional=True
    )
    class_names: str | None = option(
        None, "lines 'class words', or JSON of them, if not the folders' names"
    )
    val_fraction: float | None = option(None, "part of the images, at random, for validation")


@source(ImageFolderOptions, "image-folder")
def read_image_folder(options: ImageFolderOptions, problems: Problems) -> PreparedDataset:
    """Folders named by class, or lists of files and classes.

    Writes image_classify_train.tsv, image_classify_val.tsv, image_classify_test.tsv (of what there
    is), class2label.json and manifest.json. Without --class-names a class is called as its folder,
    with spaces for underscores, and without its number where every class has a number and words of
    its own. --train, --val and --test take the place of the sub-folder of their split. Images of a
    test split may lie in no class.

    example: ofa prepare image-folder flowers --class-names cat_to_name.json --val-fraction 0.1
    --out data/flowers
    """
    is_given = any((options.train, options.val, options.test))
    if not options.folder and not is_given:
        raise UserError(
            "expected a folder with a folder per class, found none; name it: ofa prepare"
            " image-folder FOLDER, or give its parts by --train, --val and --test"
        )
    splits = given_splits(options) if is_given else {}
    if options.folder:
        splits = splits_below(options.folder, splits)
    files = []
    for split, path in splits.items():
        folders = ImageFolders(options.images or [Path(path).parent])
        found_in = class_files(path, folders, problems, split == "test")
        files += [(split, *file) for file in found_in]
    if options.class_names:
        names = read_class_names(options.class_names)
    else:
        names = words_of_folders({key for *_, key in files})
    rows = []
    for split, where, image, key in files:
        with problems.at(where):
            words = words_of_class(key, names) if key else ""
            rows.append(TableRow(where, {"label": words}, split, image))
    lists = [path for path in splits.values() if Path(path).is_file()]
    inputs = [*lists, *filter(None, [options.class_names])]
    found = dataset_of("image_classify", rows, problems, options, inputs)
    note_without_validation(rows, options.val_fraction)
    return found


def splits_below(folder: str, given: Mapping[str, str]) -> dict[str, str]:
    """Split -> folder: the sub-folders, if they are called as splits; else the folder itself.
    Args: given: split -> folder or list that is taken instead. Raises: UserError if there are two
    of one split."""
    found = dict(given)
    below = sub_folders(folder)
    if not below or not all(name.lower() in SPLITS for name in below):
        if "train" in given:
            raise UserError(
                f"{folder}: expected sub-folders train, val or test with --train, found the folders"
                " of classes, for training too; leave one of them out"
            )
        return {"train": folder, **given}
    for name, path in below.items():
        split = SPLITS[name.lower()]
        if split in given:
            continue
        if split in found:
            raise UserError(
                f"{folder}: expected one folder for {split}, found {Path(found[split]).name} and"
                f" {name}; give one of them by --{split}"
            )
        found[split] = path
    return found


def sub_folders(top: str) -> dict[str, str]:
    """Name -> path, by name. Raises: UserError if it is no folder."""
    if not Path(top).is_dir():
        raise UserError(f"{top}: expected a folder of images, found none; check the path")
    below = sorted(path for path in Path(top).iterdir() if path.is_dir())
    return {path.name: str(path) for path in below if not is_hidden(path.name)}


def class_files(
    path: str, images: ImageFolders, problems: Problems, may_lack: bool = False
) -> Iterator[tuple[str, str, str]]:
    """Place, file and class of each image of a folder or list, in its order. Args: may_lack: the
    images may lie in no class. Raises: UserError if there are none."""
    if not Path(path).is_dir():
        yield from listed_files(path, images, problems)
        return
    below = sub_folders(path)
    if not below and not may_lack:
        raise UserError(
            f"{path}: expected one sub-folder per class, found no sub-folder; is it the right one?"
        )
    is_empty = True
    for name, folder in below.items() if below else [("", path)]:
        for file in list_images(folder, may_be_empty=True):
            is_empty = False
            yield str(file), str(file), name
    if is_empty:
        raise UserError(
            f"{path}: expected image files in the folders of its classes, found none; is it the"
            " right one?"
        )


def listed_files(
    path: str, images: ImageFolders, problems: Problems
) -> Iterator[tuple[str, str, str]]:
    """The same of the lines ``file class``, with a tab, a comma or a space between them."""
    for where, line in numbered_lines(path, "'file class'"):
        if where == f"{path}:1" and line.startswith(KAGGLE_HEADER):
            continue
        with problems.at(where):
            mark = next((mark for mark in "\t," if mark in line), " ")
            name, _, key = map(str.strip, line.partition(mark))
            if not key:
                raise RowError(f"'file class', found {line[:60]!r}")
            yield where, find_image(images, name, f"{name}.JPEG", f"{name}.jpg"), key


def read_class_names(path: str, what: str = "class", hint: str = "correct it") -> dict[str, str]:
    """Class -> its words, in the order of the file. Args: what: a class is called in messages.
    hint: their end. Raises: UserError."""
    if path.endswith(".json"):
        content = read_json(path, 'JSON such as {"1": "pink primrose"}', kind=dict)
        try:
            return {
                key: words_of(words, f"words of class {key!r}") for key, words in content.items()
            }
        except RowError as error:
            raise UserError(f"{path}: expected {error}; correct it") from None
    names: dict[str, str] = {}
    for where, line in numbered_lines(path, f"'{what} words'"):
        key, _, words = line.partition("\t" if "\t" in line else " ")
        if not one_line(words) or key in names:
            raise UserError(
                f"{where}: expected a new {what} and its words, found {line[:60]!r}; {hint}"
            )
        names[key] = one_line(words)
    return names


def words_of_folders(keys: Collection[str]) -> dict[str, str]:
    """Folder of a class -> its words: ``002.Water_Lily`` -> ``Water Lily`` if all have a number
    that tells no two of them apart."""
    words = {key: one_line(key.replace("_", " ")) for key in keys}
    if not all(map(NUMBERED.match, filter(None, keys))):
        return words
    bare = {key: one_line(NUMBERED.sub("", key, count=1).replace("_", " ")) for key in keys}
    return bare if len({*bare.values()}) == len({*words.values()}) else words


def words_of_class(key: str, names: Mapping[str, str]) -> str:
    """What a class is called. Raises: RowError if the names lack it."""
    if key not in names:
        raise RowError(f"a class of --class-names, found {key!r}{did_you_mean(key, names)}")
    return names[key]


# --- ImageNet


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
    found.texts[CLASS_SET] = label_text(class2label)
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
