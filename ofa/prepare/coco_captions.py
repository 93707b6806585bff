"""Reading caption annotations: COCO's own files and Karpathy's split of them."""

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.paths import path_within
from ofa.io.values import Ids, RowError, id_key, load_values, text_of, words_of
from ofa.prepare.prepared_dataset import Problems, entries_of, read_prefixes
from ofa.prepare.tsv_writer import CaptionCleaner, CaptionedImage

KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
CAPTIONS_FILE = "is this a captions file?"


def read_json(path: str | Path, needs: tuple[str, ...]) -> dict:
    """A JSON object with the given keys. Raises: UserError naming the file and what is wrong."""
    try:
        record = load_values(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise UserError(
            f"{path}: expected JSON, found {error}; is the download complete?"
        ) from None
    missing = [key for key in needs if not isinstance(record, dict) or key not in record]
    if missing:
        raise UserError(
            f"{path}: expected an object with the keys {', '.join(needs)}, found none called"
            f" {missing[0]!r}; is this the right annotation file?"
        )
    return record


def captions_of(
    record: dict, path: str | Path, cleaner: CaptionCleaner, problems: Problems | None = None
) -> dict[str, list[str]]:
    """Image id -> captions of a COCO caption file, in the order of the file; empty captions are
    left out.

    Args:
        record: the content of the file ``path``.
        problems: takes the annotations whose caption is no text; None: they are an error.
    """
    captions: dict[str, list[str]] = {}
    broken = Problems(skip=False) if problems is None else problems
    for number, annotation in enumerate(entries_of(record, "annotations", path)):
        where = f"{path}: annotation {number}"
        _check_keys(
            annotation, ("image_id", "caption"), f"{path}: expected annotations", CAPTIONS_FILE
        )
        try:
            image_id = words_of(annotation["image_id"], "an image_id")
            text = cleaner(text_of(annotation["caption"], "a caption", "caption", "raw"))
        except RowError as error:
            broken.add(f"{where}: expected {error}")
            continue
        if text:
            captions.setdefault(image_id, []).append(text)
    if problems is None:
        broken.settle()
    return captions


def images_from_coco(
    annotation_files: Sequence[str],
    images: str,
    cleaner: CaptionCleaner,
    problems: Problems | None = None,
    id_prefix: Sequence[str] | None = None,
) -> list[CaptionedImage]:
    """Images of COCO caption files (``captions_train2014.json``), in the order of their ids.

    Several files may caption the same captioned. Args: problems: as of ``captions_of``. id_prefix:
    see ``read_prefixes``.
    Raises: UserError if an id names two images.
    """
    files: dict[str, str] = {}  # image id -> name of its file
    ids = Ids("image")
    same_number: dict[str, str] = {}  # prefix and id_key -> image id
    captions: dict[str, list[str]] = {}
    written: list[tuple[str, str, str, list[str]]] = []  # file, prefix, image id in it, captions
    for path, prefix in zip(annotation_files, read_prefixes(id_prefix, annotation_files)):
        record = read_json(path, ("images", "annotations"))
        for image_id, (name, where) in _names_of(record, path).items():
            if (
                files.get(prefix + image_id) != name
            ):  # else another file's captions of the same image
                ids.add(image_id, f"{where} ({name})", prefix)
                files[prefix + image_id] = name
                same_number[prefix + id_key(image_id)] = prefix + image_id
        written += [
            (path, prefix, image_id, texts)
            for image_id, texts in captions_of(record, path, cleaner, problems).items()
        ]
    for path, prefix, image_id, texts in written:
        known = same_number.get(prefix + id_key(image_id))
        if known is None:
            raise UserError(
                f"{path}: annotation of image {image_id}, which is not in 'images'; the file is"
                " incomplete"
            )
        captions.setdefault(known, []).extend(texts)
    return [
        CaptionedImage(
            image_id,
            tuple(captions[image_id]),
            str(path_within(images, files[image_id], annotation_files[0])),
        )
        for image_id in sorted(captions, key=lambda image_id: (len(image_id), image_id))
    ]


def _names_of(record: dict, path: str | Path) -> dict[str, tuple[str, str]]:
    """Image id -> file name and place of the images of a file."""
    names: dict[str, tuple[str, str]] = {}
    ids = Ids("image")
    for number, image in enumerate(entries_of(record, "images", path)):
        where = f"{path}: image {number}"
        _check_keys(image, ("id", "file_name"), f"{path}: expected images", CAPTIONS_FILE)
        try:
            image_id, name = (
                words_of(image["id"], "an id"),
                words_of(image["file_name"], "a file_name"),
            )
        except RowError as error:
            raise UserError(f"{where}: expected {error}; correct the file") from None
        if names.get(image_id, ("",))[0] != name:
            ids.add(image_id, f"{where} ({name})")
            names[image_id] = name, where
    return names


def _check_keys(entry: Mapping[str, Any], keys: Sequence[str], expected: str, hint: str) -> None:
    missing = [key for key in keys if key not in entry]
    if missing:
        raise UserError(
            f"{expected} with {' and '.join(map(repr, keys))}, found an entry without"
            f" {missing[0]!r}; {hint}"
        )


def split_by_fraction(
    images: list[CaptionedImage], val: float, test: float, seed: int
) -> dict[str, list[CaptionedImage]]:
    """Split whole images at random, the same way each time. Fractions round to images, at
    least one each."""
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UserError(
            f"--val-fraction {val} --test-fraction {test}: expected fractions of 0 to 1 that leave "
            "something for training; for example 0.1"
        )
    counts = [max(1, round(fraction * len(images))) if fraction else 0 for fraction in (val, test)]
    if sum(counts) >= len(images):
        raise UserError(
            f"{len(images)} images are too few for these fractions: none would be left for training"
        )
    order = list(range(len(images)))
    random.Random(seed).shuffle(order)
    chosen = {
        "val": order[: counts[0]],
        "test": order[counts[0] : sum(counts)],
        "train": order[sum(counts) :],
    }
    return {split: [images[i] for i in sorted(indices)] for split, indices in chosen.items()}


def split_by_karpathy(
    path: str,
    images: str,
    cleaner: CaptionCleaner,
    annotated: list[CaptionedImage],
    problems: Problems | None = None,
) -> dict[str, list[CaptionedImage]]:
    """Karpathy's ``dataset_coco.json``: ``restval`` counts as training.

    Captions come from the annotation files where they have the image, otherwise from the split
    file itself.
    Args: problems: takes the images one of whose captions is no text; None: they are an error.
    """
    known = {id_key(captioned.image_id): captioned for captioned in annotated}
    splits: dict[str, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
    broken = Problems(skip=False) if problems is None else problems
    for i, image in enumerate(entries_of(read_json(path, ("images",)), "images", path)):
        where = f"{path}: image {i}"
        try:
            image_id = words_of(image.get("cocoid", image.get("imgid", i)), "a cocoid or imgid")
            split = KARPATHY_SPLITS[image["split"]]
            raw = [sentence["raw"] for sentence in image["sentences"]]
            file = _locate(
                images,
                text_of(image.get("filepath", ""), "a filepath"),
                words_of(image["filename"], "a filename"),
                where,
            )
            captioned = known.get(id_key(image_id))
            name = Path(captioned.source).name if captioned else Path(file).name
        except (KeyError, TypeError, AttributeError, RowError) as error:
            raise UserError(
                f"{where}: expected 'filename', 'split' (one of {', '.join(KARPATHY_SPLITS)}) and "
                f"'sentences' with 'raw', found a problem with {error}; is this dataset_coco.json?"
            ) from None
        if name != Path(file).name:
            raise UserError(
                f"{where}: expected image {image_id} of --annotations, {name}, found"
                f" {image['filename']}; do both files number the same images?"
            )
        try:
            texts = (
                captioned.captions
                if captioned
                else tuple(
                    filter(None, [cleaner(text_of(text, "a sentence", "raw")) for text in raw])
                )
            )
        except RowError as error:
            broken.add(f"{where}: expected {error}")
            continue
        if texts:
            splits[split].append(CaptionedImage(image_id, texts, file))
    if problems is None:
        broken.settle()
    return splits


def _locate(images: str, folder: str, name: str, where: str) -> str:
    """``images/val2014/NAME`` as in COCO's archives, or ``images/NAME`` when all lie in one
    folder. Raises: UserError if it leads out."""
    nested = path_within(images, os.path.join(folder, name), where)
    flat = path_within(images, name, where)
    return str(flat if not nested.is_file() and flat.is_file() else nested)


def check_unique(splits: Mapping[str, Sequence[CaptionedImage]]) -> None:
    """No id may name two images or come twice, and no image may stand in two splits, under
    whatever ids."""
    split_of: dict[Any, str] = {}
    ids = Ids(
        "image",
        "each image may stand in one split only, under an id of its own (--id-prefix, or a column"
        " image_id)",
    )
    for split, images in splits.items():
        for captioned in images:
            ids.add(captioned.image_id, f"{split} ({captioned.source})")
            if split_of.setdefault(captioned.source, split) != split:
                raise UserError(
                    f"{captioned.source}: expected an image in one split, found it in"
                    f" {split_of[captioned.source]} and in {split}, there as image"
                    f" {captioned.image_id}; remove it from one of them"
                )
