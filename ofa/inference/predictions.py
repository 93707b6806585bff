"""What a model predicts for an image, in the form that callers of the Python API get."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ofa.task.prediction import Prediction

Box = tuple[float, float, float, float]


class Scored:
    """What an answer and a region have in common."""

    score: float
    others: Sequence[Any]

    @property
    def probability(self) -> float:
        return math.exp(self.score)

    def _scores(self) -> dict[str, Any]:
        """Score and others as plain data; JSON has no NaN."""
        score = round(self.score, 6) if math.isfinite(self.score) else None
        others = {"others": [other.as_json() for other in self.others]} if self.others else {}
        return {"score": score, **others}


class Answer(Scored, str):
    """A text that knows how sure the model was: ``print(answer)``, ``answer == "a cat"``,
    ``answer.score``.

    Attributes:
        score: mean log-probability of its tokens; of an answer chosen from a set its
            log-probability among them.
        probability: ``exp(score)``.
        region: the region it names, if it is one (four location bins), else None.
        objects: the regions that it names with what each shows, of tasks that predict several.
        others: further answers, best first.
    """

    region: "Region | None"
    objects: list[tuple["Region", str]]

    def __new__(
        cls,
        text: str,
        score: float = math.nan,
        region: "Region | None" = None,
        others: Sequence["Answer"] = (),
        objects: Sequence[tuple["Region", str]] = (),
    ):
        answer = super().__new__(cls, text)
        answer.score, answer.region = score, region
        answer.others, answer.objects = list(others), list(objects)
        return answer

    def __getnewargs__(self):
        return str(self), self.score, self.region, self.others, self.objects

    def as_json(self) -> dict[str, Any]:
        """Plain data: ``{"answer": "a cat", "score": -0.31}``."""
        scores = self._scores()
        found: dict[str, Any] = {"answer": str(self), "score": scores.pop("score")}
        if self.region is not None:
            found["box"] = self.region.as_json()["box"]
        if self.objects:
            boxes = [{"box": one.as_json()["box"], "label": name} for one, name in self.objects]
            found["boxes"] = boxes
        return found | scores


@dataclass
class Region(Scored):
    """A box in an image.

    Attributes:
        box: left, top, right, bottom in pixels of the image, inside of it.
        normalised: the same as parts of width and height, 0 to 1.
        bins: the four location bins; None if the model predicted something else, and the box is
            empty.
        score: mean log-probability of the bins; ``probability``: its exponential.
        others: further regions, best first.
    """

    box: Box
    normalised: Box
    bins: tuple[int, ...] | None
    score: float = math.nan
    others: list["Region"] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain data: ``{"box": {"pixels": [...], "normalised": [...], "bins": [...]}, "score":
        -0.31}``."""
        pixels, parts, bins = list(self.box), list(self.normalised), self.bins and list(self.bins)
        return {"box": {"pixels": pixels, "normalised": parts, "bins": bins}, **self._scores()}


def region_of(prediction: Prediction, size: tuple[int, int]) -> Region:
    """Args: prediction: with a box. size: width and height of the image, pixels."""
    assert prediction.box is not None
    x0, y0, x1, y1 = (round(corner / side, 6) for corner, side in zip(prediction.box, size * 2))
    others = [region_of(one, size) for one in prediction.others]
    return Region(prediction.box, (x0, y0, x1, y1), prediction.bins, prediction.score, others)


def answer_of(prediction: Prediction, size: tuple[int, int] | None) -> Answer:
    """Args: size: width and height of the image, pixels; None: there is none."""
    region, objects = None, []
    if size is not None:
        region = region_of(prediction, size) if prediction.box else None
        for (x0, y0, x1, y1), name in prediction.boxes or ():
            objects.append((region_of(Prediction("", box=(x0, y0, x1, y1)), size), name))
    others = [answer_of(one, size) for one in prediction.others]
    return Answer(prediction.text, prediction.score, region, others, objects)
