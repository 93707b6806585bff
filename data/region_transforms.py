"""Random cuts of images that carry their boxes along: zoom, a square round an object, flip and
jitter.

Boxes are float32[N, 4], xyxy, in pixels of the image that goes in or comes out. What is random is
decided by the generator that is passed in; draws and rounding are those of upstream
(tests/parity/test_unify_samples.py).
"""

import random
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

BICUBIC = Image.Resampling.BICUBIC
JITTER = (1.0, 1.5)  # smallest and largest scale of ``jittered``


def enlarged(
    image: Image.Image, sides: Sequence[int], longest: int, rng: random.Random
) -> Image.Image:
    """The shorter side becomes one of ``sides``, the longer one follows, but not beyond
    ``longest`` pixels."""
    side = rng.choice(sides)
    width, height = image.size
    if min(width, height) == side:
        size = min(width, longest), min(height, longest)
    elif width < height:
        size = side, min(int(side * height / width), longest)
    else:
        size = min(int(side * width / height), longest), side
    return image.resize(size, BICUBIC)


def scaled(boxes: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Boxes of an image that was resized. Args: before, after: its width and height."""
    x, y = (float(new) / float(old) for new, old in zip(after, before))
    return boxes * torch.tensor([x, y, x, y])


def square_around(image: Image.Image, box: Tensor, size: int) -> tuple[Image.Image, Tensor]:
    """A square of ``size`` pixels with the middle of ``box`` in its middle, as far as the image
    allows.

    Args: box: float32[4]. Returns: the square, the box in it (what lies outside is cut off).
    """
    x0, y0, x1, y1 = map(float, box)
    left, top = (
        first_pixel((low + high) / 2, size, whole)
        for low, high, whole in ((x0, x1, image.width), (y0, y1, image.height))
    )
    square = image.crop((round(left), round(top), round(left + size), round(top + size)))
    return square, cut(box[None], left, top, size, size)[0]


def first_pixel(middle: float, size: int, whole: int) -> float:
    """Where a cut of ``size`` pixels begins so that ``middle`` is in its middle and it ends
    inside."""
    return max(middle - size / 2 + min(whole - middle - size / 2, 0), 0)


def cut(boxes: Tensor, left: float, top: float, width: int, height: int) -> Tensor:
    """Boxes in a cut of the image, clipped to it."""
    moved = (boxes - torch.tensor([left, top, left, top])).view(-1, 2, 2)
    return (
        torch.minimum(moved, torch.tensor([width, height], dtype=torch.float32))
        .clamp(min=0)
        .view(-1, 4)
    )


def flipped(image: Image.Image, boxes: Tensor) -> tuple[Image.Image, Tensor]:
    """The mirror image, left and right changed."""
    width = image.width
    mirrored = boxes[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1]) + torch.tensor(
        [width, 0.0, width, 0]
    )
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirrored


def jittered(
    image: Image.Image, boxes: Tensor, size: int, generator: torch.Generator
) -> tuple[Image.Image, Tensor]:
    """A square of ``size`` pixels from anywhere in the image, whose shorter side is 1 to 1.5
    squares.

    Returns: the square, the boxes clipped to it (nothing may be left of some: see ``visible``).
    Source: large scale jitter, Ghiasi et al., Simple Copy-Paste, CVPR 2021.
    """
    whole = torch.tensor([image.height, image.width])
    low, high = JITTER
    random_scale = torch.rand(1, generator=generator) * (high - low) + low
    target = (random_scale * size).round()
    scale = torch.maximum(target / whole[0], target / whole[1])
    height, width = (whole * scale).round().int().tolist()
    before, image = image.size, image.resize((width, height), BICUBIC)
    boxes = scaled(boxes, before, image.size)
    room = torch.tensor([height - size, width - size])
    top, left = (room * torch.rand(2, generator=generator)).floor().int().tolist()
    return image.crop((left, top, left + size, top + size)), cut(boxes, left, top, size, size)


def visible(boxes: Tensor) -> list[int]:
    """Numbers of the boxes that have an area."""
    return ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).nonzero()[:, 0].tolist()
