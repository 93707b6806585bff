"""Captions of a data set -> document frequencies for CIDEr-D: whose caption files, which words."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from ofa.errors import UserError
from ofa.metrics.caption_scores import caption_words
from ofa.metrics.document_frequency import EOS, count_document_frequencies
from ofa.prepare.annotations import Problems, read_json
from ofa.prepare.coco_captions import captions_of
from ofa.prepare.tsv_writer import CaptionCleaner
from ofa.task.chinese import is_chinese
from ofa.task.text import caption_references


def count_captions(
    captions: Iterable[tuple[str, list[str]]], eos: bool, marks: bool = False
) -> dict:
    """Content of a file of document frequencies.

    Args:
        captions: image id, captions of a row; an image may come in several rows.
        eos: count ``<eos>`` at the end of every caption, as CIDEr optimization expects it.
        marks: count marks of punctuation as words, for captions that keep theirs.

    Raises: UserError if there is no caption.
    """
    by_image: dict[
        str, dict[str, None]
    ] = {}  # equal captions count once: a document has an n-gram, or has it not
    for image_id, texts in captions:
        by_image.setdefault(image_id, {}).update(dict.fromkeys(texts))
    chinese = any(is_chinese(text) for texts in by_image.values() for text in texts)
    end = f" {EOS}" if eos else ""
    words = ([caption_words(text, chinese, marks) for text in texts] for texts in by_image.values())
    documents = [
        found
        for found in ([text + end for text in dict.fromkeys(texts) if text] for texts in words)
        if found
    ]
    if not documents:
        raise UserError(
            "document frequencies: expected captions, found none; check the files and --column"
        )
    return count_document_frequencies(documents)


def captions_of_tsv(
    rows: Iterable[list[str]], path: str | Path, marks: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Args: rows: image id and captions joined by ``&&``, of a caption file. marks: keep their
    punctuation."""
    for image_id, field in tqdm(rows, desc=str(path), unit="row", leave=False, disable=None):
        yield image_id, caption_references(field, marks)


def captions_of_coco(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Captions of a COCO file (``captions_train2014.json``), cleaned as ``ofa prepare
    coco-captions`` cleans them."""
    problems = Problems(skip=False)
    found = captions_of(path, read_json(path, "annotations"), CaptionCleaner(), problems)
    problems.settle()
    yield from found.items()
