"""Make a BERT vocabulary folder from a user's own text: characters, and words in Latin letters,
with its dict.txt.

As in the files of the Chinese models a Chinese character or a mark of punctuation is a piece, and a
word in other letters is one piece or is spelled, ``t`` ``##o`` ``##m``; all is lower case. What has
no entry becomes ``[UNK]``, the whole word. The same text and size give the same files, byte for
byte.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ofa.errors import UserError
from ofa.tokens.bpe import FILES
from ofa.tokens.train_sentencepiece import (
    LARGEST,
    NO_TEXT,
    README,
    bullets,
    check_folder,
    write_folder,
)
from ofa.tokens.vocabulary import DICTIONARY

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
(VOCAB,) = FILES["bert"]
SMALLEST = len(SPECIALS) + 32
INSIDE = "##"

README_TEXT = """# A BERT vocabulary of {pieces} text pieces

Characters and words, made by `ofa vocab build --bert --size {size}`
from {lines} lines; {unknown} of their {words} words and characters have no entry ([UNK]).
Made from:

{sources}

Files: `{vocab}` (the pieces), `{dictionary}` (their order in the vocabulary). Use: `--bpe-dir` with
this folder; prompts are Chinese then. `ofa vocab show` prints the ranges of ids.
"""


def build_wordpieces(
    texts: Iterable[str],
    size: int,
    folder: str | Path,
    sources: Iterable[str] = (),
    force: bool = False,
) -> int:
    """Count the characters and words of texts and write the folder.

    Args:
        texts: sentences. size: entries of dict.txt at most.
        sources: where the texts came from, for the README. force: replace the files of an older
            folder.
    Returns: entries written.
    Raises: UserError if there is no text, size is too small, or the folder holds a vocabulary
    already.
    """
    folder = Path(folder)
    check_folder(folder, (VOCAB, DICTIONARY), force)
    if not SMALLEST <= size <= LARGEST:
        raise UserError(
            f"--size {size}: expected {SMALLEST} to {LARGEST} entries; try 1000 for a small task of"
            " its own, 21128 are those of upstream's Chinese models"
        )
    words, lines = count_words(texts)
    if not words:
        raise UserError(NO_TEXT)
    pieces = [*SPECIALS, *choose(words, size - len(SPECIALS))]
    readme = README_TEXT.format(
        pieces=len(pieces),
        size=size,
        lines=lines,
        words=words.total(),
        unknown=count_unknown(words, set(pieces)),
        vocab=VOCAB,
        dictionary=DICTIONARY,
        sources=bullets(sources),
    )
    vocab = "".join(f"{piece}\n" for piece in pieces)
    dictionary = "".join(f"{piece} 1\n" for piece in pieces)
    write_folder(
        folder, {VOCAB: vocab.encode(), README: readme.encode(), DICTIONARY: dictionary.encode()}
    )
    return len(pieces)


def count_words(texts: Iterable[str]) -> tuple[Counter[str], int]:
    """How often each word and each Chinese character occurs, as BERT takes texts apart; and the
    number of lines with any."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer, splitter = (
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
    )
    counts: Counter[str] = Counter()
    lines = 0
    for text in texts:
        words = [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
        counts.update(words)
        lines += bool(words)
    return counts, lines


def choose(words: Counter[str], room: int) -> list[str]:
    """The entries: first what every word can be spelled with, then whole words; both the
    frequent ones first."""
    letters: Counter[str] = Counter()
    for word, count in words.items():
        letters.update({word[0]: count})
        for letter in word[1:]:
            letters.update({INSIDE + letter: count})
    whole = {word: count for word, count in words.items() if len(word) > 1 and count > 1}
    found = by_frequency(letters)[:room]
    return [*found, *by_frequency(whole)[: room - len(found)]]


def by_frequency(counts: dict[str, int]) -> list[str]:
    return sorted(counts, key=lambda entry: (-counts[entry], entry))


def count_unknown(words: Counter[str], pieces: set[str]) -> int:
    """Occurrences of words that cannot be spelled."""
    return sum(
        count
        for word, count in words.items()
        if word not in pieces and not {word[0], *(INSIDE + letter for letter in word[1:])} <= pieces
    )
