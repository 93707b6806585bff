"""Reading caption annotations: COCO's own files and Karpathy's split of them."""

import os
import random
from collections import Counter
from pathlib import Path

from ofa.errors import UserError
from ofa.io.json_files import load_json
from ofa.io.paths import path_within
from ofa.preparation import CaptionCleaner, Picture

KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def read_json(path: str | Path, needs: tuple[str, ...]) -> dict:
    """A JSON object with the given keys. Raises: UserError naming the file and what is wrong."""
    try:
        record = load_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found {error}; is the download complete?") from None
    missing = [key for key in needs if not isinstance(record, dict) or key not in record]
    if missing:
        raise UserError(f"{path}: expected an object with the keys {', '.join(needs)}, found none called {missing[0]!r}; "
                        "is this the right annotation file?")
    return record


def captions_of(record: dict, path: str | Path, cleaner: CaptionCleaner) -> dict[str, list[str]]:
    """Image id -> captions of a COCO caption file, in the order of the file; empty captions are left out.

    Args: record: the content of the file ``path``.
    """
    captions: dict[str, list[str]] = {}
    try:
        for annotation in record["annotations"]:
            text = cleaner(annotation["caption"])
            if text:
                captions.setdefault(str(annotation["image_id"]), []).append(text)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: expected annotations with 'image_id' and 'caption', found an entry without {error}; "
                        "is this a captions file?") from None
    return captions


def pictures_from_coco(annotation_files: list[str], images: str, cleaner: CaptionCleaner) -> list[Picture]:
    """Pictures of COCO caption files (``captions_train2014.json``), in the order of their ids."""
    names: dict[str, str] = {}
    captions: dict[str, list[str]] = {}
    for path in annotation_files:
        record = read_json(path, ("images", "annotations"))
        try:
            names.update((str(image["id"]), image["file_name"]) for image in record["images"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: expected images with 'id' and 'file_name', found an entry without {error}; "
                            "is this a captions file?") from None
        for image_id, texts in captions_of(record, path, cleaner).items():
            captions.setdefault(image_id, []).extend(texts)
    unknown = [image_id for image_id in captions if image_id not in names]
    if unknown:
        raise UserError(f"{annotation_files[0]}: annotation of image {unknown[0]}, which is not in 'images' "
                        f"({len(unknown)} such images); the file is incomplete")
    known = sorted(captions, key=lambda image_id: (len(image_id), image_id))
    return [Picture(image_id, tuple(captions[image_id]), str(path_within(images, names[image_id], annotation_files[0]))) for image_id in known]


def split_by_fraction(pictures: list[Picture], val: float, test: float, seed: int) -> dict[str, list[Picture]]:
    """Split whole pictures at random, the same way each time. Fractions round to pictures, at least one each."""
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UserError(f"--val-fraction {val} --test-fraction {test}: expected fractions of 0 to 1 that leave "
                        "something for training; for example 0.1")
    counts = [max(1, round(fraction * len(pictures))) if fraction else 0 for fraction in (val, test)]
    if sum(counts) >= len(pictures):
        raise UserError(f"{len(pictures)} pictures are too few for these fractions: none would be left for training")
    order = list(range(len(pictures)))
    random.Random(seed).shuffle(order)
    chosen = {"val": order[:counts[0]], "test": order[counts[0]:sum(counts)], "train": order[sum(counts):]}
    return {split: [pictures[i] for i in sorted(indices)] for split, indices in chosen.items()}


def split_by_karpathy(path: str, images: str, cleaner: CaptionCleaner,
                      annotated: list[Picture]) -> dict[str, list[Picture]]:
    """Karpathy's ``dataset_coco.json``: ``restval`` counts as training.

    Captions come from the annotation files where they have the picture, otherwise from the split file itself.
    """
    captions = {picture.image_id: picture.captions for picture in annotated}
    splits: dict[str, list[Picture]] = {"train": [], "val": [], "test": []}
    for i, image in enumerate(read_json(path, ("images",))["images"]):
        try:
            image_id = str(image.get("cocoid", image.get("imgid", i)))
            split = KARPATHY_SPLITS[image["split"]]
            raw = [sentence["raw"] for sentence in image["sentences"]]
            file = _locate(images, image.get("filepath", ""), image["filename"], f"{path}: image {i}")
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: image {i}: expected 'filename', 'split' (one of {', '.join(KARPATHY_SPLITS)}) and "
                            f"'sentences' with 'raw', found a problem with {error}; is this dataset_coco.json?") from None
        texts = captions.get(image_id) or tuple(text for text in map(cleaner, raw) if text)
        if texts:
            splits[split].append(Picture(image_id, texts, file))
    return splits


def _locate(images: str, folder: str, name: str, where: str) -> str:
    """``images/val2014/NAME`` as in COCO's archives, or ``images/NAME`` when all lie in one folder. Raises: UserError if it leads out."""
    nested = path_within(images, os.path.join(folder, name), where)
    flat = path_within(images, name, where)
    return str(flat if not nested.is_file() and flat.is_file() else nested)


def check_unique(splits: dict[str, list[Picture]]) -> None:
    """No picture may stand in two splits or twice in one."""
    counts = Counter(picture.image_id for pictures in splits.values() for picture in pictures)
    twice = [image_id for image_id, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"image {twice[0]} is listed {counts[twice[0]]} times in the split ({len(twice)} such images); "
                        "each picture may stand in one split only")
