"""ROUGE-1, ROUGE-2 and ROUGE-L of summaries by rouge-score, after the token form in which
Gigaword's references are written."""

import string
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from types import SimpleNamespace

from ofa.metrics.ptb import BRACKETS, character_tokenize
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.scoring import TaskMetrics, mean
from ofa.task.text import is_chinese

# figure -> what is counted
NAMES = {
    "rouge1": "words",
    "rouge2": "pairs of words",
    "rougeL": "the longest common subsequence of words",
}
SIGNS = {**BRACKETS, "&": "&amp;", "<": "&lt;", ">": "&gt;", "[UNK]": "UNK"}
QUOTES = {'"': ("``", "''"), "'": ("`", "'")}  # opening, closing
ENDINGS = ("s", "d", "ll")  # what follows an apostrophe of its own: it ' s
MARKS = string.punctuation


def fix_tokens(text: str) -> str:
    """Tokens that a BPE or a word piece has torn apart, joined as in the Penn Treebank.

    ::

        the u.s. - led " war " ( tuesday )   ->   the u.s.-led `` war '' -lrb- tuesday -rrb-
        he didn ' t pay $ 3 , 000 or 3 . 5   ->   he did n't pay $ 3,000 or 3.5
    """
    tokens, at = text.split(), 0
    done: list[str] = []
    opened = dict.fromkeys(QUOTES, False)
    sticks = False  # to the hyphen before it
    while at < len(tokens):
        token, after = tokens[at], tokens[at + 1 : at + 3]
        last, following = done[-1] if done else "", after[0] if after else ""
        stuck, sticks, used = sticks, False, 1
        if token in SIGNS:
            done.append(SIGNS[token])
        elif token == "'" and last.endswith("n") and following == "t":
            done[-1:], used = [last[:-1], "n't"], 2
        elif token == "'" and following in ENDINGS:
            done, used = [*done, "'" + following], 2
        elif token in QUOTES:
            done.append(QUOTES[token][opened[token]])
            opened[token] = not opened[token]
        elif token == "." and after == [".", "."]:
            done, used = [*done, "..."], 3
        elif (token == "," and _number(last) and _number(following)) or (
            token == "." and last.isdigit() and following.isdigit()
        ):
            done[-1], used = last + token + following, 2
        elif token == "." and _initial(last) and _initial(following) and after[1:] == ["."]:
            # as upstream: the second full stop stays behind as well
            done[-1], used = (f"{last}.{following}.", 2)
        elif token == "-" and following == "-":
            done, used = [*done, "--"], 2
        elif (
            token == "-" and last and following and last not in MARKS and following[0] not in MARKS
        ):
            done[-1], sticks = last + "-", True
        elif stuck and token[0] not in MARKS:
            done[-1] = last + token
        else:
            done.append(token)
        at += used
    return " ".join(done)


def _number(token: str) -> bool:
    return bool(token) and token.replace(",", "0").isdigit()


def _initial(token: str) -> bool:
    return len(token) == 1 and token.isupper()


def summary_form(text: str) -> str:
    """A generated summary as it is scored and written: lower case, joined tokens, and ``#`` for the
    digit 1. Gigaword's references have ``#`` for every digit, and the usual training files 1 in its
    place."""
    return fix_tokens(text.lower().strip()).replace("1", "#")


@lru_cache(maxsize=2)
def scorer(chinese: bool):
    from rouge_score.rouge_scorer import RougeScorer

    if chinese:  # rouge-score knows Latin letters alone: every character is a word
        characters = SimpleNamespace(tokenize=lambda text: character_tokenize([text])[0].split())
        return RougeScorer([*NAMES], tokenizer=characters)
    return RougeScorer([*NAMES], use_stemmer=True)


def rouge(summary: str, reference: str) -> dict[str, float]:
    """F1 of each of ``NAMES``, 0 to 1, words stemmed; Chinese character by character."""
    found = scorer(is_chinese(reference)).score(reference, summary)
    return {name: float(found[name].fmeasure) for name in NAMES}


class SummaryMetrics(TaskMetrics):
    """ROUGE-L first, digits treated alike in both texts; of several references the best counts."""

    is_slow = True
    figures = tuple(
        mean(
            f"{name}_f1",
            f"_{name}_f1_sum",
            "_rouge_cnt",
            attrgetter("eval_rouge"),
            words=f"F1 of {words}, shared with the reference",
        )
        for name, words in NAMES.items()
    )
    reported = (figures[-1], *figures[:-1])

    def references(self, row: BatchRow) -> list[str]:
        return [row.target.strip() if row.target_str is None else row.target_str]

    def row_counts(self, prediction: Prediction, reference: Sequence[str]) -> dict[str, float]:
        summary = summary_form(prediction.text)
        found = [rouge(summary, text.lower().replace("1", "#")) for text in reference]
        best = max(found, key=lambda scores: scores["rougeL"])
        return {"_rouge_cnt": 1, **{f"_{name}_f1_sum": value for name, value in best.items()}}
