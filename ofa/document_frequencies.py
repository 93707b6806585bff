"""Captions of a data set -> document frequencies for CIDEr-D: whose caption files, which words."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from ofa.caption_scores import caption_words
from ofa.coco_captions import captions_of, read_json
from ofa.errors import UserError
from ofa.metrics.document_frequency import EOS, count_document_frequencies
from ofa.preparation import CaptionCleaner
from ofa.text import caption_references


def count_captions(captions: Iterable[tuple[str, list[str]]], eos: bool) -> dict:
    """Content of a file of document frequencies.

    Args:
        captions: image id, captions of a row; an image may come in several rows.
        eos: count ``<eos>`` at the end of every caption, as CIDEr optimisation expects it.

    Raises: UserError if there is no caption.
    """
    by_image: dict[str, dict[str, None]] = {}  # equal captions count once: a document has an n-gram, or has it not
    for image_id, texts in captions:
        words = filter(None, map(caption_words, texts))
        by_image.setdefault(image_id, {}).update(dict.fromkeys(f"{text} {EOS}" if eos else text for text in words))
    documents = [list(texts) for texts in by_image.values() if texts]
    if not documents:
        raise UserError("document frequencies: expected captions, found none; check the files and --column")
    return count_document_frequencies(documents)


def captions_of_tsv(rows: Iterable[list[str]], path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Args: rows: image id and captions joined by ``&&``, of a caption file."""
    for image_id, field in tqdm(rows, desc=str(path), unit="row", leave=False, disable=None):
        yield image_id, caption_references(field)


def captions_of_coco(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Captions of a COCO file (``captions_train2014.json``), cleaned as ``ofa prepare coco-captions`` cleans them."""
    yield from captions_of(read_json(path, ("annotations",)), path, CaptionCleaner()).items()
