"""What tasks with boxes share: from pixels of a row to symbols, from symbols to a prediction, and
its entry in the result file."""

import logging
from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from ofa.errors import UserError, place
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.task_spec import Symbols, TaskOptions, decode
from ofa.tokens import boxes

if TYPE_CHECKING:
    import torch  # only where samples are made: commands start without it

logger = logging.getLogger(__name__)

# size of what stands for an image that is not decoded, when only the words of a row are wanted
UNSEEN = (1, 1)
BEST = 5  # boxes per text in the result file, where the beam is that wide
# four bins, whatever the network would rather say
boxes_only = partial(decode, bins_only=True, best=BEST)


def ratios_of(image: Image.Image, options: TaskOptions) -> dict[str, "torch.Tensor"]:
    """Model pixels per pixel of the image, as entries of a sample."""
    import torch

    x, y = boxes.resize_ratios(image.size, options.patch_image_size)
    return {"w_resize_ratio": torch.tensor(x), "h_resize_ratio": torch.tensor(y)}


def box_symbols(
    box: Sequence[float], image_size: tuple[int, int], options: Any, where: str = ""
) -> Symbols:
    """Four bins of a box in pixels. Raises: UserError with ``where`` if it is not in its image."""
    if options.patch_image_size > options.max_image_size:
        raise UserError(
            f"--patch-image-size {options.patch_image_size}: expects at most --max-image-size"
            f" ({options.max_image_size}), or the last bins would stand for many places; raise it"
        )
    if image_size == UNSEEN:
        return Symbols("")
    if not boxes.check_inside(box, image_size, where):
        warn_of_overhang(where.rpartition(":")[0])
    bins = boxes.boxes_to_bins(
        box, image_size, options.patch_image_size, options.max_image_size, options.num_bins
    )
    return Symbols(boxes.bins_to_text(bins))


@cache
def warn_of_overhang(file: str) -> None:
    """Once per file and process."""
    logger.warning("%sboxes reach beyond their images; 'ofa doctor' names the rows", place(file))


def in_pixels(bins: Any, row: BatchRow, options: Any) -> "tuple[torch.Tensor, torch.Tensor]":
    """Boxes float[..., 4] as bins say, and the same clipped to the image of the row."""
    side = options.patch_image_size
    size = round(side / (row.w_resize_ratio or 1)), round(side / (row.h_resize_ratio or 1))
    decoded = boxes.bins_to_boxes(bins, size, side, options.max_image_size, options.num_bins)
    return decoded, boxes.clip_boxes(decoded, size)


def box_prediction(hypothesis: Hypothesis, row: BatchRow, options: Any) -> Prediction:
    """The box of four bins; anything else is an empty box at the upper left corner."""
    bins = boxes.text_to_bins(hypothesis.symbols)
    if len(bins) != 4:
        return Prediction(hypothesis.text.strip(), hypothesis.score, box=(0.0, 0.0, 0.0, 0.0))
    decoded, box = map(as_box, in_pixels(bins, row, options))
    changed = None if decoded == box else decoded
    return Prediction(boxes.bins_to_text(bins), hypothesis.score, box, tuple(bins), changed)


def boxes_prediction(hypothesis: Hypothesis, row: BatchRow, options: Any) -> Prediction:
    """All complete boxes with their names, in pixels of the image."""
    found = boxes.text_to_objects(hypothesis.text)
    if not (found and row.w_resize_ratio and row.h_resize_ratio):
        return Prediction(hypothesis.text.strip(), hypothesis.score, boxes=())
    _, clipped = in_pixels([bins for bins, _ in found], row, options)
    named = tuple((as_box(box), name) for box, (_, name) in zip(clipped, found))
    return Prediction(hypothesis.text.strip(), hypothesis.score, boxes=named)


def as_box(box: "torch.Tensor") -> tuple[float, float, float, float]:
    """float[4] -> numbers, to a thousandth of a pixel."""
    x0, y0, x1, y1 = (round(number, 3) for number in box.tolist())
    return x0, y0, x1, y1


def box_result(row_id: Any, prediction: Prediction) -> dict[str, Any]:
    """The upstream ``uniq_id`` and ``box``, and what is known besides: ``decoded_box`` where
    clipping changed the box."""
    entry = {"uniq_id": row_id, **described(prediction)}
    if prediction.decoded_box is not None:
        entry["decoded_box"] = list(prediction.decoded_box)
    if prediction.others:
        entry["others"] = [described(other) for other in prediction.others]
    return entry


def described(prediction: Prediction) -> dict[str, Any]:
    """Scores to a thousandth: what lies behind depends on the number of threads."""
    return {
        "box": list(prediction.box or ()),
        "score": round(prediction.score, 3),
        "bins": prediction.bins and list(prediction.bins),
    }


def boxes_result(row_id: Any, prediction: Prediction) -> dict[str, Any]:
    found = [{"box": list(box), "name": name} for box, name in prediction.boxes or ()]
    return {"uniq_id": str(row_id), "boxes": found, "score": round(prediction.score, 3)}
