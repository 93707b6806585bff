"""How well texts are read: whole texts, and characters."""

from collections.abc import Mapping, Sequence

from rapidfuzz.distance import Levenshtein

from ofa.task.ocr_text import compared_text, plain_text, written_text
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.task_spec import Metric, Scorer, Scores, TaskMetrics

ACC, NED = "acc", "ned"


def is_right(found: str, text: str) -> bool:
    """Whether a text is read without a fault; spaces do not count."""
    return compared_text(found) == compared_text(text)


def edit_distance(found: str, text: str) -> float:
    """Characters to insert, delete or replace, as a part of the longer text's characters: 0
    (equal) to 1; spaces do not count."""
    return Levenshtein.normalized_distance(compared_text(found), compared_text(text))


def counts(found: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """What ``acc`` and ``ned`` are computed from; rows without a text count nothing."""
    pairs = [(one, text) for one, text in zip(found, texts, strict=True) if text.strip()]
    right, distance = (
        sum(is_right(*pair) for pair in pairs),
        sum(edit_distance(*pair) for pair in pairs),
    )
    return {
        "_acc_sum": right,
        "_acc_cnt": len(pairs),
        "_dist_sum": distance,
        "_dist_cnt": len(pairs),
    }


def accuracy(summed: Mapping[str, float]) -> float:
    """Part of the texts that are read without a fault."""
    return round(summed["_acc_sum"] / max(summed["_acc_cnt"], 1), 4)


def closeness(summed: Mapping[str, float]) -> float:
    """1 - mean normalized edit distance: 1 is all right."""
    return round(1 - summed["_dist_sum"] / max(summed["_dist_cnt"], 1), 4)


class ReadingMetrics(TaskMetrics):
    """``acc``: texts read without a fault; ``ned``: 1 - mean normalized edit distance."""

    figures = (
        Metric(ACC, ("_acc_sum", "_acc_cnt"), accuracy, title="validation accuracy"),
        Metric(NED, ("_dist_sum", "_dist_cnt"), closeness),
    )

    def references(self, row: BatchRow) -> list[str]:
        return [written_text(row.target.strip())]

    def make_scorer(self, options, all_references) -> Scorer:
        return count_batch

    def final_scores(
        self,
        predictions: Sequence[Prediction],
        references: Sequence[Sequence[str]],
        names: Sequence[str] | None = None,
    ) -> Scores:
        """Over all rows and of each. Args: references: the text of each row."""
        pairs = [
            (prediction.text, texts[0])
            for prediction, texts in zip(predictions, references, strict=True)
        ]
        by_row = {
            ACC: [float(is_right(*pair)) for pair in pairs],
            NED: [1 - edit_distance(*pair) for pair in pairs],
        }
        return Scores(
            {name: sum(values) / max(len(values), 1) for name, values in by_row.items()}, by_row
        )

    def constant(self, line: str) -> Prediction:
        return Prediction(plain_text(line))


def count_batch(predictions: list[Prediction], rows: list[BatchRow]) -> dict[str, float]:
    return counts([prediction.text for prediction in predictions], [row.target for row in rows])
