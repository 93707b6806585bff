"""Rules of answers and of texts: sources, targets, captions, questions, phrases."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ofa.doctor.rule import QUOTED, Rule, Settings, empty, shown, too_long, unquote
from ofa.io.numbers import read_decimal
from ofa.io.values import not_one_text
from ofa.task.ocr_text import CHINESE, plain_text
from ofa.task.text import (
    CONFIDENCE,
    JOIN,
    clean_phrase,
    clean_question,
    has_words,
    remove_punctuation,
)

# --------------------------------------------------------------------------------------------
# answers


def _answer_parts(cell: str) -> list[tuple[str, str]]:
    """(confidence, answer) as texts; the confidence is empty where there is no separator."""
    return [
        (before, after)
        for before, _, after in (part.rpartition(CONFIDENCE) for part in cell.split(JOIN))
    ]


def _answer_grammar(cell: str, settings: Settings) -> str:
    for part in cell.split(JOIN):
        confidence, separator, answer = part.rpartition(CONFIDENCE)
        if not separator:
            return f"{shown(part)} without a confidence"
        if not answer.strip():
            return f"{shown(part)} without an answer"
        if CONFIDENCE in confidence:
            return f"{shown(part)} with two confidences: is {JOIN} missing?"
    return ""


def _complete_answers(cell: str, settings: Settings) -> str:
    parts = [
        (confidence or "1.0", answer)
        for confidence, answer in _answer_parts(cell)
        if answer.strip()
    ]
    return JOIN.join(f"{confidence}{CONFIDENCE}{answer}" for confidence, answer in parts)


def _confidence(cell: str, settings: Settings) -> str:
    for confidence, _ in _answer_parts(cell):
        try:
            if 0 <= read_decimal(confidence) <= 1:
                continue
        except ValueError:
            pass
        return shown(confidence)
    return ""


def best_answer(cell: str) -> str:
    """The answer that is learned: the first of the highest confidence."""
    return max(_answer_parts(cell), key=lambda part: float(part[0]))[1]


def _answer_known(cell: str, settings: Settings) -> str:
    if (
        settings.evaluation
        or settings.answers is None
        or (answer := best_answer(cell)) in settings.answers
    ):
        return ""
    return shown(answer)


def _long_answer(cell: str, settings: Settings) -> str:
    return (
        too_long(best_answer(cell), settings.max_tgt) if len(cell) >= 2 * settings.max_tgt else ""
    )


def _missing_answer(cell: str, settings: Settings) -> str:
    return _missing(best_answer(cell), settings)


def _missing(cell: str, settings: Settings) -> str:
    kind = not_one_text(cell)
    return f"{shown(cell.strip())}, {kind}" if kind else ""


NOT_MEANT = Rule(
    "text-missing",
    "words that somebody wrote",
    _missing,
    "fill them in, or remove the row, if nobody wrote them",
    note=True,
)

ANSWER_RULES = (
    QUOTED,
    Rule(
        "answer-grammar",
        f"confidence{CONFIDENCE}answer, several joined by {JOIN}",
        _answer_grammar,
        f"write for example 1.0{CONFIDENCE}yes{JOIN}0.3{CONFIDENCE}no",
        _complete_answers,
    ),
    Rule("answer-confidence", "a confidence from 0 to 1", _confidence, "correct the number"),
    Rule(
        "answer-known",
        "a best answer that is in the answer set",
        _answer_known,
        "add it to the answer set, or leave the row out; is it the answer file of another data"
        " set?",
    ),
    replace(NOT_MEANT, check=_missing_answer),
    Rule(
        "cut-answer", "an answer that is not cut", _long_answer, "raise --max-tgt-length", note=True
    ),
)

# ----------------------------------------------------------------------------------------------
# texts


def _long_caption(cell: str, settings: Settings) -> str:
    if (
        not too_long(cell, settings.max_tgt) or JOIN in cell
    ):  # several captions are references, which are never cut
        return ""
    return too_long(remove_punctuation(cell), settings.max_tgt)


def _long_source(cell: str, settings: Settings, clean: Callable[[str], str] = str) -> str:
    return too_long(clean(cell), settings.max_src) if len(cell) >= 2 * settings.max_src else ""


def _long_target(cell: str, settings: Settings) -> str:
    return too_long(cell, settings.max_tgt)


def _long_reading(cell: str, settings: Settings) -> str:
    """Of Chinese texts characters are counted."""
    if not CHINESE.search(cell):
        return too_long(cell, settings.max_tgt)
    count = len(plain_text(cell))
    return (
        f"{count} characters, of which {settings.max_tgt} are kept"
        if count > settings.max_tgt
        else ""
    )


def _unknown_reading(cell: str, settings: Settings) -> str:
    return _unknown_pieces(plain_text(cell), settings) if settings.bpe_dir else ""


def _no_words(cell: str, settings: Settings) -> str:
    if cell[:1].isalnum() or any(map(has_words, cell.split(JOIN))):
        return ""
    return f"{shown(cell)}: nothing but punctuation" if cell.strip() else "an empty field"


def _all_quoted(cell: str, settings: Settings) -> str:
    """A text may stand in quotes; that its own quotes are doubled gives a CSV writer away."""
    inner = cell[1:-1]
    written = (
        len(cell) > 1
        and cell[0] == cell[-1] == '"'
        and '"' in inner
        and '"' not in inner.replace('""', "")
    )
    return shown(cell) if written else ""


def _unknown_pieces(cell: str, settings: Settings) -> str:
    if not settings.bpe_dir:
        return ""
    bpe, vocabulary = language(settings.bpe_dir)
    unknown = [
        piece
        for piece in bpe.encode(" " + cell).split(" ")
        if piece and (piece in UNK or piece not in vocabulary)
    ]
    return f"{len(unknown)} in {shown(cell)}" if unknown else ""


UNK = ("<unk>", "[UNK]")  # what a BPE writes for characters that it does not know
LANGUAGES: dict[str, tuple] = {}


def language(folder: str) -> tuple:
    """BPE and vocabulary of a folder, once per process."""
    if folder not in LANGUAGES:
        from ofa.tokens.bpe import load_bpe
        from ofa.tokens.vocabulary import Vocabulary

        LANGUAGES[folder] = load_bpe(folder), Vocabulary.from_folder(folder)
    return LANGUAGES[folder]


TEXT_QUOTED = Rule("quoted", "a field without quotes", _all_quoted, QUOTED.fix, unquote)
UNKNOWN = Rule(
    "unknown-pieces",
    "text of pieces in dict.txt",
    _unknown_pieces,
    "is it the right --bpe-dir for this language?",
    note=True,
)
EMPTY_TEXT = Rule("text-empty", "words", _no_words, "fill it in, or remove the row")


def _text(*more: Rule) -> tuple[Rule, ...]:
    return (TEXT_QUOTED, EMPTY_TEXT, NOT_MEANT, *more, UNKNOWN)


def _cut(check: Callable[[str, Settings], str], option: str) -> Rule:
    return Rule(
        f"cut-{'source' if option == 'src' else 'target'}",
        "a text that is not cut",
        check,
        f"raise --max-{option}-length",
        note=True,
    )


TEXT_RULES: dict[str, tuple[Rule, ...]] = {
    "caption": _text(_cut(_long_caption, "tgt")),
    "question": _text(_cut(partial(_long_source, clean=clean_question), "src")),
    "phrase": _text(_cut(partial(_long_source, clean=clean_phrase), "src")),
    "source": _text(_cut(_long_source, "src")),
    "target": _text(_cut(_long_target, "tgt")),
    "reading": (
        TEXT_QUOTED,
        Rule("text-empty", "the text on the image", empty, EMPTY_TEXT.fix),
        NOT_MEANT,
        _cut(_long_reading, "tgt"),
        replace(UNKNOWN, check=_unknown_reading),
    ),
}
