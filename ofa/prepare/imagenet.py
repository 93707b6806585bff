"""ImageNet: folders named by synset, or lists of files, and the synsets' words -> rows of the
classification files.

/9j/4AAQ... <tab> 769 <tab> rugby ball
image     label, counted from 1 in the order of the synset file
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ofa.errors import UserError
from ofa.io.image_files import ImageFolders
from ofa.io.image_paths import is_hidden, list_images
from ofa.io.text_files import read_lines
from ofa.io.values import one_line
from ofa.prepare.prepared_dataset import PreparedDataset, Problems, grouped, label_text
from ofa.prepare.tsv_writer import IMAGE

logger = logging.getLogger(__name__)

KAGGLE_HEADER = "ImageId,"


def read_synsets(path: str, first_only: bool = False) -> dict[str, str]:
    """Synset -> words, in the order of the labels: lines ``n02119789 kit fox, Vulpes macrotis``.

    Args: first_only: keep what stands before the first comma.
    """
    synsets: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        synset, _, words = line.strip().partition(" " if "\t" not in line else "\t")
        words = one_line(words.split(",")[0] if first_only else words)
        if not words or synset in synsets:
            raise UserError(
                f"{path}:{number}: expected a new synset and its words, found {line[:60]!r}; is it"
                " synset_words.txt or LOC_synset_mapping.txt?"
            )
        synsets[synset] = words
    if not synsets:
        raise UserError(f"{path}: expected lines 'synset words', found an empty file")
    same = [words for words, count in Counter(synsets.values()).items() if count > 1]
    if same:
        logger.warning(
            "%s: %d words stand for more than one synset and count as the same answer: %s",
            path,
            len(same),
            ", ".join(same[:5]),
        )
    return synsets


def read_imagenet(
    splits: Mapping[str, str],
    synset_file: str,
    images: ImageFolders | None,
    problems: Problems,
    first_label: int = 0,
    first_only: bool = False,
) -> PreparedDataset:
    """``imagenet_1k_train.tsv``, ``imagenet_1k_val.tsv`` and ``class2label.json`` (words -> label).

    Args:
        splits: split -> a folder with one sub-folder per synset, or a list of lines ``file
            synset``, ``file label`` (numbers count from ``first_label``) or Kaggle's
            ``LOC_val_solution.csv``.
        images: where the files of a list lie.
    """
    synsets = read_synsets(synset_file, first_only)
    labels = {synset: number for number, synset in enumerate(synsets, start=1)}
    words = list(synsets.values())
    lists = [path for path in splits.values() if not Path(path).is_dir()]
    found = PreparedDataset(
        "imagenet",
        inputs=[synset_file, *lists],
        settings={
            "splits": list(splits),
            "first_label": first_label,
            "first_words_only": first_only,
        },
    )
    for split, path in splits.items():
        if Path(path).is_dir():
            pairs = _from_folders(path, labels)
        else:
            pairs = _from_list(path, labels, images, problems, first_label)
        rows = [(image, (IMAGE, str(label), words[label - 1])) for image, label in pairs]
        found.files[f"imagenet_1k_{split}.tsv"] = grouped(rows)
        found.counts[f"{split}_images"] = len(rows)
    found.counts |= problems.counts()
    problems.settle()
    class2label: dict[str, int] = {}
    for label, text in enumerate(words, start=1):
        class2label.setdefault(text, label)
    found.texts["class2label.json"] = label_text(class2label)
    return found


def _from_folders(top: str, labels: Mapping[str, int]) -> list[tuple[str, int]]:
    """(file, label) in the order of labels and names."""
    folders = sorted(
        (path for path in Path(top).iterdir() if path.is_dir() and not is_hidden(path.name)),
        key=lambda path: path.name,
    )
    unknown = [path.name for path in folders if path.name not in labels]
    if unknown or not folders:
        what = f"{unknown[0]!r} ({len(unknown)} such folders)" if unknown else "no sub-folder"
        raise UserError(
            f"{top}: expected one sub-folder per synset of --synsets, found {what}; "
            "is it the right folder, and the right list?"
        )
    return [
        (str(file), labels[folder.name])
        for folder in sorted(folders, key=lambda path: labels[path.name])
        for file in list_images(folder, may_be_empty=True)
    ]


def _from_list(
    path: str,
    labels: Mapping[str, int],
    images: ImageFolders | None,
    problems: Problems,
    first_label: int,
) -> list[tuple[str, int]]:
    """(file, label) of a list file, in its order."""
    if images is None:
        raise UserError(
            f"{path}: a list of files needs --images, the folder they lie in; found none"
        )
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or (number == 1 and line.startswith(KAGGLE_HEADER)):
            continue
        name, _, rest = line.strip().partition("," if "," in line else " ")
        label = _label((rest.split() or [""])[0], labels, first_label)
        if label is None:
            problems.add(
                f"{path}:{number}: expected 'file synset' or 'file label' of {len(labels)} labels"
                f" counted from {first_label}, found {line[:60]!r}"
            )
            continue
        image = images.find(name, *(f"{name}{suffix}" for suffix in (".JPEG", ".jpg")))
        if image is None:
            problems.add(f"{path}:{number}: expected an image {name} below {images}, found none")
        else:
            pairs.append((image, label))
    return pairs


def _label(text: str, labels: Mapping[str, int], first_label: int) -> int | None:
    """Label counted from 1, of a synset or a number counted from ``first_label``."""
    if text in labels:
        return labels[text]
    number = int(text) - first_label + 1 if text.isdecimal() and len(text) < 19 else 0
    return number if 1 <= number <= len(labels) else None
