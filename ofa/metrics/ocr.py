"""How well texts are read: whole texts, and characters."""

from collections.abc import Mapping, Sequence

from rapidfuzz.distance import Levenshtein

from ofa.metrics.row_means import RowMeans, mean
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.scoring import Metric
from ofa.task.text import compared_text, plain_text, written_text


def edit_distance(found: str, text: str) -> float:
    """Characters to insert, delete or replace, as a part of the longer text's characters: 0
    (equal) to 1; spaces do not count."""
    return Levenshtein.normalized_distance(compared_text(found), compared_text(text))


def closeness(counts: Mapping[str, float]) -> float:
    return round(1 - counts["_dist_sum"] / max(counts["_dist_cnt"], 1), 4)


class ReadingMetrics(RowMeans):
    """``acc``, the part of the texts that are read without a fault, and ``ned``, 1 - the normalized
    edit distance: 1 is all right."""

    means = (
        mean("acc", "_acc_sum", "_acc_cnt", title="validation accuracy"),
        Metric("ned", ("_dist_sum", "_dist_cnt"), closeness),
    )

    def references(self, row: BatchRow) -> list[str]:
        return [written_text(row.target.strip())]

    def values(self, prediction: Prediction, reference: Sequence[str]) -> dict[str, float]:
        distance = edit_distance(prediction.text, reference[0])
        return {"acc": float(distance == 0), "ned": 1 - distance}

    def counts(
        self, predictions: Sequence[Prediction], rows: Sequence[BatchRow]
    ) -> dict[str, float]:
        """As upstream distances are added."""
        found = super().counts(predictions, rows)
        return {**found, "_dist_sum": found["_dist_cnt"] - found["_dist_sum"]}

    def constant(self, line: str) -> Prediction:
        return Prediction(plain_text(line))
