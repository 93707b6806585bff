"""How good a pretrained model is at each of the eight tasks, beside the constant baseline.

    caption                   CIDEr: 1.0 and more is good
    grounded_captioning       CIDEr against all phrases that fit the region; share of them
    qa, image_text_matching   share of right answers
    visual_grounding          share of boxes that overlap the true one by half
    detection                 F1 of boxes that overlap a true one by half and have its name
    image_infilling           share of right codes; of decoded images, the distance to the true
    text_infilling            share of the masked tokens that are right

A constant answer is the same for every row; the best of many training targets is taken, chosen on
the rows it is scored on, which flatters it.
"""

import difflib
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from ofa.metrics.caption_scores import SINGLE_IMAGE, caption_scores
from ofa.task.constant_baseline import commonest_and_others
from ofa.tokens.boxes import box_overlap, text_to_bins, text_to_objects

logger = logging.getLogger(__name__)

CODE = re.compile("<code_([0-9]{1,9})>")
MASK = "<mask>"
CANDIDATES, CAPTION_CANDIDATES = 200, 40  # constant answers that are tried
HALF = 0.5


@dataclass(frozen=True)
class Reply:
    """What the model predicted for a row.

    Args:
        source, target, prediction: texts; symbols stand as they are, and of text infilling tokens
            are separated by spaces.
        references: accepted texts, where there may be several. image: base64 of the image, or
            empty.
        readable: source, target and the prediction in words, where tokens are none.
        filled: the image that the codes that were said stand for.
    """

    source: str
    target: str
    prediction: str
    references: tuple[str, ...] = ()
    image: str = ""
    readable: tuple[str, str, str] | None = None
    filled: Image.Image | None = None


@dataclass(frozen=True)
class Score:
    """A figure of a task.

    Args:
        measure: its name. model, constant: from 0 up. answer: the constant one. lower_is_better: of
            errors.
        reachable: what perfect answers get, if a measure knows perfect ones only roughly.
        further: other figures of the same rows.
    """

    measure: str
    model: float
    constant: float
    answer: str
    rows: int
    lower_is_better: bool = False
    reachable: float | None = None
    further: tuple["Score", ...] = ()


# the prediction to each row, the rows -> figure
Said = Callable[[Sequence[str], Sequence[Reply]], float]


def cider(said: Sequence[str], rows: Sequence[Reply]) -> float:
    return caption_scores(said, [list(row.references) for row in rows], ["CIDEr"]).overall["CIDEr"]


def exact(said: Sequence[str], rows: Sequence[Reply]) -> float:
    return sum(text.strip() == row.target.strip() for text, row in zip(said, rows)) / len(rows)


def fitting(said: Sequence[str], rows: Sequence[Reply]) -> float:
    return sum(text.strip() in row.references for text, row in zip(said, rows)) / len(rows)


def overlapping(said: Sequence[str], rows: Sequence[Reply]) -> float:
    found = [text_to_bins(text) for text in said]
    return sum(
        len(bins) == 4 and overlap(bins, text_to_bins(row.target)) >= HALF
        for bins, row in zip(found, rows)
    ) / len(rows)


def overlap(a: Sequence[int], b: Sequence[int]) -> float:
    """Intersection over union of boxes in location bins."""
    return float(
        box_overlap(torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32))[
            0
        ]
    )


def detection_f1(said: Sequence[str], rows: Sequence[Reply]) -> float:
    right = named = true = 0
    for text, row in zip(said, rows):
        found, expected = text_to_objects(text), text_to_objects(row.target)
        named, true = named + len(found), true + len(expected)
        for box, name in found:
            fitting = [one for one in expected if one[1] == name and overlap(box, one[0]) >= HALF]
            if fitting:
                expected.remove(fitting[0])
                right += 1
    return 2 * right / max(1, named + true)


def codes_of(text: str) -> list[int]:
    return [int(code) for code in CODE.findall(text)]


def right_codes(said: Sequence[str], rows: Sequence[Reply]) -> float:
    pairs = [(codes_of(text), codes_of(row.target)) for text, row in zip(said, rows)]
    return sum(a == b for found, true in pairs for a, b in zip(found, true)) / max(
        1, sum(len(true) for _, true in pairs)
    )


def masked_places(row: Reply) -> set[int]:
    """Places of the target's tokens that the source does not show."""
    shown, true = row.source.split(), row.target.split()
    blocks = difflib.SequenceMatcher(None, shown, true, autojunk=False).get_matching_blocks()
    return set(range(len(true))) - {block.b + k for block in blocks for k in range(block.size)}


def right_masked(said: Sequence[str], rows: Sequence[Reply]) -> float:
    """Share of the masked tokens that the prediction has at their place between the others."""
    right = total = 0
    for text, row in zip(said, rows):
        masked, true = masked_places(row), row.target.split()
        blocks = difflib.SequenceMatcher(
            None, true, text.split(), autojunk=False
        ).get_matching_blocks()
        right += len(masked & {block.a + k for block in blocks for k in range(block.size)})
        total += len(masked)
    return right / max(1, total)


@dataclass(frozen=True)
class Measure:
    """How a task is scored. Args: tried: how many constant answers."""

    name: str
    score: Said
    tried: int = CANDIDATES


MEASURES = {
    "caption": (Measure("CIDEr", cider, CAPTION_CANDIDATES),),
    "qa": (Measure("accuracy", exact),),
    "visual_grounding": (Measure("accuracy@0.5", overlapping),),
    "grounded_captioning": (
        Measure("CIDEr", cider, CAPTION_CANDIDATES),
        Measure("fitting phrases", fitting),
    ),
    "image_text_matching": (Measure("accuracy", exact),),
    "detection": (Measure("F1@0.5", detection_f1),),
    "image_infilling": (Measure("right codes", right_codes),),
    "text_infilling": (Measure("masked tokens", right_masked),),
}


def score(task: str, replies: Sequence[Reply], training_targets: Sequence[str]) -> Score:
    """The figures of a task and of the constant baselines. Args: training_targets: of
    training rows."""
    if len(replies) == 1 and MEASURES[task][0].score is cider:
        logger.warning(SINGLE_IMAGE)
    first, *further = (
        score_by(measure, task, replies, training_targets) for measure in MEASURES[task]
    )
    return replace(first, further=tuple(further))


def score_by(
    measure: Measure, task: str, replies: Sequence[Reply], training_targets: Sequence[str]
) -> Score:
    """The figure by one measure."""

    def of(answer: str) -> float:
        said = [
            row.source.replace(MASK, answer) if task == "text_infilling" else answer
            for row in replies
        ]
        return measure.score(said, replies)

    if task == "text_infilling":  # the same word at every mask
        training_targets = [word for text in training_targets for word in text.split()]
    candidates = commonest_and_others(training_targets, measure.tried)
    if task == "image_infilling":
        candidates = [commonest_codes(training_targets), *candidates]
    constants = {answer: of(answer) for answer in candidates}
    best = max(constants, key=lambda answer: constants[answer]) if constants else ""
    return Score(
        measure.name,
        measure.score([row.prediction for row in replies], replies),
        constants.get(best, 0.0),
        best,
        len(replies),
    )


def commonest_codes(targets: Sequence[str]) -> str:
    """The commonest code at each place, which need not be those of one image."""
    columns = zip(*map(codes_of, targets))
    return " ".join(f"<code_{Counter(column).most_common(1)[0][0]}>" for column in columns)


# ------------------------------------------------------------------------------------------- filled
# images


def middle_of(image: Image.Image) -> Image.Image:
    """What image infilling has to fill: half the side."""
    width, height = image.size
    return image.crop((width // 4, height // 4, width // 4 + width // 2, height // 4 + height // 2))


def average_images(images: Sequence[Image.Image]) -> dict[str, Image.Image]:
    """The image of each pixel's mean, and that of its median."""
    stack = np.stack([np.asarray(one) for one in images])
    return {
        "mean image": Image.fromarray(stack.mean(0).round().astype(np.uint8)),
        "median image": Image.fromarray(np.median(stack, axis=0).round().astype(np.uint8)),
    }


def pixel_errors(found: Sequence[Image.Image], true: Sequence[Image.Image]) -> dict[str, float]:
    """Mean, and root of the mean squared, difference of pixels, in levels from 0 to 255."""
    off = np.stack(
        [
            np.asarray(a, dtype=np.float32) - np.asarray(b, dtype=np.float32)
            for a, b in zip(found, true, strict=True)
        ]
    )
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
    """How far filled middles are from the true ones: two figures, for which mean and median image
    are the best guesses.

    Args: of_true_codes: images of the true codes; a tokenizer cannot do better. constants: name
    -> an image that fills every middle.
    """
    model, perfect = pixel_errors(filled, true), pixel_errors(of_true_codes, true)
    errors = {name: pixel_errors([image] * len(true), true) for name, image in constants.items()}
    best = {measure: min(errors, key=lambda name: errors[name][measure]) for measure in model}
    return tuple(
        Score(
            measure,
            model[measure],
            errors[best[measure]][measure],
            best[measure],
            len(true),
            lower_is_better=True,
            reachable=perfect[measure],
        )
        for measure in model
    )
