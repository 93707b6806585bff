"""Make a vocabulary folder from a user's own text: its pieces and dict.txt. The same text and size
give the same files, byte for byte.

A sentencepiece BPE loses nothing, as GPT-2's: upper case, every space and every character come back
from ``decode``. Characters too rare for an entry of their own are spelled in bytes (``<0xE4> <0xBD>
<0xA0>``), so that no text is unknown.

In a BERT vocabulary, as in the files of the Chinese models, a Chinese character or a mark of
punctuation is a piece, and a word in other letters is one piece or is spelled, ``t`` ``##o``
``##m``; all is lower case. What has no entry becomes ``[UNK]``, the whole word.
"""

import io
from collections import Counter
from collections.abc import Iterable, Sized
from contextlib import ExitStack
from pathlib import Path

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.tokens.bpe import FILES
from ofa.tokens.vocabulary import DICTIONARY

MODEL = "sentencepiece.model"
NUM_BYTES = 256
LARGEST = 1 << 24
LONGEST_LINE = 1 << 20  # bytes; sentencepiece leaves longer lines out
LONGEST_PART = LONGEST_LINE // 8  # characters
LANGUAGE = 10_000_000  # characters, from which on texts are many enough for pieces of a language
(VOCAB,) = FILES["bert"]
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
INSIDE = "##"
ADVICE = {
    MODEL: f" ({NUM_BYTES} of them are bytes); try 1000 for a small task of its own, 32000 for a"
    " language",
    VOCAB: "; try 1000 for a small task of its own, 21128 are those of upstream's Chinese models",
}
TEMPLATES = Path(__file__).with_name("templates")  # of the README of a folder
# file of the pieces, the pieces in their order, figures for the README
Learned = tuple[bytes, list[str], dict[str, int]]


def build_vocabulary(
    texts: Iterable[str],
    size: int,
    folder: str | Path,
    sources: Iterable[str] = (),
    force: bool = False,
    bert: bool = False,
) -> int:
    """Learn a vocabulary from texts and write its folder; no file appears before all are written.
    Returns: entries written.

    Args:
        texts: sentences; sentencepiece learns each with a leading space, as prompts and targets
            have it.
        size: entries of dict.txt at most (a small text has fewer different pieces).
        sources: where the texts came from, for the README. force: replace an older folder.
        bert: a BERT vocabulary, not a sentencepiece BPE.
    Raises: UserError if there is no text, the size is too small, or the folder holds a vocabulary.
    """
    folder, file = Path(folder), VOCAB if bert else MODEL
    own = DICTIONARY, file
    names = dict.fromkeys([*own, *(name for files in FILES.values() for name in files)])
    present = [path.name for name in names for path in folder.glob(name)]
    foreign = [name for name in present if name not in own]
    if present and (foreign or not force):
        raise UserError(
            f"{folder}: expected a new folder, found {present[0]} in it; choose another --out"
            + ("" if foreign else ", or replace it with --overwrite")
        )
    smallest = (len(SPECIALS) if bert else NUM_BYTES) + 32
    if not smallest <= size <= LARGEST:
        raise UserError(f"--size {size}: expected {smallest} to {LARGEST} entries{ADVICE[file]}")
    model, pieces, facts = (learn_words if bert else learn_pieces)(texts, size)
    facts |= {"pieces": len(pieces), "size": size}
    made_of = "\n".join(f"* {source}" for source in sources) or "* (not stated)"
    readme = (TEMPLATES / f"{file}.md").read_text(encoding="utf-8")
    text = readme.format(sources=made_of, **facts)
    dictionary = "".join(f"{piece} 1\n" for piece in pieces)
    files = {file: model, "README.md": text.encode(), DICTIONARY: dictionary.encode()}
    try:
        with ExitStack() as stack:
            for name, data in files.items():
                stack.enter_context(replacing(folder / name, "wb")).write(data)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror}); choose another --out"
        ) from error
    return len(pieces)


def usual_size(texts: Iterable[str]) -> int:
    """Entries that texts of this length need: of a small task, or of a language."""
    return 32_000 if sum(map(len, texts)) >= LANGUAGE else 8000


def check_text(found: Sized) -> None:
    """Raises: UserError if there is none."""
    if not found:
        raise UserError(
            "expected text to learn a vocabulary from, found none; see --text, --tsv, --column"
        )


# --- sentencepiece


def learn_pieces(texts: Iterable[str], size: int) -> Learned:
    """A sentencepiece model and its pieces, without those that are specials of every vocabulary.
    Raises: UserError if there is no text, or nothing can be learned from it."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    lines = [" " + part for text in texts for part in _parts(text)]
    check_text(lines)
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    # with an entry of their own: at most half of what the bytes leave, so that words have room too
    covered = {character for character, _ in counts.most_common((size - NUM_BYTES) // 2)}
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=("".join(c if c in covered else " " for c in one) for one in lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=size + 3,  # sentencepiece counts its <unk>, <s> and </s>
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=1.0,  # rare characters are not in the lines any more
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            max_sentence_length=LONGEST_LINE,
            num_threads=1,  # the same files every time
            minloglevel=2,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(
            f"--size {size}: sentencepiece could not learn a vocabulary from {len(lines)} lines"
            f" ({error}); try another size, and look for what is no text in the input"
        ) from error
    processor = SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(processor.get_piece_size())
    own = [one for one in ids if not (processor.is_control(one) or processor.is_unknown(one))]
    facts = {"lines": len(lines), "characters": counts.total(), "covered": len(covered)}
    return model.getvalue(), processor.id_to_piece(own), facts


def _parts(text: str) -> list[str]:
    """A text without what sentencepiece or dict.txt would mistake (other spaces, and its sign for a
    space); several, if sentencepiece would leave it out."""
    line = "".join(" " if c.isspace() or c in "▁\0" else c for c in text).strip(" ")
    return [line[start : start + LONGEST_PART] for start in range(0, len(line), LONGEST_PART)]


# --- BERT


def learn_words(texts: Iterable[str], size: int) -> Learned:
    """``vocab.txt``: specials, what every word can be spelled with, then whole words; the frequent
    ones first. Raises: UserError if there is no text."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    lines = 0
    for text in texts:
        found = splitter.pre_tokenize_str(normalizer.normalize_str(text))
        words.update(word for word, _ in found)
        lines += bool(found)
    check_text(words)
    for word, count in words.items():
        for letter in spelled(word):
            letters[letter] += count
    whole = {word: count for word, count in words.items() if len(word) > 1 and count > 1}
    pieces = [*SPECIALS, *by_frequency(letters)[: size - len(SPECIALS)]]
    pieces += by_frequency(whole)[: size - len(pieces)]
    known = set(pieces)
    unknown = sum(
        count
        for word, count in words.items()
        if word not in known and not known.issuperset(spelled(word))
    )
    facts = {"lines": lines, "words": words.total(), "unknown": unknown}
    return "".join(f"{piece}\n" for piece in pieces).encode(), pieces, facts


def by_frequency(counts: dict[str, int]) -> list[str]:
    return sorted(counts, key=lambda entry: (-counts[entry], entry))


def spelled(word: str) -> list[str]:
    return [word[0], *(INSIDE + letter for letter in word[1:])]
