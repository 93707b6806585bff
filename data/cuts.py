"""Cuts of images that carry their boxes along, for pretraining.

Boxes are float32[N, 4], xyxy, in pixels of the image that goes in or comes out. Draws and rounding
are those of upstream (tests/parity/test_unify_samples.py).
"""

import random
from collections.abc import Sequence

import torch
from PIL import Image

JITTER = (1.0, 1.5)  # smallest and largest scale of ``jittered``


def enlarged(
    image: Image.Image, sides: Sequence[int], longest: int, rng: random.Random
) -> Image.Image:
    """The shorter side becomes one of ``sides``, the longer one follows, but not beyond
    ``longest`` pixels."""
    side, shorter = rng.choice(sides), min(image.size)
    width, height = (min(int(side * length / shorter), longest) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def scaled(
    boxes: torch.Tensor | Sequence[Sequence[float]], before: tuple[int, int], after: tuple[int, int]
) -> torch.Tensor:
    """Boxes of an image that was resized. Args: before, after: its width and height."""
    x, y = (float(new) / float(old) for new, old in zip(after, before))
    return torch.as_tensor(boxes, dtype=torch.float32) * torch.tensor([x, y, x, y])


def square_around(
    image: Image.Image, box: torch.Tensor, size: int
) -> tuple[Image.Image, torch.Tensor]:
    """A square of ``size`` pixels with the middle of ``box``, float32[4], in its middle, as far as
    the image allows. Returns: the square, the box in it (what lies outside is cut off)."""
    start = (box[:2].double() + box[2:].double()) / 2 - size / 2
    room = torch.tensor(image.size) - start - size  # negative where the square would stand out
    left, top = (start + room.clamp(max=0)).clamp(min=0).tolist()
    square = image.crop((round(left), round(top), round(left + size), round(top + size)))
    return square, cut(box, left, top, size)


def cut(boxes: torch.Tensor, left: float, top: float, size: int) -> torch.Tensor:
    """Boxes in a square of the image, clipped to it."""
    return (boxes - torch.tensor([left, top, left, top])).clamp(0, size)


def flipped(image: Image.Image, boxes: torch.Tensor) -> tuple[Image.Image, torch.Tensor]:
    """The mirror image, left and right changed."""
    mirrored = boxes.clone()
    mirrored[:, [0, 2]] = image.width - boxes[:, [2, 0]]
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirrored


def jittered(
    image: Image.Image, boxes: torch.Tensor, size: int, generator: torch.Generator
) -> tuple[Image.Image, torch.Tensor]:
    """A square of ``size`` pixels from anywhere in the image, resized to 1 to 1.5 squares before.

    Returns: the square, the boxes clipped to it (nothing may be left of some: see ``visible``).
    Source: large scale jitter, Ghiasi et al., Simple Copy-Paste, CVPR 2021.
    """
    whole = torch.tensor([image.height, image.width])
    low, high = JITTER
    random_scale = torch.rand(1, generator=generator) * (high - low) + low
    target = (random_scale * size).round()
    scale = torch.maximum(target / whole[0], target / whole[1])
    height, width = (whole * scale).round().int().tolist()
    before, image = image.size, image.resize((width, height), Image.Resampling.BICUBIC)
    boxes = scaled(boxes, before, image.size)
    room = torch.tensor([height - size, width - size])
    top, left = (room * torch.rand(2, generator=generator)).floor().int().tolist()
    return image.crop((left, top, left + size, top + size)), cut(boxes, left, top, size)


def visible(boxes: torch.Tensor) -> list[int]:
    """Numbers of the boxes that have an area."""
    return ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).nonzero()[:, 0].tolist()
