"""Boxes in pixels <-> location bins, the words for places: ``<bin_x0> <bin_y0> <bin_x1> <bin_y1>``.

The image is squashed to a square of ``patch_image_size`` pixels; a coordinate there becomes

    bin = round(coordinate / max_image_size * (num_bins - 1))

so that one bin means the same place at every image size; with a patch_image_size below
max_image_size the upper bins are not used. Source: OFA paper, sec. 3.1; divisor and rounding as in
upstream (999, not 1000).

All functions take tensors, arrays or nested lists of shape [..., 4] in the order x0, y0, x1, y1 and
return tensors. ``image_size`` is (width, height) of the image in pixels.
"""

from __future__ import annotations  # of tensors: torch is imported where there are some

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ofa.errors import UserError, place
from ofa.io.values import read_decimal
from ofa.tokens.vocabulary import bin_symbol

if TYPE_CHECKING:
    import torch

NamedBox = tuple[Sequence[float], str]
LARGEST = 1e9  # pixels: of larger boxes, products are infinite in float32
OBJECT = re.compile(r"((?:<bin_\d+>\s*){4})([^<]*)")
BIN = re.compile(re.escape(bin_symbol(0)).replace("0", "([0-9]{1,9})"))


def resize_ratios(image_size: tuple[int, int], patch_image_size: int) -> tuple[float, float]:
    """Factors (x, y) from pixels of the image to pixels of the square that the model sees."""
    return patch_image_size / image_size[0], patch_image_size / image_size[1]


def boxes_to_bins(
    boxes_px,
    image_size: tuple[int, int],
    patch_image_size: int = 512,
    max_image_size: int = 512,
    num_bins: int = 1000,
) -> torch.Tensor:
    """Bins of boxes.

    Args: boxes_px: float[..., 4], xyxy, pixels of the original image.
    Returns: int64[..., 4] in [0, num_bins); what lies beyond the image is moved onto the last bin.
    Raises: ValueError if a box has x1 < x0 or y1 < y0, or a coordinate is not finite.
    """
    import torch

    boxes = torch.as_tensor(boxes_px, dtype=torch.float32)
    if not torch.isfinite(boxes).all():
        raise ValueError(f"expected finite box coordinates, found {boxes.tolist()}")
    boxes = boxes.clamp(-LARGEST, LARGEST)
    if (boxes[..., 2:] < boxes[..., :2]).any():
        raise ValueError(f"expected boxes with x0 <= x1 and y0 <= y1, found {boxes.tolist()}")
    boxes = boxes * _factors(image_size, patch_image_size)
    return squashed_to_bins(boxes, max_image_size, num_bins)


def squashed_to_bins(boxes, max_image_size: int = 512, num_bins: int = 1000) -> torch.Tensor:
    """The same of boxes that are already in pixels of the square."""
    import torch

    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    bins = (boxes / max_image_size * (num_bins - 1)).round()  # float32 and this order: as upstream
    return bins.clamp(0, num_bins - 1).long()  # in this order: the integer of a large float is any


def bins_to_boxes(
    bins,
    image_size: tuple[int, int],
    patch_image_size: int = 512,
    max_image_size: int = 512,
    num_bins: int = 1000,
    clip: bool = False,
) -> torch.Tensor:
    """Boxes of bins, float32[..., 4] in pixels of the original image; each within half a bin of
    what was encoded.

    Args: clip: move corners beyond the image onto its border (upstream does not).
    """
    import torch

    squashed = torch.as_tensor(bins, dtype=torch.float32) / (num_bins - 1) * max_image_size
    boxes = squashed / _factors(image_size, patch_image_size)
    return clip_boxes(boxes, image_size) if clip else boxes


def bins_to_text(bins) -> str:
    """``[12, 40, 300, 812]`` -> ``"<bin_12> <bin_40> <bin_300> <bin_812>"``."""
    return " ".join(bin_symbol(number) for number in np.asarray(bins).reshape(-1).tolist())


def text_to_bins(text: str) -> list[int]:
    """Numbers of all ``<bin_i>`` in a text, in order."""
    return [int(number) for number in BIN.findall(text)]


def text_to_objects(text: str) -> list[tuple[list[int], str]]:
    """``<bin_1> <bin_2> <bin_9> <bin_9> red star ...`` -> bins and names."""
    return [(text_to_bins(bins), name.strip()) for bins, name in OBJECT.findall(text)]


def parse_box(field: str, where: str = "") -> list[float]:
    """``x0,y0,x1,y1`` in pixels. Raises: UserError with ``where`` (``file:row``)."""
    try:
        x0, y0, x1, y1 = box = [read_decimal(number) for number in field.split(",")]
    except ValueError:
        raise UserError(
            f"{place(where)}expects a box 'left,top,right,bottom' in pixels, found {field[:80]!r};"
            " write four numbers with commas, and let --selected-cols name the column"
        ) from None
    if x0 < x1 and y0 < y1:
        return box
    raise UserError(
        f"{place(where)}expects a box 'left,top,right,bottom' with left < right and top < bottom,"
        f" found {field[:80]!r}: it is turned round, without area, or width and height"
    )


def check_inside(box: Sequence[float], image_size: tuple[int, int], where: str = "") -> bool:
    """Whether a box, xyxy in pixels, is in its image, give or take a pixel or a hundredth of it.

    As upstream an edge beyond the border is allowed, and quantized like any other.
    Raises: UserError with ``where`` (``file:row``) if half of the box or more lies outside.
    """
    width, height = image_size
    x0, y0, x1, y1 = box
    inside = max(0.0, min(x1, width) - max(x0, 0.0)) * max(0.0, min(y1, height) - max(y0, 0.0))
    if 2 * inside <= (x1 - x0) * (y1 - y0):
        raise UserError(
            f"{place(where)}expects a box inside the image of {width} x {height} pixels, found"
            f" {','.join(f'{number:g}' for number in box)}; are these corners in its pixels?"
        )
    slack_x, slack_y = max(1.0, 0.01 * width), max(1.0, 0.01 * height)
    return x0 >= -slack_x and y0 >= -slack_y and x1 <= width + slack_x and y1 <= height + slack_y


def clip_boxes(boxes, image_size: tuple[int, int]) -> torch.Tensor:
    """Boxes whose corners beyond the image are moved onto its border."""
    import torch

    width, height = image_size
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def box_overlap(found, expected) -> torch.Tensor:
    """Intersection over union of boxes, pair by pair: float32[...], 0 to 1; 0 where they do not
    meet or one of them is turned round."""
    import torch

    found = torch.as_tensor(found, dtype=torch.float32)
    expected = torch.as_tensor(expected, dtype=torch.float32)
    low = torch.maximum(found[..., :2], expected[..., :2])
    high = torch.minimum(found[..., 2:], expected[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (found, expected)]
    return shared / (areas[0] + areas[1] - shared + 1e-6)  # the addend is upstream's


def _factors(image_size: tuple[int, int], patch_image_size: int) -> torch.Tensor:
    import torch

    x, y = resize_ratios(image_size, patch_image_size)
    return torch.tensor([x, y, x, y], dtype=torch.float32)
