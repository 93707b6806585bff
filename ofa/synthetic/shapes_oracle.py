"""What can be seen in an image of synthetic shapes, found without any training.

    >>> from ofa.synthetic.shapes import make_scene, render
    >>> image = render(make_scene(seed=1, split="train", index=0))
    >>> [seen.look for seen in look_at([image])[0]]
    [('brown', 'arrow'), ('orange', 'square')]

A template of each shape, in several widths, colors and at every place, adds up how much better it
explains the pixels under it than bare background would; the best one is taken, then the best of
those that do not overlap it, and so on. C colors, K templates, S side of the image.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ofa.synthetic import shapes as world
from ofa.synthetic.shapes import COLORS, SHAPES, SIZES, Box, Shape
from ofa.synthetic.shapes_language import plural_of
from ofa.synthetic.shapes_phrases import NUMBERS

Look = tuple[str, str]  # color and shape

# parts of the side
WIDTHS_OF = {"small": (0.235, 0.265, 0.295), "large": (0.37, 0.40, 0.43)}
TEMPLATES = [(one, size, width) for one in SHAPES for size in SIZES for width in WIDTHS_OF[size]]
WIDTHS = torch.tensor([width for *_, width in TEMPLATES])
FILLS = torch.tensor([*COLORS.values()], dtype=torch.float32)
PAPERS = torch.tensor([*world.BACKDROPS.values()], dtype=torch.float32)
NOISE = 28.0  # standard deviation of a color channel: shades of one name, what a coder blurs
WORST = 4.0  # how badly a pixel may speak against a shape: a few wrong ones must not outvote it
CERTAIN = 0.2  # part of the highest possible evidence that a shape needs
OVERLAP = 0.2  # part of the smaller box that may be shared with a shape that is already seen
FEWEST = 8  # pixels of a color below which it is not looked for
MOST = 6  # shapes that are looked for in an image


def look_at(images: Sequence[Image.Image], size: int = 64) -> list[list[Shape]]:
    """The shapes of every image, from left to right, with boxes of a template's width. Args: size:
    side to which other images are reduced or enlarged."""
    return [_look(image.convert("RGB"), size) for image in images]


def _look(image: Image.Image, size: int) -> list[Shape]:
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    evidence = _evidence(torch.from_numpy(np.asarray(image).astype(np.float32)))
    seen: list[Shape] = []
    while len(seen) < MOST and evidence.max() > 0:
        where = np.unravel_index(int(evidence.argmax()), evidence.shape)
        color, (template, y, x) = list(COLORS)[where[0]], map(int, where[1:])
        shape, kind, width = TEMPLATES[template]
        box = (x / size, y / size, x / size + width, y / size + width)
        seen.append(Shape(shape, color, kind, box, COLORS[color]))
        evidence.masked_fill_(_overlapping(box, size), 0.0)
    return sorted(seen, key=lambda one: one.box[0] + one.box[2])


def _overlapping(box: Box, size: int) -> Tensor:
    """bool[K, S, S]: the places of each template where it shares too much with the box."""
    corner, widths = torch.arange(size) / size, WIDTHS[:, None]
    x, y = (
        ((corner + widths).clamp(max=high) - corner.clamp(min=low)).clamp(min=0.0)
        for low, high in (box[::2], box[1::2])
    )  # (K, S) each
    smaller = torch.minimum(widths, torch.tensor(box[2] - box[0])) ** 2
    return y[:, :, None] * x[:, None, :] > OVERLAP * smaller[:, :, None]


def _evidence(pixels: Tensor) -> Tensor:
    """Log-likelihood ratios float[C, K, S, S] of templates, by their upper left corners, over bare
    background; 0 where they are too low to count."""
    size, masks = len(pixels), _templates(len(pixels))
    background = _likelihood(pixels, torch.cat([PAPERS, PAPERS - world.SHADE])).amax(dim=0)
    fills = _likelihood(pixels, FILLS) - background  # (C, S, S)
    ink = _likelihood(pixels, torch.tensor([world.INK], dtype=torch.float32)) - background
    corner, free = torch.arange(size), size - (WIDTHS * size)[:, None, None]
    inside = (corner[:, None] <= free) & (corner <= free)
    least = CERTAIN * WORST * masks.sum(dim=(1, 2, 3))[:, None, None]
    evidence = torch.zeros(len(fills), *inside.shape)
    room = masks.shape[-1] - 1
    for color, fill in enumerate(fills):
        if (fill > 0).sum() >= FEWEST:  # of most colors there is nothing
            planes = torch.nn.functional.pad(torch.stack([fill, ink[0]]), (0, room, 0, room))
            found = torch.nn.functional.conv2d(planes[None], masks)[0]
            evidence[color] = found.masked_fill(~inside | (found < least), 0.0)
    return evidence


def _likelihood(pixels: Tensor, colors: Tensor) -> Tensor:
    """float[N, S, S]: log-likelihood of each pixel for each of N colors, not below -WORST."""
    distance = ((pixels[None] - colors[:, None, None]) ** 2).sum(dim=-1)
    return (-distance / (2 * NOISE**2)).clamp(min=-WORST)


@functools.cache
def _templates(size: int) -> Tensor:
    """float[K, 2, W, W], W the largest width: parts of each pixel that are fill, and outline."""
    fine, largest, masks = world.OVERSAMPLING, math.ceil(float(WIDTHS.max()) * size), []
    for shape, kind, width in TEMPLATES:
        tile, box = Image.new("RGBA", (fine * largest,) * 2), (0.0, 0.0, width * size, width * size)
        thing = Shape(shape, "white", kind, box, (255, 255, 255))
        world.draw_oversampled(tile, thing, box, world.OUTLINE * size)
        pixels = torch.from_numpy(np.asarray(tile, dtype=np.float32) / 255)
        shown = pixels.view(largest, fine, largest, fine, 4).mean(dim=(1, 3))
        masks.append(torch.stack([shown[..., 0], shown[..., 3] - shown[..., 0]]))
    return torch.stack(masks)


_SINGULAR = {plural_of(shape): shape for shape in SHAPES}
_THING = re.compile(
    rf"\b(?:({'|'.join(NUMBERS[1:])}|an?)\s+)?(?:(?:{'|'.join([*SIZES, 'big', 'little'])})\s+)?"
    rf"({'|'.join(COLORS)})\s+({'|'.join([*_SINGULAR, *SHAPES])})\b"
)


def things_named(text: str) -> list[Look]:
    """Color and shape of all things that a caption counts up.

    >>> things_named("two small red crosses and a ring on mint dots, a blue star")
    [('red', 'cross'), ('red', 'cross'), ('blue', 'star')]
    """
    found = []
    for number, color, shape in _THING.findall(text.lower()):
        count = NUMBERS.index(number) if number in NUMBERS else 1
        found += [(color, _SINGULAR.get(shape, shape))] * count
    return found


@dataclass(frozen=True)
class Check:
    """How an image fits its text. Args: named: things that the text names. seen: those that the
    image shows. right: how many are both, in color and shape."""

    named: int
    seen: int
    right: int

    @property
    def exact(self) -> bool:
        """All things are there, and nothing else."""
        return self.named == self.seen == self.right

    @property
    def score(self) -> float:
        """The part of what is named or seen that is both; 0 if nothing is named."""
        return self.right / (self.named + self.seen - self.right) if self.named else 0.0


def check(images: Sequence[Image.Image], texts: Sequence[str]) -> list[Check]:
    """Whether each image shows the things that its text names."""
    checks = []
    for shapes, text in zip(look_at(images), texts, strict=True):
        named, seen = Counter(things_named(text)), Counter(one.look for one in shapes)
        checks.append(Check(named.total(), seen.total(), (named & seen).total()))
    return checks


class SyntheticShapesScorer:
    """How well images of synthetic shapes fit texts, in the way of other scorers."""

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> np.ndarray:
        """float64[N] in [0, 1], higher = fits better; 0 for a text that names nothing."""
        return np.asarray([one.score for one in check(images, texts)], dtype=np.float64)
