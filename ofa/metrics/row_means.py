"""Metrics that are means over rows, the same in validation and at the end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ofa.task.prediction import BatchRow, Prediction
from ofa.task.scoring import Metric, Names, Scorer, Scores, TaskMetrics, always


class RowMeans(TaskMetrics):
    """What each row is worth, by name. Tasks derive ``means``, ``values`` and, if they do not score
    the texts of ``references``, ``reference``."""

    @property
    def means(self) -> tuple[Metric, ...]:
        """The figures of validation, made by ``mean``; each is among ``values``."""
        raise NotImplementedError(type(self).__name__)

    def values(self, prediction: Prediction, reference: Any) -> dict[str, float]:
        """Args: reference: as ``TaskSpec.row_references`` gives it."""
        raise NotImplementedError(type(self).__name__)

    def reference(self, row: BatchRow) -> Any:
        """What the prediction of a row of a batch is compared with."""
        return self.references(row)

    @property
    def figures(self) -> tuple[Metric, ...]:
        return self.means

    def make_scorer(self, options: Any, all_references: Callable[[], list[list[str]]]) -> Scorer:
        return self.counts

    def counts(
        self, predictions: Sequence[Prediction], rows: Sequence[BatchRow]
    ) -> dict[str, float]:
        by_row = self.by_row(predictions, map(self.reference, rows))
        found: dict[str, float] = {}
        for figure in self.means:
            total, count = figure.counts
            found |= {total: float(sum(by_row.get(figure.name, []))), count: len(predictions)}
        return found

    def final_scores(
        self, predictions: Sequence[Prediction], references: Sequence[Any], names: Names = None
    ) -> Scores:
        by_row = self.by_row(predictions, references)
        overall = {name: sum(values) / len(values) for name, values in by_row.items()}
        return Scores(overall, by_row)

    def by_row(
        self, predictions: Sequence[Prediction], references: Iterable[Any]
    ) -> dict[str, list[float]]:
        found = [self.values(*pair) for pair in zip(predictions, references, strict=True)]
        return {name: [values[name] for values in found] for name in (found[0] if found else {})}


def mean(
    name: str,
    total: str,
    count: str,
    enabled: Callable[[Any], bool] = always,
    title: str = "",
    digits: int = 4,
) -> Metric:
    """A figure: the sum ``total`` over the rows ``count``, rounded as upstream."""
    value = partial(rounded_mean, total=total, count=count, digits=digits)
    return Metric(name, (total, count), value, enabled, title)


def rounded_mean(counts: Mapping[str, float], total: str, count: str, digits: int) -> float:
    return round(counts[total] / max(counts[count], 1), digits)
