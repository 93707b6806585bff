"""What happens to the words of a TSV column before they become a prompt or a target.

Pure functions on strings; the rules are those of upstream, on characters (never bytes), so that
every script is safe: only ASCII punctuation is ever removed. Prompts themselves are in ``tasks/``.
"""

import math
import re
import string
import unicodedata

from ofa.errors import UserError, place
from ofa.io.numbers import read_decimal

JOIN = "&&"  # between the captions, objects or answers of one field
CONFIDENCE = "|!+"  # between the confidence and the text of an answer
MISSPELLED = ("visual gronunding", "visual grounding")

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TO_BLANK = str.maketrans("-/", "  ")
_LEADING = ",.!?*#:;~"
_BLANKS = re.compile(r"\s{2,}")


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
    return _cut_at_spaces(text, max_words)


def clean_phrase(text: str, max_words: int | None = None) -> str:
    """As ``clean_question``, for captions and phrases: ``<person>`` also loses its brackets."""
    text = text.lower().lstrip(_LEADING).translate(_TO_BLANK).replace("<person>", "person")
    return _cut_at_spaces(text, max_words)


def _cut_at_spaces(text: str, max_words: int | None) -> str:
    return " ".join(_BLANKS.sub(" ", text).rstrip("\n").strip(" ").split(" ")[:max_words])


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
