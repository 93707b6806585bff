"""How good a pretrained model is at each of the eight tasks (``docs/asking.md``), beside the
constant baseline: the answer, the same for every row, that is best of many training targets on the
rows it is scored on, which flatters it.
"""

import difflib
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image

from ofa.metrics.caption_scores import SINGLE_IMAGE, caption_scores
from ofa.metrics.detection import HIT, matches
from ofa.task.scoring import commonest_and_others
from ofa.tokens.boxes import box_overlap, text_to_bins, text_to_objects

logger = logging.getLogger(__name__)

CODE = re.compile("<code_([0-9]{1,9})>")
MASK = "<mask>"
CANDIDATES, CAPTION_CANDIDATES = 200, 40  # constant answers that are tried


@dataclass(frozen=True)
class PredictedRow:
    """What the model predicted for a row: texts, in which symbols stand as they are; of text
    infilling tokens separated by spaces."""

    source: str
    target: str
    prediction: str
    references: tuple[str, ...] = ()  # accepted texts, where there may be several
    image: str = ""  # base64, or empty
    readable: tuple[str, str, str] | None = None  # the three texts in words, where tokens are none
    filled: Image.Image | None = None  # what the predicted codes stand for


@dataclass(frozen=True)
class Score:
    """A figure of a task, from 0 up."""

    measure: str
    model: float
    constant: float  # of the constant baseline, which is ``answer``
    answer: str
    rows: int
    lower_is_better: bool = False
    reachable: float | None = None  # what perfect answers get, where a measure knows them roughly
    further: tuple["Score", ...] = ()  # other figures of the same rows


Measure = Callable[[Sequence[str], Sequence[PredictedRow]], float]  # predictions, rows -> figure
Counts = Callable[[str, PredictedRow], tuple[float, float]]  # -> what is right, of how many


def cider(found: Sequence[str], rows: Sequence[PredictedRow]) -> float:
    return caption_scores(found, [list(row.references) for row in rows], ["CIDEr"]).overall["CIDEr"]


def share(counts: Counts, found: Sequence[str], rows: Sequence[PredictedRow]) -> float:
    """What is right among all that is counted."""
    right, every = zip(*map(counts, found, rows))
    return sum(right) / max(1, sum(every))


def fitting(text: str, row: PredictedRow) -> tuple[float, float]:
    return text.strip() in row.references, 1


def overlapping(text: str, row: PredictedRow) -> tuple[float, float]:
    bins = text_to_bins(text)
    return len(bins) == 4 and float(box_overlap(bins, text_to_bins(row.target))) >= HIT, 1


def objects(text: str, row: PredictedRow) -> tuple[float, float]:
    """Counts of F1."""
    named, true = text_to_objects(text), text_to_objects(row.target)
    return 2 * matches(named, true), len(named) + len(true)


def codes_of(text: str) -> list[int]:
    return [int(code) for code in CODE.findall(text)]


def codes(text: str, row: PredictedRow) -> tuple[float, float]:
    true = codes_of(row.target)
    return sum(a == b for a, b in zip(codes_of(text), true)), len(true)


def masked_places(row: PredictedRow) -> set[int]:
    """Places of the target's tokens that the source does not show."""
    shown, true = row.source.split(), row.target.split()
    blocks = difflib.SequenceMatcher(None, shown, true, autojunk=False).get_matching_blocks()
    return set(range(len(true))) - {block.b + k for block in blocks for k in range(block.size)}


def masked(text: str, row: PredictedRow) -> tuple[float, float]:
    """Masked tokens that the prediction has at their place between the others."""
    places, true = masked_places(row), row.target.split()
    blocks = difflib.SequenceMatcher(None, true, text.split(), autojunk=False).get_matching_blocks()
    found = {block.a + k for block in blocks for k in range(block.size)}
    return len(places & found), len(places)


right_codes = partial(share, codes)
MEASURES: dict[str, dict[str, Measure]] = {
    "caption": {"CIDEr": cider},
    "qa": {"accuracy": partial(share, fitting)},
    "visual_grounding": {"accuracy@0.5": partial(share, overlapping)},
    "grounded_captioning": {"CIDEr": cider, "fitting phrases": partial(share, fitting)},
    "image_text_matching": {"accuracy": partial(share, fitting)},
    "detection": {"F1@0.5": partial(share, objects)},
    "image_infilling": {"right codes": right_codes},
    "text_infilling": {"masked tokens": partial(share, masked)},
}


def score(task: str, predictions: Sequence[PredictedRow], training_targets: Sequence[str]) -> Score:
    """The figures of a task and of the constant baselines. Args: training_targets: of
    training rows."""
    if len(predictions) == 1 and "CIDEr" in MEASURES[task]:
        logger.warning(SINGLE_IMAGE)
    said, forms = [row.prediction for row in predictions], [MASK] * len(predictions)
    if task == "text_infilling":  # the same word at every mask
        forms = [row.source for row in predictions]
        training_targets = [word for text in training_targets for word in text.split()]
    scores = []
    for name, measure in MEASURES[task].items():
        tried = CAPTION_CANDIDATES if name == "CIDEr" else CANDIDATES
        candidates = commonest_and_others(training_targets, tried)
        if task == "image_infilling":
            candidates.insert(0, commonest_codes(training_targets))
        constants = {
            answer: measure([form.replace(MASK, answer) for form in forms], predictions)
            for answer in candidates
        }
        best = max(constants, key=constants.__getitem__, default="")
        found = measure(said, predictions), constants.get(best, 0.0)
        scores.append(Score(name, *found, best, len(predictions)))
    return replace(scores[0], further=tuple(scores[1:]))


def commonest_codes(targets: Sequence[str]) -> str:
    """The commonest code at each place, which need not be those of one image."""
    columns = zip(*map(codes_of, targets))
    return " ".join(f"<code_{Counter(column).most_common(1)[0][0]}>" for column in columns)


# --- filled images


def middle_of(image: Image.Image) -> Image.Image:
    """What image infilling has to fill: half the side."""
    width, height = image.size
    return image.crop((width // 4, height // 4, width // 4 + width // 2, height // 4 + height // 2))


def average_images(images: Sequence[Image.Image]) -> dict[str, Image.Image]:
    """The image of each pixel's mean, and that of its median."""
    stack = np.stack([np.asarray(one) for one in images])
    averages = {"mean image": stack.mean(0).round(), "median image": np.median(stack, axis=0)}
    return {name: Image.fromarray(one.astype(np.uint8)) for name, one in averages.items()}


def pixel_errors(found: Sequence[Image.Image], true: Sequence[Image.Image]) -> dict[str, float]:
    """Mean, and root of the mean squared, difference of pixels, in levels from 0 to 255."""
    a, b = (np.stack([np.asarray(one, np.float32) for one in images]) for images in (found, true))
    off = a - b
    return {
        "mean pixel error": float(np.abs(off).mean()),
        "RMS pixel error": float(np.sqrt((off**2).mean())),
    }


def score_pixels(
    filled: Sequence[Image.Image],
    true: Sequence[Image.Image],
    of_true_codes: Sequence[Image.Image],
    constants: Mapping[str, Image.Image],
) -> tuple[Score, ...]:
    """How far filled middles are from the true ones. Args: of_true_codes: images of the true
    codes; a tokenizer cannot do better. constants: name -> an image that fills every middle."""
    model, perfect = pixel_errors(filled, true), pixel_errors(of_true_codes, true)
    errors = {name: pixel_errors([image] * len(true), true) for name, image in constants.items()}
    scores = []
    for measure, error in model.items():
        constant, best = min((found[measure], name) for name, found in errors.items())
        scores.append(Score(measure, error, constant, best, len(true), True, perfect[measure]))
    return tuple(scores)
