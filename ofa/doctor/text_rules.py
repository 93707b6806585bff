"""Rules of answers and of texts: sources, targets, captions, questions, phrases."""

from dataclasses import replace
from functools import partial

from ofa.doctor.rule import QUOTED, Rule, Settings, empty, shown, too_long, unquote
from ofa.io.numbers import read_decimal
from ofa.io.values import not_one_text
from ofa.task.columns import Column
from ofa.task.ocr_text import CHINESE
from ofa.task.text import CONFIDENCE, JOIN, has_words

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


def _long_answer(cell: str, settings: Settings, column: Column) -> str:
    return too_long(best_answer(cell), settings.words_kept(column))


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
)


def answer_rules(column: Column) -> tuple[Rule, ...]:
    """Of a column of answers with confidences."""
    cut = Rule(
        "cut-answer",
        "an answer that is not cut",
        partial(_long_answer, column=column),
        "raise --max-tgt-length",
        note=True,
    )
    return *ANSWER_RULES, cut


# -------------------------------------------------------------------------------------------- texts


def _cut(cell: str, settings: Settings, column: Column) -> str:
    """Several texts of a target are references, which are never cut; of a Chinese text on an
    image characters are counted."""
    words = settings.words_kept(column)
    if column.kind == "texts" and JOIN in cell:
        return ""
    if column.scene_text and CHINESE.search(cell):
        count = len(column.clean(cell))
        return f"{count} characters, of which {words} are kept" if 0 < words < count else ""
    return too_long(column.clean(cell), words) if len(cell) >= 2 * words else ""


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


def _unknown_pieces(cell: str, settings: Settings, column: Column) -> str:
    if not settings.bpe_dir:
        return ""
    bpe, vocabulary = language(settings.bpe_dir)
    text = column.clean(cell) if column.scene_text else cell
    unknown = [
        piece
        for piece in bpe.encode(" " + text).split(" ")
        if piece and (piece in UNK or piece not in vocabulary)
    ]
    return f"{len(unknown)} in {shown(text)}" if unknown else ""


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
EMPTY_TEXT = Rule("text-empty", "words", _no_words, "fill it in, or remove the row")
EMPTY_SCENE_TEXT = replace(EMPTY_TEXT, expects="the text on the image", check=empty)


def text_rules(column: Column) -> tuple[Rule, ...]:
    """Of a column of one or several texts; what may be empty and is not predicted may be
    anything."""
    if column.target or column.needed:
        side = "target" if column.target else "source"
        cut = Rule(
            f"cut-{side}",
            "a text that is not cut",
            partial(_cut, column=column),
            f"raise --max-{side[0]}{'gt' if column.target else 'rc'}-length",
            note=True,
        )
        unknown = Rule(
            "unknown-pieces",
            "text of pieces in dict.txt",
            partial(_unknown_pieces, column=column),
            "is it the right --bpe-dir for this language?",
            note=True,
        )
        return (
            TEXT_QUOTED,
            EMPTY_SCENE_TEXT if column.scene_text else EMPTY_TEXT,
            NOT_MEANT,
            cut,
            unknown,
        )
    return ()
