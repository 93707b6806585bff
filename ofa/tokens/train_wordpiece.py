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

from ofa.tokens.bpe import FILES
from ofa.tokens.train_sentencepiece import NewVocabulary

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
(VOCAB,) = FILES["bert"]
SMALLEST = len(SPECIALS) + 32
INSIDE = "##"

README = """# A BERT vocabulary of {pieces} text pieces

Characters and words, made by `ofa vocab build --bert --size {size}`
from {lines} lines; {unknown} of their {words} words and characters have no entry ([UNK]).
Made from:

{sources}

Files: `{model}` (the pieces), `{dictionary}` (their order in the vocabulary). Use: `--bpe-dir` with
this folder; prompts are Chinese then. `ofa vocab show` prints the ranges of ids.
"""
SIZES = "; try 1000 for a small task of its own, 21128 are those of upstream's Chinese models"


def build_wordpieces(
    texts: Iterable[str],
    size: int,
    folder: str | Path,
    sources: Iterable[str] = (),
    force: bool = False,
) -> int:
    """Count the characters and words of texts and write the folder: arguments and errors are those
    of ``build_vocabulary``. Returns: entries written."""
    new = NewVocabulary(folder, VOCAB, size, force, SMALLEST, SIZES)
    words, lines = count_words(texts)
    new.check_text(words)
    pieces = [*SPECIALS, *choose(words, size - len(SPECIALS))]
    known = set(pieces)
    unknown = sum(count for word, count in words.items() if not can_be_spelled(word, known))
    model = "".join(f"{piece}\n" for piece in pieces).encode()
    facts = {"lines": lines, "words": words.total(), "unknown": unknown}
    return new.write(model, pieces, README, sources, **facts)


def count_words(texts: Iterable[str]) -> tuple[Counter[str], int]:
    """How often words and Chinese characters occur, as BERT splits, and lines with any."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    lines = 0
    for text in texts:
        words = [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
        counts.update(words)
        lines += bool(words)
    return counts, lines


def choose(words: Counter[str], room: int) -> list[str]:
    """First what every word can be spelled with, then whole words; the frequent ones first."""
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in spelled(word):
            letters[letter] += count
    whole = {word: count for word, count in words.items() if len(word) > 1 and count > 1}
    found = by_frequency(letters)[:room]
    return [*found, *by_frequency(whole)[: room - len(found)]]


def by_frequency(counts: dict[str, int]) -> list[str]:
    return sorted(counts, key=lambda entry: (-counts[entry], entry))


def spelled(word: str) -> list[str]:
    return [word[0], *(INSIDE + letter for letter in word[1:])]


def can_be_spelled(word: str, pieces: set[str]) -> bool:
    return word in pieces or pieces.issuperset(spelled(word))
