"""The rules of the data files: one row of a table each, with what it expects, how it is checked and how it is mended.

A check gets a cell and the settings and returns what it found, or "" when all is well. A repair gets the same and returns
a better cell. A rule without a repair leaves the row to the user. Notes are no faults: the row works, but differently than
its author may think.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ofa.doctor.boxes import boxes_of, turned, upright
from ofa.text import CONFIDENCE, JOIN, clean_phrase, clean_question, remove_punctuation

LONGEST_SHOWN = 40  # characters of a cell in a finding


@dataclass(frozen=True)
class Settings:
    """What the rules may use besides the cell. Plain data: travels to worker processes.

    Args:
        width: columns of every row. columns: name -> number of the column. names: where messages say so.
        max_src, max_tgt: words kept of a source and a target. labels: the words a label may be.
        answers: texts of the answer set, or None. num_codes: image codes in the vocabulary. codes: of a row.
        picture_side: pixels that every picture must have, or 0. bpe_dir: vocabulary folder, or "".
        images: decode pictures.
    """

    task: str = ""
    width: int = 0
    columns: tuple[tuple[str, int], ...] = ()
    max_src: int = 80
    max_tgt: int = 30
    labels: frozenset[str] = frozenset()
    answers: frozenset[str] | None = None
    num_codes: int = 8192
    codes: int = 0
    picture_side: int = 0
    bpe_dir: str = ""
    images: bool = True


@dataclass(frozen=True)
class Rule:
    """Args: check: None for rules of whole files. fix: what the user does. note: not a fault."""

    name: str
    expects: str
    check: Callable[[Any, Settings], str] | None
    fix: str
    repair: Callable[[Any, Settings], Any] | None = None
    note: bool = False


def shown(cell: str | bytes) -> str:
    """The beginning of a cell for a message."""
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")


# -------------------------------------------------------------------------------- the bytes of a row


def _carriage_return(row: bytes, settings: Settings) -> str:
    return f"one after {shown(row[: row.index(13)][-20:])}" if b"\r" in row else ""


def _nul(row: bytes, settings: Settings) -> str:
    return f"{row.count(0)} in the row" if b"\0" in row else ""


def _utf8(row: bytes, settings: Settings) -> str:
    try:
        row.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"the byte 0x{row[error.start]:02x} in column {row[: error.start].count(9)}"
    return ""


def _empty_row(row: bytes, settings: Settings) -> str:
    return "" if row.strip() else "an empty line"


def _width(row: bytes, settings: Settings) -> str:
    found = row.count(b"\t") + 1
    if found == settings.width:
        return ""
    return f"{found}: is there a {'line break' if found < settings.width else 'tab'} inside a field?"


ROW_RULES = (
    Rule("nul", "no NUL bytes", _nul, "remove them", lambda row, _: row.replace(b"\0", b"")),
    Rule("carriage-return", "no carriage return inside a row", _carriage_return, "replace it by a blank",
         lambda row, _: row.replace(b"\r", b" ")),
    Rule("utf-8", "UTF-8 text", _utf8, "save the file as UTF-8"),
    Rule("empty-row", "a row of columns", _empty_row, "remove the line"),
    Rule("columns", "as many tab-separated columns as the other rows have", _width,
         "write blanks instead of tabs and line breaks inside a field"),
)  # fmt: skip


# ------------------------------------------------------------------------------------------- pictures

BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
LITERAL = re.compile(r"""^b(['"])(.*)\1$""", re.DOTALL)


def _quoted(cell: str, settings: Settings) -> str:
    return shown(cell) if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'" else ""


def _unquote(cell: str, settings: Settings) -> str:
    return cell[1:-1].replace('""', '"')


def _bytes_literal(cell: str, settings: Settings) -> str:
    return f"{shown(cell[:14])}: Python's notation of bytes" if cell.startswith(("b'", 'b"')) else ""


def _unwrap_literal(cell: str, settings: Settings) -> str:
    match = LITERAL.match(cell)
    return match[2] if match else cell


def _data_url(cell: str, settings: Settings) -> str:
    return f"{shown(cell[:30])}: a data URL" if cell.startswith("data:") else ""


def _base64(cell: str, settings: Settings) -> str:
    try:
        others = cell.rstrip("=").encode("ascii").translate(None, BASE64)
    except UnicodeEncodeError:
        others = re.sub(r"[A-Za-z0-9+/_-]", "", cell)
    if not others:
        return ""
    if len(cell) < 300 and ("." in cell or " " in cell):
        return f"{shown(cell)}: a path or a sentence"
    return f"the character {shown(others[:1])} in {shown(cell)}"


def _padding(cell: str, settings: Settings) -> str:
    return f"{len(cell)} characters: the end is missing" if len(cell) % 4 or cell.endswith("===") else ""


def _pad(cell: str, settings: Settings) -> str:
    text = cell.rstrip("=")
    return text + "=" * (-len(text) % 4) if len(text) % 4 != 1 else cell


def _empty(cell: str, settings: Settings) -> str:
    return "" if cell and not cell.isspace() else "an empty field"


QUOTED = Rule("quoted", "a field without quotes", _quoted, "write the TSV without quoting (pandas: quoting=csv.QUOTE_NONE)", _unquote)
IMAGE_RULES = (
    Rule("image-empty", "a picture in base64", _empty, "leave the row out, or give a grey picture"),
    Rule("bytes-literal", "base64 alone", _bytes_literal, "write base64.b64encode(data).decode(), not str()", _unwrap_literal),
    QUOTED,
    Rule("data-url", "base64 alone", _data_url, "keep only what follows the comma", lambda cell, _: cell.partition(",")[2]),
    Rule("base64", "base64, standard or URL-safe", _base64, "check --selected-cols, or encode the picture again",
         lambda cell, _: re.sub(r"\s+", "", cell) if len(cell) > 300 else cell),
    Rule("base64-length", "base64 padded with = to groups of four", _padding, "pad it; if it was cut off, encode the picture again",
         _pad),
)  # fmt: skip

# ---------------------------------------------------------------------------------- ids, labels, codes


def _float_id(cell: str, settings: Settings) -> str:
    return shown(cell) if cell.endswith(".0") and cell[:-2].isdecimal() else ""


def _label(cell: str, settings: Settings) -> str:
    return "" if not settings.labels or cell in settings.labels else shown(cell)


def _known_label(cell: str, settings: Settings) -> str:
    return cell.strip().lower() if cell.strip().lower() in settings.labels else cell


def _class_words(cell: str, settings: Settings) -> str:
    return "" if settings.answers is None or cell in settings.answers else shown(cell)


def _code_numbers(cell: str, settings: Settings) -> str:
    other = cell.encode().translate(None, b"0123456789 ").decode("utf-8", "replace")
    if other or not cell:
        return f"the character {other[:1]!r}" if other else "an empty field"
    numbers = np.fromstring(cell, np.int64, sep=" ")  # a third of the time of int() on each
    if len(numbers) != cell.count(" ") + 1:
        return "two blanks in a row, or one at an end"
    return str(numbers.max()) if numbers.max() >= settings.num_codes else ""


def _plain_codes(cell: str, settings: Settings) -> str:
    return " ".join(cell.replace(",", " ").strip(" []").split())


def _code_count(cell: str, settings: Settings) -> str:
    found = cell.count(" ") + 1
    return "" if not settings.codes or found == settings.codes else f"{found}, not {settings.codes}"


ID_RULES = (
    Rule("id-empty", "an id", _empty, "give every row an id"),
    QUOTED,
    Rule("id-float", "an id as it is", _float_id, "read ids as text (pandas: dtype=str)", lambda cell, _: cell[:-2]),
)
LABEL_RULES = (QUOTED, Rule("label", "a label of the task", _label, "correct it; is it the file of another data set?", _known_label))
CLASS_RULES = (
    Rule("text-empty", "words", _empty, "fill it in, or remove the row"),
    Rule("class-known", "words of the label file", _class_words, "correct them; is it the label file of another data set?"),
)
CODE_RULES = (
    QUOTED,
    Rule("code-range", "numbers from 0 to the number of codes, separated by blanks", _code_numbers,
         "make the codes again with the tokenizer of this vocabulary", _plain_codes),
    Rule("code-count", "as many codes as the picture has", _code_count,
         "make the codes again: 1024 for a picture of 256 x 256 pixels, 256 for the middle of it in pre-training"),
)  # fmt: skip

# -------------------------------------------------------------------------------------------- answers


def _answer_parts(cell: str) -> list[tuple[str, str]]:
    """(confidence, answer) as texts; the confidence is empty where there is no separator."""
    return [(before, after) for before, _, after in (part.rpartition(CONFIDENCE) for part in cell.split(JOIN))]


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
    parts = [(confidence or "1.0", answer) for confidence, answer in _answer_parts(cell) if answer.strip()]
    return JOIN.join(f"{confidence}{CONFIDENCE}{answer}" for confidence, answer in parts)


def _confidence(cell: str, settings: Settings) -> str:
    for confidence, _ in _answer_parts(cell):
        try:
            if 0 <= float(confidence) <= 1:
                continue
        except ValueError:
            pass
        return shown(confidence)
    return ""


def best_answer(cell: str) -> str:
    """The answer that is learned: the first of the highest confidence."""
    return max(_answer_parts(cell), key=lambda part: float(part[0]))[1]


def _answer_known(cell: str, settings: Settings) -> str:
    if settings.answers is None or (answer := best_answer(cell)) in settings.answers:
        return ""
    return shown(answer)


def _long_answer(cell: str, settings: Settings) -> str:
    return _too_long(best_answer(cell), settings.max_tgt)


ANSWER_RULES = (
    QUOTED,
    Rule("answer-grammar", f"confidence{CONFIDENCE}answer, several joined by {JOIN}", _answer_grammar,
         f"write for example 1.0{CONFIDENCE}yes{JOIN}0.3{CONFIDENCE}no", _complete_answers),
    Rule("answer-confidence", "a confidence from 0 to 1", _confidence, "correct the number"),
    Rule("answer-known", "a best answer that is in the answer set", _answer_known,
         "add it to the answer set, or leave the row out; is it the answer file of another data set?"),
    Rule("cut-answer", "an answer that is not cut", _long_answer, "raise --max-tgt-length", note=True),
)  # fmt: skip

# ---------------------------------------------------------------------------------------------- texts


def _too_long(text: str, words: int) -> str:
    """Finding for a text of more words than are kept. A word and its blank take two characters at least."""
    if len(text) < 2 * words or (count := len(text.split())) <= words:
        return ""
    return f"{count} words, of which {words} are kept"


def _long_caption(cell: str, settings: Settings) -> str:
    if len(cell) < 2 * settings.max_tgt or JOIN in cell:  # several captions are references, which are never cut
        return ""
    return _too_long(remove_punctuation(cell), settings.max_tgt)


def _long_source(cell: str, settings: Settings, clean: Callable[[str], str] = str) -> str:
    return _too_long(clean(cell), settings.max_src) if len(cell) >= 2 * settings.max_src else ""


def _long_target(cell: str, settings: Settings) -> str:
    return _too_long(cell, settings.max_tgt)


def _no_words(cell: str, settings: Settings) -> str:
    for caption in cell.split(JOIN):
        if remove_punctuation(caption):
            return ""
    return f"{shown(cell)}: nothing but punctuation" if cell.strip() else "an empty field"


def _all_quoted(cell: str, settings: Settings) -> str:
    """A text may stand in quotes; that its own quotes are doubled gives a CSV writer away."""
    inner = cell[1:-1]
    written = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' in inner and '"' not in inner.replace('""', "")
    return shown(cell) if written else ""


def _unknown_pieces(cell: str, settings: Settings) -> str:
    if not settings.bpe_dir:
        return ""
    bpe, vocabulary = language(settings.bpe_dir)
    unknown = [piece for piece in bpe.encode(" " + cell).split(" ") if piece and (piece in UNK or piece not in vocabulary)]
    return f"{len(unknown)} in {shown(cell)}" if unknown else ""


UNK = ("<unk>", "[UNK]")  # what a BPE writes for characters that it does not know
LANGUAGES: dict[str, tuple] = {}


def language(folder: str) -> tuple:
    """BPE and vocabulary of a folder, once per process."""
    if folder not in LANGUAGES:
        from ofa.bpe import load_bpe
        from ofa.vocabulary import Vocabulary

        LANGUAGES[folder] = load_bpe(folder), Vocabulary.from_folder(folder)
    return LANGUAGES[folder]


TEXT_QUOTED = Rule("quoted", "a field without quotes", _all_quoted, QUOTED.fix, _unquote)
UNKNOWN = Rule("unknown-pieces", "text of pieces in dict.txt", _unknown_pieces,
               "is it the right --bpe-dir for this language?", note=True)  # fmt: skip
EMPTY_TEXT = Rule("text-empty", "words", _no_words, "fill it in, or remove the row")


def _text(*more: Rule) -> tuple[Rule, ...]:
    return (TEXT_QUOTED, EMPTY_TEXT, *more, UNKNOWN)


def _cut(check: Callable[[str, Settings], str], option: str) -> Rule:
    return Rule(f"cut-{'source' if option == 'src' else 'target'}", "a text that is not cut", check,
                f"raise --max-{option}-length", note=True)


# ---------------------------------------------------------------------------------------------- boxes


def _box_grammar(cell: str, settings: Settings, kind: str) -> str:
    return shown(cell) if boxes_of(cell, kind) is None else ""


def _turned_boxes(cell: str, settings: Settings, kind: str) -> str:
    wrong = [box for box in boxes_of(cell, kind) or () if turned(box)]
    return f"{','.join(f'{number:g}' for number in wrong[0])}: turned round or without area" if wrong else ""


def _upright_boxes(cell: str, settings: Settings, kind: str) -> str:
    return upright(cell, kind)


def _box_rules(kind: str, grammar: str) -> tuple[Rule, ...]:
    return (
        QUOTED,
        Rule("box-grammar", grammar, partial(_box_grammar, kind=kind), "write pixels of the picture, separated by commas"),
        Rule("box-order", "x0 < x1 and y0 < y1", partial(_turned_boxes, kind=kind),
             "write left,top,right,bottom; width and height are no corners", partial(_upright_boxes, kind=kind)),
    )  # fmt: skip


# kind of column -> its rules, in order; after a fault the later rules of a cell are not asked
CELL_RULES: dict[str, tuple[Rule, ...]] = {
    "any": (),
    "id": ID_RULES,
    "image": IMAGE_RULES,
    "label": LABEL_RULES,
    "class": CLASS_RULES,
    "codes": CODE_RULES,
    "answers": ANSWER_RULES,
    "box": _box_rules("box", "a box x0,y0,x1,y1 of four numbers"),
    "detections": _box_rules("detections", f"objects x0,y0,x1,y1,category,name joined by {JOIN}"),
    "caption": _text(_cut(_long_caption, "tgt")),
    "question": _text(_cut(partial(_long_source, clean=clean_question), "src")),
    "phrase": _text(_cut(partial(_long_source, clean=clean_phrase), "src")),
    "source": _text(_cut(_long_source, "src")),
    "target": _text(_cut(_long_target, "tgt")),
}
