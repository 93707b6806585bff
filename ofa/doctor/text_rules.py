"""Rules of answers and of texts: sources, targets, captions, questions, phrases."""

from dataclasses import replace
from functools import lru_cache

from ofa.doctor.rule import QUOTED, Rule, Settings, empty, fraction, shown
from ofa.io.values import not_one_text
from ofa.task.columns import Column
from ofa.task.text import CHINESE, CONFIDENCE, JOIN, has_words, learned_answer

# --- answers

best_answer = lru_cache(1)(learned_answer)  # several rules ask for that of the same cell


def _answer_parts(cell: str) -> list[tuple[str, str]]:
    """(confidence, answer) as texts; the confidence is empty where there is no separator."""
    parts = (part.rpartition(CONFIDENCE) for part in cell.split(JOIN))
    return [(confidence, answer) for confidence, _, answer in parts]


def _answer_grammar(cell: str, column: Column, settings: Settings) -> str:
    for part in cell.split(JOIN):
        confidence, separator, answer = part.rpartition(CONFIDENCE)
        if not separator:
            return f"{shown(part)} without a confidence"
        if not answer.strip():
            return f"{shown(part)} without an answer"
        if CONFIDENCE in confidence:
            return f"{shown(part)} with two confidences: is {JOIN} missing?"
    return ""


def _complete_answers(cell: str, column: Column) -> str:
    parts = [(sure or "1.0", answer) for sure, answer in _answer_parts(cell) if answer.strip()]
    return JOIN.join(f"{sure}{CONFIDENCE}{answer}" for sure, answer in parts)


def _confidences(cell: str, column: Column, settings: Settings) -> str:
    found = (fraction(confidence, column, settings) for confidence, _ in _answer_parts(cell))
    return next(filter(None, found), "")


def _answer_known(cell: str, column: Column, settings: Settings) -> str:
    if settings.evaluation or settings.answers is None:
        return ""
    answer = best_answer(cell)
    return "" if answer in settings.answers else shown(answer)


ANSWER_RULES = (
    QUOTED,
    Rule(
        "answer-grammar",
        f"confidence{CONFIDENCE}answer, several joined by {JOIN}",
        f"write for example 1.0{CONFIDENCE}yes{JOIN}0.3{CONFIDENCE}no",
        _answer_grammar,
        _complete_answers,
    ),
    Rule("answer-confidence", "a confidence from 0 to 1", "correct the number", _confidences),
    Rule(
        "answer-known",
        "a best answer that is in the answer set",
        "add it to the answer set, or leave the row out; is it the answer file of another data"
        " set?",
        _answer_known,
    ),
)

# --- texts

UNK = ("<unk>", "[UNK]")  # what a BPE writes for characters that it does not know


def _missing(cell: str, column: Column, settings: Settings) -> str:
    text = best_answer(cell) if column.kind == "answer" else cell.strip()
    kind = not_one_text(text)
    return f"{shown(text)}, {kind}" if kind else ""


def _cut(cell: str, column: Column, settings: Settings) -> str:
    """Several texts of a target are references, which are never cut; of a Chinese text on an
    image characters are counted."""
    words = settings.words_kept(column)
    # a word and its space take two characters at least
    if not words or (column.kind == "texts" and JOIN in cell):
        return ""
    if column.scene_text and CHINESE.search(cell):
        count = len(column.clean(cell))
        return f"{count} characters, of which {words} are kept" if count > words else ""
    if len(cell) < 2 * words:
        return ""
    text = best_answer(cell) if column.kind == "answer" else column.clean(cell)
    count = len(text.split())
    return f"{count} words, of which {words} are kept" if count > words else ""


def _no_words(cell: str, column: Column, settings: Settings) -> str:
    if cell[:1].isalnum() or any(map(has_words, cell.split(JOIN))):
        return ""
    return f"{shown(cell)}: nothing but punctuation" if cell.strip() else "an empty field"


def _csv_quoted(cell: str, column: Column, settings: Settings) -> str:
    """A text may stand in quotes; that its own quotes are doubled gives a CSV writer away."""
    inner = cell[1:-1]
    doubled = '"' in inner and '"' not in inner.replace('""', "")
    return shown(cell) if len(cell) > 1 and cell[0] == cell[-1] == '"' and doubled else ""


@lru_cache(1)
def language(folder: str) -> tuple:
    """BPE and vocabulary of a folder, once per process."""
    from ofa.tokens.bpe import load_bpe
    from ofa.tokens.vocabulary import Vocabulary

    return load_bpe(folder), Vocabulary.from_folder(folder)


def _unknown_pieces(cell: str, column: Column, settings: Settings) -> str:
    if not settings.bpe_dir:
        return ""
    bpe, vocabulary = language(settings.bpe_dir)
    text = column.clean(cell) if column.scene_text else cell
    pieces = filter(None, bpe.encode(" " + text).split(" "))
    count = sum(piece in UNK or piece not in vocabulary for piece in pieces)
    return f"{count} in {shown(text)}" if count else ""


TEXT_QUOTED = replace(QUOTED, check=_csv_quoted)
EMPTY_TEXT = Rule("text-empty", "words", "fill it in, or remove the row", _no_words)
EMPTY_CLASS = replace(EMPTY_TEXT, check=empty)
EMPTY_SCENE_TEXT = replace(EMPTY_CLASS, expects="the text on the image")
MISSING = Rule(
    "text-missing",
    "words that somebody wrote",
    "fill them in, or remove the row, if nobody wrote them",
    _missing,
    note=True,
)
CUT = {
    of: Rule(f"cut-{of}", f"{what} that is not cut", f"raise {flag}", _cut, note=True)
    for of, what, flag in (
        ("source", "a text", "--max-src-length"),
        ("target", "a text", "--max-tgt-length"),
        ("answer", "an answer", "--max-tgt-length"),
    )
}
UNKNOWN_PIECES = Rule(
    "unknown-pieces",
    "text of pieces in dict.txt",
    "is it the right --bpe-dir for this language?",
    _unknown_pieces,
    note=True,
)
