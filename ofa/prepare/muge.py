"""MUGE's captions of goods (ECommerce-IC) as published -> caption files.

    IC_train.jsonl   {"image_id": "007c72", "text": ["蕾丝元素，时尚气质", "性感名媛"]}  or one text
    IC_train.tsv     007c72 <tab> /9j/4AAQ...   the image in base64

Of the test set only the images are published: its rows have no captions, and the result file
becomes an upload by ``ofa submit muge``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.image_files import TABLE, ImageFolders, table_images
from ofa.io.values import Ids, RowError, text_of, words_of
from ofa.prepare.coco_captions import check_unique
from ofa.prepare.prepared_dataset import PreparedDataset, Problems, read_json_lines
from ofa.prepare.tsv_writer import CaptionCleaner, CaptionedImage

IDS = ("image_id", "img_id", "id")
TEXTS = ("text", "texts", "caption", "captions")


def read_muge(
    splits: Mapping[str, str], images: ImageFolders, problems: Problems
) -> PreparedDataset:
    """Args: splits: ``train``, ``val`` and ``test`` -> JSONL file of texts; of ``val`` and ``test``
    it may be a TSV file of images, which then have no texts.
    """
    cleaner = CaptionCleaner()
    found = PreparedDataset(
        "muge", inputs=list(splits.values()), images_of={"train": [], "val": [], "test": []}
    )
    for split, path in splits.items():
        if path.endswith(TABLE):
            if split == "train":
                raise UserError(
                    f"--train {path}: expected a JSONL file of texts, found a TSV file; its"
                    " images belong to --images"
                )
            found.images_of[split] = [
                CaptionedImage(image_id, (), image) for image_id, image in table_images(path)
            ]
            continue
        for image_id, (where, texts) in captions_by_image(path, cleaner, problems).items():
            image = images.find(image_id)
            if image is None or (split == "train" and not texts):
                problems.add(
                    f"{where}: expected an image {image_id!r} in {images}, found none"
                    if image is None
                    else f"{where}: expected a text, found none"
                )
                continue
            found.images_of[split].append(CaptionedImage(image_id, tuple(texts), image))
    found.counts = {**cleaner.counts(), **problems.counts()}
    problems.settle()
    check_unique(found.images_of)
    return found


def captions_by_image(
    path: str | Path, cleaner: CaptionCleaner, problems: Problems
) -> dict[str, tuple[str, list[str]]]:
    """Image id -> place of its first line, and its texts. An image may come on several lines; of
    a test set texts may be missing."""
    found: dict[str, tuple[str, list[str]]] = {}
    ids = Ids("image", "write the id of an image the same way everywhere")
    for number, entry in read_json_lines(path):
        where = f"{path}:{number}"
        image_id, texts = first_of(entry, IDS), first_of(entry, TEXTS)
        texts = [] if texts is None else texts if isinstance(texts, list) else [texts]
        try:
            image_id = words_of(image_id, '{"image_id": an id}')
            texts = [text_of(text, '{"text": "..." or ["...", ...]}', *TEXTS) for text in texts]
        except RowError as error:
            problems.add(f"{where}: expected {error}")
            continue
        if image_id not in found:
            ids.add(image_id, where)
            found[image_id] = where, []
        found[image_id][1].extend(text for text in map(cleaner, texts) if text)
    return found


def first_of(entry: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Value of the first of the names that the entry has."""
    return next((entry[name] for name in names if name in entry), None)
