"""How often answers are right, where an answer may be worth less than one (soft accuracy of
question answering); F1 or Matthews' correlation of ``yes``, by scikit-learn."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ofa.metrics.row_means import RowMeans, mean
from ofa.task.answers import accepted_answers
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.scoring import Metric, Names, Scores

CELLS = ("_TP", "_FP", "_TN", "_FN")  # as upstream counts
DIGITS = {"F1": 3, "mcc": 4}  # figures of validation are rounded to, as upstream
POSITIVE = "yes"


@dataclass(frozen=True)
class Accuracy(RowMeans):
    """Metrics of rows with accepted answers (``ref_dict``), or with one text as the target."""

    name: str = "acc"  # of the figure
    total: str = "_score_sum"  # name of the summed credit
    count: str = "_score_cnt"  # name of the number of rows
    # (name, k): another figure, what the best of the k best predictions earns
    top: tuple[str, int] | None = None
    digits: int = 4  # figures of validation are rounded to, as upstream
    title: str = "validation accuracy"  # of its curve

    @property
    def means(self) -> tuple[Metric, ...]:
        figure = mean(self.name, self.total, self.count, title=self.title, digits=self.digits)
        if not self.top:
            return (figure,)
        name, k = self.top
        title = f"{self.title} of the {k} best"
        best = mean(name, f"_{name}_sum", f"_{name}_cnt", title=title, digits=self.digits)
        return figure, best

    def references(self, row: BatchRow) -> list[str]:
        return accepted_answers(row)

    def reference(self, row: BatchRow) -> Mapping[str, float]:
        return {row.target.strip(): 1.0} if row.ref_dict is None else row.ref_dict

    def values(
        self, prediction: Prediction, reference: Mapping[str, float] | Sequence[str]
    ) -> dict[str, float]:
        """What answers with the same letters and spaces earn."""
        accepted = reference if isinstance(reference, Mapping) else dict.fromkeys(reference, 1.0)
        credits = [float(accepted.get(one.text, 0)) for one in (prediction, *prediction.others)]
        best = {self.top[0]: max(credits[: self.top[1]])} if self.top else {}
        return {self.name: credits[0], **best}


@dataclass(frozen=True)
class ClassFigures(Accuracy):
    """Args: second: ``F1`` or ``mcc`` of ``yes`` beside the accuracy; "": none."""

    second: str = ""

    @property
    def figures(self) -> tuple[Metric, ...]:
        if not self.second:
            return self.means
        value, title = partial(rounded, name=self.second), f"validation {self.second}"
        return *self.means, Metric(self.second, CELLS, value, title=title)

    def counts(
        self, predictions: Sequence[Prediction], rows: Sequence[BatchRow]
    ) -> dict[str, float]:
        """Right answers and rows of a batch, and the four cells of ``yes`` against the rest."""
        cells = count_cells(predictions, map(self.reference, rows)) if self.second else {}
        return super().counts(predictions, rows) | cells

    def final_scores(
        self, predictions: Sequence[Prediction], references: Sequence[Any], names: Names = None
    ) -> Scores:
        scores = super().final_scores(predictions, references)
        if self.second:
            scores.overall[self.second] = figure(count_cells(predictions, references), self.second)
        return scores


def count_cells(predictions: Iterable[Prediction], references: Iterable) -> dict[str, float]:
    names = {(True, True): "_TP", (True, False): "_FP", (False, False): "_TN", (False, True): "_FN"}
    cells: dict[str, float] = dict.fromkeys(CELLS, 0)
    for prediction, reference in zip(predictions, references):
        cells[names[prediction.text == POSITIVE, POSITIVE in reference]] += 1
    return cells


def figure(cells: Mapping[str, float], name: str) -> float:
    """F1 or Matthews' correlation from the four cells; 0 where it is not defined."""
    if not any(cells[cell] for cell in CELLS):
        return 0.0
    from sklearn.metrics import f1_score, matthews_corrcoef

    truth, predicted, weight = [1, 0, 0, 1], [1, 1, 0, 0], [cells[cell] for cell in CELLS]
    if name == "F1":
        return float(f1_score(truth, predicted, sample_weight=weight, zero_division=0.0))
    return float(matthews_corrcoef(truth, predicted, sample_weight=weight))


def rounded(cells: Mapping[str, float], name: str) -> float:
    return round(figure(cells, name), DIGITS[name])
