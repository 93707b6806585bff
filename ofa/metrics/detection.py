"""How well boxes are found: one box per row, or all objects of an image by their names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ofa.metrics.accuracy import f1
from ofa.task.prediction import BatchRow, Prediction, parse_objects
from ofa.task.scoring import Metric, TaskMetrics, mean
from ofa.tokens.boxes import NamedBox, box_overlap, parse_box

HIT = 0.5  # overlap from which a box counts as found


class BoxAccuracy(TaskMetrics):
    """Accuracy at an overlap of 0.5, and the mean overlap. Args: enabled: as of ``Metric``."""

    ranked_by = "IoU"

    def __init__(self, enabled: Callable[[Any], bool] | None = None):
        self.enabled = enabled

    @property
    def figures(self) -> tuple[Metric, ...]:
        score = mean(
            "score",
            "_score_sum",
            "_score_cnt",
            enabled=self.enabled,
            title="validation accuracy of boxes",
            words="share of boxes that overlap the true by half",
        )
        return (score,)

    @property
    def reported(self) -> tuple[Metric, ...]:
        words = "mean overlap with the true box: intersection over union"
        return *self.figures, mean("IoU", "_iou_sum", "_score_cnt", words=words)

    def references(self, row: BatchRow) -> list[str]:
        """The expected box in words; none if the row has no box, for which zeros stand."""
        box = self.reference(row)
        return [",".join(f"{number:g}" for number in box)] if any(box) else []

    def reference(self, row: BatchRow) -> Sequence[float]:
        return row.region_coord or ()

    def row_counts(self, prediction: Prediction, reference: Sequence[float]) -> dict[str, float]:
        """As upstream the box is taken as decoded, before it is clipped: with a patch_image_size
        below max_image_size the last bins lie outside of the image."""
        overlap = float(box_overlap(prediction.decoded_box or prediction.box, reference))
        return {"_score_sum": overlap >= HIT, "_score_cnt": 1, "_iou_sum": overlap}

    def reward(self, predictions: Sequence[Prediction], rows: Sequence[BatchRow]) -> list[float]:
        """What sampled boxes earn: their overlap with the true one, 0 to 1."""
        references = map(self.reference, rows)
        return [self.row_counts(*pair)["_iou_sum"] for pair in zip(predictions, references)]

    def constants(self, references: Sequence[Sequence[float]]) -> list[str]:
        return [",".join(f"{number:g}" for number in box) for box in references]

    def constant(self, line: str) -> Prediction:
        """``x0,y0,x1,y1`` in pixels as the answer to every text."""
        x0, y0, x1, y1 = parse_box(line)
        return Prediction(line, box=(x0, y0, x1, y1))

    def best_line(self, lines: Sequence[str], references: Sequence[Sequence[float]]) -> str:
        """Compares each box with the boxes of all rows at once."""
        true = np.array(references, dtype=np.float32)  # (N, 4), as ``box_overlap`` computes
        return max(lines, key=lambda line: int((box_overlap(parse_box(line), true) >= HIT).sum()))


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


COUNTS = ("_box_right", "_box_found", "_box_true")


def f1_of_boxes(counts: Mapping[str, float]) -> float:
    return f1(*(counts[name] for name in COUNTS))


class DetectionMetrics(TaskMetrics):
    """F1 of the boxes of all rows together."""

    is_slow = True
    words = "F1 of boxes that overlap a true one of their name by half"
    figures = (Metric("score", COUNTS, f1_of_boxes, title="validation F1 of boxes", words=words),)

    def references(self, row: BatchRow) -> list[str]:
        return [row.target_str or ""]

    def reference(self, row: BatchRow) -> list[NamedBox]:
        return parse_objects(row.target_str or "")

    def row_counts(self, prediction: Prediction, reference: Sequence[NamedBox]) -> dict[str, float]:
        found = prediction.boxes or ()
        counts = matches(found, reference), len(found), len(reference)
        return dict(zip(COUNTS, counts))

    def constant(self, line: str) -> Prediction:
        """``x0,y0,x1,y1,category id,category&&...`` as the answer to every row."""
        return Prediction(line, boxes=tuple(parse_objects(line)))
