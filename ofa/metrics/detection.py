"""How well all objects of an image are found: F1 of boxes with names."""

from collections.abc import Mapping, Sequence

from ofa.task.prediction import parse_objects
from ofa.task.task_spec import (
    BatchRow,
    Metric,
    Prediction,
    Scorer,
    Scores,
    TaskMetrics,
    TaskOptions,
)
from ofa.tokens.boxes import NamedBox, box_overlap

HIT = 0.5  # overlap from which a box of the same name counts as found


def matches(found: Sequence[NamedBox], expected: Sequence[NamedBox]) -> int:
    """Found boxes that overlap an expected one of the same name by half; each counts once."""
    missing, right = list(expected), 0
    for box, name in found:
        overlaps = {
            place: float(box_overlap(box, other))
            for place, (other, other_name) in enumerate(missing)
            if other_name == name
        }
        best = max(overlaps, key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= HIT:
            del missing[best]
            right += 1
    return right


def f1(counts: Mapping[str, float]) -> float:
    """Harmonic mean of precision and recall; 0 if nothing is found and nothing expected."""
    return 2 * counts["_box_right"] / max(counts["_box_found"] + counts["_box_true"], 1)


def counts_of(found: Sequence[NamedBox], expected: Sequence[NamedBox]) -> dict[str, float]:
    right = matches(found, expected)
    return {"_box_right": right, "_box_found": len(found), "_box_true": len(expected)}


class DetectionMetrics(TaskMetrics):
    """F1 of the boxes of all rows together."""

    figures = (
        Metric(
            "score", ("_box_right", "_box_found", "_box_true"), f1, title="validation F1 of boxes"
        ),
    )

    def references(self, row: BatchRow) -> list[str]:
        return [row.target_str or ""]

    def make_scorer(self, options: TaskOptions, all_references) -> Scorer:
        return self.counts

    def counts(
        self, predictions: Sequence[Prediction], rows: Sequence[BatchRow]
    ) -> dict[str, float]:
        """Right, found and expected boxes of a batch."""
        total = counts_of((), ())
        for prediction, row in zip(predictions, rows, strict=True):
            found = counts_of(prediction.boxes or (), parse_objects(row.target_str or ""))
            total = {name: total[name] + found[name] for name in total}
        return total

    def final_scores(
        self,
        predictions: Sequence[Prediction],
        references: Sequence[Sequence[NamedBox]],
        names: Sequence[str] | None = None,
    ) -> Scores:
        """F1 over the boxes of all rows, and of each row."""
        rows = [
            counts_of(prediction.boxes or (), expected)
            for prediction, expected in zip(predictions, references, strict=True)
        ]
        total = {name: sum(row[name] for row in rows) for name in counts_of((), ())}
        return Scores({"score": f1(total)}, {"score": [f1(row) for row in rows]})

    def constant(self, line: str) -> Prediction:
        """``x0,y0,x1,y1,category id,category&&...`` as the answer to every row."""
        return Prediction(line, boxes=tuple(parse_objects(line)))
