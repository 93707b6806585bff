"""How often answers are right, where an answer may be worth less than one: soft accuracy of
question answering."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ofa.task.answers import accepted_answers
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.task_spec import Metric, Scorer, Scores, TaskMetrics


@dataclass(frozen=True)
class Accuracy(TaskMetrics):
    """Metrics of a task whose rows have accepted answers (``ref_dict``), or one text as the target.

    Args:
        name: of the figure. total, count: names of the counts, the summed credit and the number of
            rows.
        top: (name, k): another figure, what the best of the k best predictions earns.
        digits: figures of validation are rounded to, as upstream.
        title: what its curve is called.
    """

    name: str = "acc"
    total: str = "_score_sum"
    count: str = "_score_cnt"
    top: tuple[str, int] | None = None
    digits: int = 4
    title: str = "validation accuracy"

    @property
    def figures(self) -> tuple[Metric, ...]:
        """The figures of validation; each row counts the same, whatever the batches."""
        names = {self.name: (self.title, self.total, self.count)}
        if self.top:
            names[self.top[0]] = (f"{self.title} of the {self.top[1]} best", *self.top_counts())
        return tuple(
            Metric(
                name,
                tuple(counts),
                partial(mean_of, total=counts[0], count=counts[1], digits=self.digits),
                title=title,
            )
            for name, (title, *counts) in names.items()
        )

    def references(self, row: BatchRow) -> list[str]:
        return accepted_answers(row)

    def top_counts(self) -> tuple[str, str]:
        name = self.top[0] if self.top else ""
        return f"_{name}_sum", f"_{name}_cnt"

    def make_scorer(self, options, all_references) -> Scorer:
        return self.counts

    def counts(self, predictions: list[Prediction], rows: list[BatchRow]) -> dict[str, float]:
        """Credit and rows of a batch."""
        accepted = [
            {row.target.strip(): 1.0} if row.ref_dict is None else row.ref_dict for row in rows
        ]
        found = {self.total: sum(map(best_credit, predictions, accepted)), self.count: len(rows)}
        if self.top:
            total, count = self.top_counts()
            credits = map(partial(best_credit, k=self.top[1]), predictions, accepted)
            found = {total: sum(credits), count: len(rows), **found}
        return found

    def final_scores(
        self,
        predictions: Sequence[Prediction],
        references: Sequence[Mapping[str, float] | Sequence[str]],
        names: Sequence[str] | None = None,
    ) -> Scores:
        """The figures over all rows, and of each."""
        accepted = [
            one if isinstance(one, Mapping) else dict.fromkeys(one, 1.0) for one in references
        ]
        wanted = {self.name: 1, **({self.top[0]: self.top[1]} if self.top else {})}
        by_row = {
            name: list(map(partial(best_credit, k=k), predictions, accepted))
            for name, k in wanted.items()
        }
        return Scores(
            {name: sum(values) / max(len(values), 1) for name, values in by_row.items()}, by_row
        )


def best_credit(prediction: Prediction, accepted: Mapping[str, float], k: int = 1) -> float:
    """What the best of a row's k best predictions earns: the score of an answer with the same
    letters and spaces, or 0."""
    return max(float(accepted.get(one.text, 0.0)) for one in [prediction, *prediction.others][:k])


def mean_of(counts: Mapping[str, float], total: str, count: str, digits: int) -> float:
    """Mean credit."""
    return round(counts[total] / max(counts[count], 1), digits)
