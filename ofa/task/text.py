"""What happens to the words of a TSV column before they become a prompt or a target, and to those
of a prediction.

Pure functions on strings; the rules are those of upstream, on characters (never bytes), so that
every script is safe: only ASCII punctuation is ever removed. Prompts themselves are in ``tasks/``.
"""

import functools
import math
import re
import string
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ofa.errors import UserError, place
from ofa.io.values import RowError, finding, read_decimal, text_of, words_of
from ofa.task.columns import NOUNS

JOIN = "&&"  # between the captions, objects or answers of one field
CONFIDENCE = "|!+"  # between the confidence and the text of an answer
BREAKS = re.compile(r"[\t\r\n]+")
MISSPELLED = ("visual gronunding", "visual grounding")

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TO_BLANK = str.maketrans("-/", "  ")
_LEADING = ",.!?*#:;~"
_BLANKS = re.compile(r"\s{2,}")

# Characters that are written without spaces around them: ideographs, their punctuation, kana,
# full-width forms. Then ideographs alone, and what counts as Chinese on images.
WIDE = (
    "\u2e80-\u2fdf\u3000-\u30ff\u31c0-\u31ef\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
)
IDEOGRAPH = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
CHINESE = re.compile(
    "[\u2e80-\u303f\u3100-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
SPACES = re.compile(f"(?<=[{WIDE}])[ ]+|[ ]+(?=[{WIDE}])")
# BERT's decoding closes up what is before a full stop alone
INSIDE_NUMBERS = re.compile(r"(?<=\d[.,:]) (?=\d)")
QUESTION_MARKS = ("?", "？")


def as_cell(value: Any) -> str:
    """A value of JSON as a column: texts of a list joined by ``&&``, numbers by commas; line breaks
    and tabs become spaces; ``{"answer": "yes"}`` stands for its text. What is no text
    (``ofa.io.values``) is empty, as null is: tasks refuse a row without words, and metadata in
    columns that nobody selects do not matter."""
    parts = value if isinstance(value, list) else [value]
    try:
        texts = [text_of(part, "a text", "answer", "caption", "raw", "text") for part in parts]
    except RowError:
        return ""
    between = JOIN if any(isinstance(part, (str, dict)) for part in parts) else ","
    cell = BREAKS.sub(" ", between.join(texts)).strip()
    return cell.encode("utf-8", "replace").decode("utf-8")


def without_join(text: str) -> str:
    """As one of the texts of a column: ``salt && pepper`` -> ``salt & pepper``."""
    return re.sub(f"{JOIN}+", "&", text)


def objects_field(objects: Sequence[Any], box_of: Callable[[Mapping], str]) -> str:
    """Objects ``{"box": [...], "label": "dog"}`` -> ``x0,y0,x1,y1,0,dog`` and so on, joined. Args:
    box_of: the box of an object, as a column. Raises: RowError."""
    parts = []
    for number, one in enumerate(objects):
        if not isinstance(one, Mapping):
            raise RowError(f"{NOUNS['boxes']}, found {finding(one)}")
        words = without_join(words_of(one.get("label"), "a label of an object", "label"))
        parts.append(f"{box_of(one)},{number},{words}")
    return JOIN.join(parts)


def remove_punctuation(text: str) -> str:
    """Text without ASCII punctuation. Spaces stay: ``"fox -- jumps."`` -> ``"fox  jumps"``."""
    return text.translate(_NO_PUNCTUATION).strip()


def has_words(text: str) -> bool:
    """Whether there is more than spaces and marks of any script: ``"🔥"``, not ``"。……"``."""
    return any(
        c not in string.punctuation and unicodedata.category(c)[0] not in "PZC" for c in text
    )


def truncate_words(text: str, max_words: int | None) -> str:
    """The first ``max_words`` words, one space between them; all words when None."""
    return " ".join(text.split()[:max_words])


def caption_target(
    caption: str, max_words: int | None = None, keep_punctuation: bool = False
) -> str:
    """Caption to be learned: punctuation removed, then cut. ``"A dog, a cat."`` -> ``"A dog a
    cat"``. A field of several captions becomes one, as upstream: ``&&`` is punctuation here. Words
    end at spaces, so Chinese captions are never cut, as upstream."""
    text = caption.replace(JOIN, " ") if keep_punctuation else remove_punctuation(caption)
    return truncate_words(text, max_words)


def caption_references(field: str, keep_punctuation: bool = False) -> list[str]:
    """References of an image: ``"A dog.&&Two  dogs!"`` -> ``["A dog", "Two dogs"]``. Never cut."""
    clean = str.strip if keep_punctuation else remove_punctuation
    return list(map(clean, " ".join(field.split()).split(JOIN)))


def clean_question(question: str, max_words: int | None = None) -> str:
    """Question as the model reads it: ``"Is the   Man's shirt RED"`` -> ``"is the man's shirt
    red"``. Lower case, no leading punctuation, ``-`` and ``/`` become spaces, runs of spaces one;
    the first ``max_words`` words. The question mark is the prompt's business."""
    text = question.lower().lstrip(_LEADING).translate(_TO_BLANK)
    return " ".join(_BLANKS.sub(" ", text).rstrip("\n").strip(" ").split(" ")[:max_words])


def clean_phrase(text: str, max_words: int | None = None) -> str:
    """As ``clean_question``, for captions and phrases: ``<person>`` also loses its brackets."""
    return clean_question(text.lower().replace("<person>", "person"), max_words)


def split_objects(field: str, max_objects: int | None = None) -> list[str]:
    """Objects of a column: ``"person&&shirt&&car"`` -> ``["person", "shirt", "car"]``."""
    return [name.strip() for name in field.strip().split(JOIN) if name.strip()][:max_objects]


def kind_of_pair(field: str) -> str:
    """Type of a row of pretraining, also as upstream's README spells it: ``"visual
    gronunding"`` -> ``"visual_grounding"``."""
    kind = field.strip()
    return "visual_grounding" if kind in MISSPELLED else kind


def parse_answers(field: str, where: str = "") -> dict[str, float]:
    """Answers and their confidences: ``"0.6|!+yes&&1.0|!+no"`` -> ``{"yes": 0.6, "no": 1.0}``. An
    answer without a confidence counts 1.0. Raises: UserError with ``where`` (``file:row``) if a
    confidence is no finite non-negative number, or an answer is empty."""
    answers = {}
    for part in field.strip().split(JOIN):
        confidence, separator, answer = part.rpartition(CONFIDENCE)
        try:
            score = read_decimal(confidence) if separator else 1.0
        except ValueError:
            score = math.nan
        if not (score >= 0 and answer.strip()) or CONFIDENCE in confidence:
            raise UserError(
                f"{place(where)}expects answers 'confidence{CONFIDENCE}answer' joined by {JOIN}, "
                f"found {part[:80]!r}; the confidence is a number such as 0.6, the answer a text"
            )
        answers[answer] = score
    return answers


def learned_answer(field: str, where: str = "") -> str:
    """The first of highest confidence: ``"0.6|!+yes&&1.0|!+no"`` -> ``"no"``."""
    answers = parse_answers(field, where)
    return max(answers, key=answers.__getitem__)


# --- Chinese --------------------------------------------------------------------------------------


def is_chinese(text: str) -> bool:
    return IDEOGRAPH.search(text) is not None


def without_spaces(text: str) -> str:
    """A decoded text as people write it: a BERT vocabulary has no spaces, its pieces are joined by
    them. They stay between words in Latin letters alone; a text without Chinese stays as it is.

    >>> without_spaces("一 只 猫 看 open source 的 书 ， 4. 5 元")
    '一只猫看open source的书，4.5元'
    """
    return INSIDE_NUMBERS.sub("", SPACES.sub("", text)) if is_chinese(text) else text


# --- texts that are read off images ---------------------------------------------------------------


def plain_text(text: str) -> str:
    """Simplified characters, NFKC, lower case; spaces stay as they are: ``"ＳＴＯＰ  Sign"`` ->
    ``"stop  sign"``, ``"開門時間ABC"`` -> ``"开门时间abc"``."""
    simplified = text if text.isascii() else converter()(text, "zh-hans")
    return unicodedata.normalize("NFKC", simplified).lower()


@functools.cache
def converter():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how zhconv finds its table
            from zhconv import convert
    except ModuleNotFoundError as error:
        raise UserError(
            f"texts that are not plain ASCII need zhconv, found no module {error.name}; run: pip"
            " install zhconv 'setuptools<81'"
        ) from None
    return convert


def learned_text(text: str, length: int, language: str) -> str:
    """The text as a target, cut to ``length``: words, one space between them; of Chinese
    characters. Args: language: "zh" counts characters, everything else words, as upstream."""
    plain = plain_text(text)
    return plain[:length].strip() if language == "zh" else truncate_words(plain, length)


def compared_text(text: str) -> str:
    """What is compared, as upstream: a Chinese vocabulary does not know where spaces were."""
    return "".join(text.split())


def written_text(text: str) -> str:
    """A prediction as it is written, Chinese without spaces: ``"你 好"`` -> ``"你好"``."""
    return compared_text(text) if CHINESE.search(text) else text
