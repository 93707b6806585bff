"""Document frequencies of n-grams: how many images have a reference with that n-gram. The
captioning community passes them around as pickles (``coco-train-words.p``); those for CIDEr
optimization count the word ``<eos>`` at the end of every caption::

    {"ref_len": number of images, "document_frequency": {("a",): 112000.0, ("a", "cat"): 2300.0}}
"""

import pickle
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.pickles import DAMAGED, load_plain
from ofa.io.values import read_decimal

EOS = "<eos>"
MAX_ORDER = 4  # words of the longest n-gram
EXPECTED = (
    "expected a pickle {'ref_len': number of images, 'document_frequency': {word tuple: images}},"
    " or df='corpus'; make one: ofa cider-df build"
)


def count_document_frequencies(references: Iterable[list[str]]) -> dict:
    """Content of such a pickle for the references of some images."""
    frequencies: Counter = Counter()
    num_images = 0
    for captions in references:
        num_images += 1
        split = [caption.split() for caption in captions]
        frequencies.update(
            {
                tuple(words[start : start + order])
                for words in split
                for order in range(1, MAX_ORDER + 1)
                for start in range(len(words) - order + 1)
            }
        )
    return {"ref_len": num_images, "document_frequency": dict(frequencies)}


def write_document_frequencies(path: str | Path, content: dict) -> None:
    """Write what ``count_document_frequencies`` returns as other programs read it."""
    frequencies = defaultdict(
        float, {ngram: float(count) for ngram, count in content["document_frequency"].items()}
    )
    with replacing(path, "wb") as file:
        pickle.dump(
            {"ref_len": content["ref_len"], "document_frequency": frequencies}, file, protocol=2
        )


def read_document_frequencies(path: str | Path) -> tuple[float, dict[tuple[str, ...], float]]:
    """Number of images, and images per n-gram."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file of document frequencies; {EXPECTED}")
    try:
        content = load_plain(Path(path).read_bytes(), "latin-1")
        num_images = read_decimal(content["ref_len"])
        frequencies = dict(content["document_frequency"])
        counts = np.fromiter(frequencies.values(), float, len(frequencies))
    except DAMAGED as error:
        raise UserError(
            f"{path}: not a file of document frequencies ({str(error)[:200]}); {EXPECTED}"
        ) from error
    odd = [ngram for ngram in frequencies if not isinstance(ngram, tuple) or len(ngram) > MAX_ORDER]
    if odd or num_images <= 0 or not np.isfinite(counts).all() or (counts < 0).any():
        found = f"n-gram {odd[0] if odd else None!r}, {num_images:g} images"
        raise UserError(f"{path}: not document frequencies ({found}); {EXPECTED}")
    return num_images, frequencies
