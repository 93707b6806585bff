"""Accuracy of two or three answers, and F1 or Matthews' correlation of ``yes``, by scikit-learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ofa.metrics.accuracy import Accuracy
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.task_spec import Metric, Scores

CELLS = ("_TP", "_FP", "_TN", "_FN")  # as upstream counts
DIGITS = {"F1": 3, "mcc": 4}  # figures of validation are rounded to, as upstream
POSITIVE = "yes"


@dataclass(frozen=True)
class ClassFigures(Accuracy):
    """Metrics of a task with few answers; rows without a label count in none of them.

    Args: second: ``F1`` or ``mcc`` of ``yes`` beside the accuracy; "": none.
    """

    second: str = ""

    @property
    def figures(self) -> tuple[Metric, ...]:
        if not self.second:
            return super().figures
        return (
            *super().figures,
            Metric(
                self.second,
                CELLS,
                partial(rounded, name=self.second),
                title=f"validation {self.second}",
            ),
        )

    def counts(
        self, predictions: Sequence[Prediction], rows: Sequence[BatchRow]
    ) -> dict[str, float]:
        """Right answers and rows of a batch, and the four cells of ``yes`` against everything
        else."""
        labeled = [(prediction, row) for prediction, row in zip(predictions, rows) if row.ref_dict]
        found = super().counts(
            [prediction for prediction, _ in labeled], [row for _, row in labeled]
        )
        if self.second:
            found |= cells(
                (prediction.text == POSITIVE, POSITIVE in (row.ref_dict or {}))
                for prediction, row in labeled
            )
        return found

    def final_scores(
        self,
        predictions: Sequence[Prediction],
        references: Sequence[Any],
        names: Sequence[str] | None = None,
    ) -> Scores:
        """The figures over all rows, and whether each is right."""
        scores = super().final_scores(predictions, references)
        if self.second:
            counts = cells(
                (one.text == POSITIVE, POSITIVE in answers)
                for one, answers in zip(predictions, references)
            )
            scores.overall[self.second] = figure(counts, self.second)
        return scores


def cells(pairs) -> dict[str, int]:
    """Numbers of true positives, false positives, true and false negatives. Args: pairs: (said
    yes?, is yes?) of each row."""
    names = {(True, True): "_TP", (True, False): "_FP", (False, False): "_TN", (False, True): "_FN"}
    found = dict.fromkeys(CELLS, 0)
    for pair in pairs:
        found[names[pair]] += 1
    return found


def figure(counts: Mapping[str, float], name: str) -> float:
    """F1 (``F1``) or Matthews' correlation (``mcc``) from the four cells; 0 where it is not
    defined."""
    if not any(counts[cell] for cell in CELLS):
        return 0.0
    from sklearn.metrics import f1_score, matthews_corrcoef

    truth, said, weight = [1, 0, 0, 1], [1, 1, 0, 0], [counts[cell] for cell in CELLS]
    if name == "F1":
        return float(f1_score(truth, said, sample_weight=weight, zero_division=0.0))
    return float(matthews_corrcoef(truth, said, sample_weight=weight))


def rounded(counts: Mapping[str, float], name: str) -> float:
    return round(figure(counts, name), DIGITS[name])
