"""Make a vocabulary folder from a user's own text: a sentencepiece BPE and its dict.txt.

As with GPT-2's BPE, nothing is lost: upper case, every space and every character come back from
``decode``. Characters too rare for an entry of their own are spelled in bytes (``<0xE4> <0xBD>
<0xA0>``), so that no text is unknown. The same text and size give the same files, byte for byte.
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
SMALLEST = NUM_BYTES + 32
LARGEST = 1 << 24
LONGEST_LINE = 1 << 20  # bytes; sentencepiece leaves longer lines out
LONGEST_PART = LONGEST_LINE // 8  # characters

README = """# A vocabulary of {pieces} text pieces

Sentencepiece BPE with byte fallback, made by `ofa vocab build --size {size}` from {lines} lines
({characters} characters, {covered} different ones with an entry of their own) of:

{sources}

Files: `{model}` (the pieces and how to find them in a text), `{dictionary}` (their order in
the vocabulary).
Use: `--bpe-dir` with this folder; `ofa vocab show` prints the ranges of ids.
"""
SIZES = (
    f" ({NUM_BYTES} of them are bytes); try 1000 for a small task of its own, 32000 for a language"
)


class NewVocabulary:
    """A folder that a vocabulary is written to.

    Args: model: name of the file of pieces. size: entries of dict.txt at most. force: replace the
    files of an older folder. smallest: size. advice: on sizes.
    Raises: UserError if the size is too small, or the folder holds a vocabulary already.
    """

    def __init__(
        self, folder: str | Path, model: str, size: int, force: bool, smallest: int, advice: str
    ):
        self.folder, self.model, self.size = Path(folder), model, size
        own = (DICTIONARY, model)
        names = dict.fromkeys([*own, *(name for files in FILES.values() for name in files)])
        present = [path.name for name in names for path in self.folder.glob(name)]
        foreign = [name for name in present if name not in own]
        if present and (foreign or not force):
            raise UserError(
                f"{folder}: expected a new folder, found {present[0]} in it; choose another --out"
                + ("" if foreign else ", or replace it with --overwrite")
            )
        if not smallest <= size <= LARGEST:
            raise UserError(f"--size {size}: expected {smallest} to {LARGEST} entries{advice}")

    @staticmethod
    def check_text(found: Sized) -> None:
        """Raises: UserError if there is none."""
        if not found:
            raise UserError(
                "expected text to learn a vocabulary from, found none; see --text, --tsv, --column"
            )

    def write(
        self, model: bytes, pieces: list[str], readme: str, sources: Iterable[str], **facts: int
    ) -> int:
        """Write all files; none appears before all are written. Returns: entries."""
        text = readme.format(
            pieces=len(pieces),
            size=self.size,
            sources="\n".join(f"* {source}" for source in sources) or "* (not stated)",
            model=self.model,
            dictionary=DICTIONARY,
            **facts,
        )
        dictionary = "".join(f"{piece} 1\n" for piece in pieces)
        files = {self.model: model, "README.md": text.encode(), DICTIONARY: dictionary.encode()}
        try:
            with ExitStack() as stack:
                for name, data in files.items():
                    stack.enter_context(replacing(self.folder / name, "wb")).write(data)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written to ({error.strerror}); choose another --out"
            ) from error
        return len(pieces)


def build_vocabulary(
    texts: Iterable[str],
    size: int,
    folder: str | Path,
    sources: Iterable[str] = (),
    force: bool = False,
) -> int:
    """Train a BPE on texts and write its folder. Returns: entries written.

    Args:
        texts: sentences; each is learned with a leading space, as prompts and targets have it.
        size: entries of dict.txt at most (a small text has fewer different pieces).
        sources: where the texts came from, for the README. force: replace an older folder.
    Raises: UserError if there is no text, or as ``NewVocabulary``.
    """
    new = NewVocabulary(folder, MODEL, size, force, SMALLEST, SIZES)
    lines = [" " + part for text in texts for part in _parts(text)]
    new.check_text(lines)
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    # with an entry of their own: at most half of what the bytes leave, so that words have room too
    covered = {character for character, _ in counts.most_common((size - NUM_BYTES) // 2)}
    model = _train(["".join(c if c in covered else " " for c in line) for line in lines], size)
    facts = {"lines": len(lines), "characters": sum(map(len, lines)), "covered": len(covered)}
    return new.write(model, _pieces(model), README, sources, **facts)


def _parts(text: str) -> list[str]:
    """A text without what sentencepiece or dict.txt would mistake (other spaces, and its sign for a
    space); several, if sentencepiece would leave it out."""
    line = "".join(" " if c.isspace() or c in "▁\0" else c for c in text).strip(" ")
    return [line[start : start + LONGEST_PART] for start in range(0, len(line), LONGEST_PART)]


def _train(lines: list[str], size: int) -> bytes:
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
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
    return model.getvalue()


def _pieces(model: bytes) -> list[str]:
    """Pieces in the order of the model, without those that are specials of every vocabulary."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=model)
    ids = range(processor.get_piece_size())
    return [
        processor.id_to_piece(i)
        for i in ids
        if not (processor.is_control(i) or processor.is_unknown(i))
    ]
