"""How often answers are right, where an answer may be worth less than one (soft accuracy of
question answering); F1 or Matthews' correlation of ``yes``."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofa.task.answers import accepted_answers
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.scoring import Metric, Names, Scores, TaskMetrics, mean

CELLS = ("_TP", "_FP", "_TN", "_FN")  # as upstream counts
POSITIVE = "yes"


@dataclass(frozen=True)
class Accuracy(TaskMetrics):
    """Metrics of rows with accepted answers (``ref_dict``), or with one text as the target."""

    name: str = "acc"  # of the figure
    total: str = "_score_sum"  # name of the summed credit
    count: str = "_score_cnt"  # name of the number of rows
    # (name, k): another figure, what the best of the k best predictions earns
    top: tuple[str, int] | None = None
    digits: int = 4  # figures of validation are rounded to, as upstream
    title: str = "validation accuracy"  # of its curve
    words: str = "share of rows whose answer is right"  # below a table of scores

    @property
    def figures(self) -> tuple[Metric, ...]:
        figure = mean(
            self.name,
            self.total,
            self.count,
            title=self.title,
            digits=self.digits,
            words=self.words,
        )
        if not self.top:
            return (figure,)
        name, k = self.top
        best = f" of the {k} best"
        second = mean(
            name,
            total=f"_{name}_sum",
            count=f"_{name}_cnt",
            title=self.title + best,
            digits=self.digits,
            words=self.words + best,
        )
        return figure, second

    def references(self, row: BatchRow) -> list[str]:
        return accepted_answers(row)

    def reference(self, row: BatchRow) -> Mapping[str, float]:
        return {row.target.strip(): 1.0} if row.ref_dict is None else row.ref_dict

    def row_counts(
        self, prediction: Prediction, reference: Mapping[str, float] | Sequence[str]
    ) -> dict[str, float]:
        """What answers with the same letters and spaces earn."""
        accepted = _credits(reference)
        credits = [float(accepted.get(one.text, 0)) for one in (prediction, *prediction.others)]
        counts = {self.total: credits[0], self.count: 1.0}
        if self.top:
            name, k = self.top
            counts |= {f"_{name}_sum": max(credits[:k]), f"_{name}_cnt": 1.0}
        return counts

    def best_line(
        self, lines: Sequence[str], references: Sequence[Mapping[str, float] | Sequence[str]]
    ) -> str:
        """Reads the rows once: each adds what its accepted answers earn."""
        earned: Counter[str] = Counter()
        for reference in references:
            earned.update(_credits(reference))
        return max(lines, key=lambda line: earned[self.constant(line).text])


def _credits(reference: Mapping[str, float] | Sequence[str]) -> Mapping[str, float]:
    """What the accepted answers of a row earn: each the whole, if they are a list."""
    return reference if isinstance(reference, Mapping) else dict.fromkeys(reference, 1.0)


def f1(right: float, predicted: float, true: float) -> float:
    """Harmonic mean of precision and recall; 0 if nothing is predicted and nothing true."""
    return 2 * right / max(predicted + true, 1)


def f1_of_cells(cells: Mapping[str, float]) -> float:
    right = cells["_TP"]
    return f1(right, right + cells["_FP"], right + cells["_FN"])


def matthews(cells: Mapping[str, float]) -> float:
    """Matthews' correlation; 0 where it is not defined."""
    tp, fp, tn, fn = (cells[name] for name in CELLS)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(product or 1)


# figure, its digits as upstream, and what it is
OF_CELLS = {
    "F1": (f1_of_cells, 3, "F1 of the answer yes"),
    "mcc": (matthews, 4, "Matthews' correlation of the answer yes, -1 to 1"),
}


@dataclass(frozen=True)
class ClassFigures(Accuracy):
    """Args: second: ``F1`` or ``mcc`` of ``yes`` beside the accuracy; "": none."""

    second: str = ""

    @property
    def figures(self) -> tuple[Metric, ...]:
        if not self.second:
            return super().figures
        formula, digits, words = OF_CELLS[self.second]
        title = f"validation {self.second}"
        second = Metric(self.second, CELLS, formula, title=title, digits=digits, words=words)
        return *super().figures, second

    def row_counts(self, prediction: Prediction, reference: Any) -> dict[str, float]:
        """Besides the credit the four cells of ``yes`` against the rest."""
        said, true = prediction.text == POSITIVE, POSITIVE in reference
        cells = (said and true, said and not true, not (said or true), true and not said)
        return {**super().row_counts(prediction, reference), **dict(zip(CELLS, cells))}

    def final_scores(
        self, predictions: Sequence[Prediction], references: Sequence[Any], names: Names = None
    ) -> Scores:
        scores = super().final_scores(predictions, references)
        scores.by_row.pop(self.second, None)  # one row has none
        return scores
