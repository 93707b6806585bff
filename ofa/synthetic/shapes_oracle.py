"""What can be seen in an image of synthetic shapes: colored, outlined shapes, found without any
training.

    >>> from ofa.synthetic.shapes import make_scene, render
    >>> # a large brown arrow and a small orange square
    >>> image = render(make_scene(seed=1, split="train", index=0))
    >>> [seen.look for seen in look_at([image])[0]]
    [('brown', 'arrow'), ('orange', 'square')]

Every pixel is compared with the twelve colors, the black of outlines and the backdrops. A template
of each shape, in several widths and at every place, adds up how much better it explains the pixels
under it than bare background would; the best one is taken, then the best of those that do not
overlap it, and so on. ``SyntheticShapesScorer`` compares that with the things that a text names, as
other scorers compare images and texts.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from ofa.synthetic.shapes import (
    BACKDROPS,
    COLORS,
    INK,
    NUMBERS,
    OUTLINE,
    OVERSAMPLING,
    PLURALS,
    SHAPES,
    SIZES,
    Shape,
    draw_thing,
)

Look = tuple[str, str]  # color and shape

# of templates, parts of the side: those of the two ``SIZES``
WIDTHS = (0.235, 0.265, 0.295, 0.37, 0.40, 0.43)
DARKER = 12  # by which the dark half of a texture differs from its backdrop
# standard deviation of a color channel: the shades of one name, and what a coder blurs
NOISE = 28.0
# how badly one pixel may speak against an explanation: a few wrong pixels must not outvote a shape
WORST = 4.0
# part of the highest possible evidence that a shape needs to be seen; what a tokenizer blurs has
# less
CERTAIN = 0.2
OVERLAP = 0.2  # part of the smaller box that may be shared with a shape that is already seen
FEWEST = 8  # pixels of a color below which it is not looked for
MOST = 6  # shapes that are looked for in an image


@dataclass(frozen=True)
class DetectedShape:
    """A shape in an image. Args: box: xyxy, parts of the side. certainty: evidence as a part of
    the highest possible."""

    color: str
    shape: str
    box: tuple[float, float, float, float]
    certainty: float

    @property
    def look(self) -> Look:
        return self.color, self.shape


# ------------------------------------------------------------------------------------------------
# looking


@torch.no_grad()
def look_at(images: Sequence[Image.Image], size: int = 64) -> list[list[DetectedShape]]:
    """The shapes of every image, from left to right. Args: size: side to which other images
    are reduced or enlarged."""
    return [_look(_pixels(image, size)) for image in images]


def _pixels(image: Image.Image, size: int) -> torch.Tensor:
    """float[size, size, 3]"""
    image = image.convert("RGB")
    image = (
        image
        if image.size == (size, size)
        else image.resize((size, size), Image.Resampling.BICUBIC)
    )
    return torch.from_numpy(np.asarray(image).astype(np.float32))


def _look(pixels: torch.Tensor) -> list[DetectedShape]:
    size = pixels.shape[0]
    # (C, K, S, S): of each color and template at each place
    evidence, certainty = _evidence(pixels, _templates(size))
    evidence[certainty < CERTAIN] = 0.0
    seen: list[DetectedShape] = []
    while len(seen) < MOST:
        value, place = evidence.flatten().max(dim=0)
        if value <= 0:
            break
        color, template, y, x = map(int, np.unravel_index(int(place), evidence.shape))
        shape, width = _kinds()[template]
        box = (x / size, y / size, x / size + width, y / size + width)
        seen.append(
            DetectedShape(list(COLORS)[color], shape, box, float(certainty[color, template, y, x]))
        )
        evidence.masked_fill_(_overlapping(box, size), 0.0)
    return sorted(seen, key=lambda one: one.box[0] + one.box[2])


def _overlapping(box: tuple[float, float, float, float], size: int) -> torch.Tensor:
    """bool[K, S, S]: the places of each template where it shares too much with the box."""
    corner = torch.arange(size) / size
    widths = torch.tensor([width for _, width in _kinds()])[:, None]
    x, y = (
        (torch.minimum(corner + widths, torch.tensor(high)) - corner.clamp(min=low)).clamp(min=0.0)
        for low, high in (box[::2], box[1::2])
    )  # (K, S) each
    smaller = torch.minimum(widths, torch.tensor(box[2] - box[0])) ** 2
    return y[:, :, None] * x[:, None, :] > OVERLAP * smaller[:, :, None]


def _evidence(pixels: torch.Tensor, templates: "Templates") -> tuple[torch.Tensor, torch.Tensor]:
    """How much better each template in each color explains the pixels than background does.

    Returns: log-likelihood ratios float[C, K, S, S], the place being the template's upper left
        corner; and the same as parts of the highest possible ones.
    """
    size = pixels.shape[0]
    background = _likelihood(pixels, templates.backdrops).amax(dim=0)
    fills = _likelihood(pixels, templates.colors) - background  # (C, S, S)
    ink = _likelihood(pixels, templates.ink)[0] - background
    side = _padded(size)
    outlines = torch.fft.rfft2(ink, s=(side, side)) * templates.outlines
    evidence = torch.zeros(len(fills), *templates.inside.shape)
    for color, fill in enumerate(fills):
        if (fill > 0).sum() >= FEWEST:  # of most colors there is nothing
            spectrum = torch.fft.rfft2(fill, s=(side, side)) * templates.fills + outlines
            found = torch.fft.irfft2(spectrum, s=(side, side))[..., :size, :size]
            evidence[color] = found.masked_fill_(~templates.inside, 0.0)
    return evidence, evidence / (WORST * templates.areas[:, None, None])


def _padded(size: int) -> int:
    """Side of the images in the Fourier transforms: no template wraps round."""
    return size + math.ceil(max(WIDTHS) * size)


def _likelihood(pixels: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
    """float[N, S, S]: log-likelihood of each pixel for each of N colors, not below -WORST."""
    distance = ((pixels[None] - colors[:, None, None]) ** 2).sum(dim=-1)
    return (-distance / (2 * NOISE**2)).clamp(min=-WORST)


@dataclass(frozen=True)
class Templates:
    """Masks of all shapes in all widths, as spectra of K templates; and the colors that pixels are
    compared with.

    Args:
        fills, outlines: complex[K, P, P / 2 + 1], conjugate, P the padded side. areas: pixels of
            both. inside: bool[K, S, S], where a corner may lie.
        colors, ink, backdrops: float[N, 3].
    """

    fills: torch.Tensor
    outlines: torch.Tensor
    areas: torch.Tensor
    inside: torch.Tensor
    colors: torch.Tensor
    ink: torch.Tensor
    backdrops: torch.Tensor


def _kinds() -> list[tuple[str, float]]:
    return [(shape, width) for shape in SHAPES for width in WIDTHS]


@functools.cache
def _templates(size: int) -> Templates:
    side = _padded(size)
    masks = (_masks(shape, width, size) for shape, width in _kinds())
    fills, outlines = map(torch.stack, zip(*masks))
    free = torch.tensor([size - width * size for _, width in _kinds()])
    corner = torch.arange(size)
    inside = (corner[:, None] <= free[:, None, None]) & (corner <= free[:, None, None])
    backdrops = torch.tensor([*BACKDROPS.values()], dtype=torch.float32)
    return Templates(
        torch.fft.rfft2(fills, s=(side, side)).conj().resolve_conj(),
        torch.fft.rfft2(outlines, s=(side, side)).conj().resolve_conj(),
        (fills + outlines).sum(dim=(1, 2)),
        inside,
        torch.tensor([*COLORS.values()], dtype=torch.float32),
        torch.tensor([INK], dtype=torch.float32),
        torch.cat([backdrops, backdrops - DARKER]),
    )


def _masks(shape: str, width: float, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """float[size, size] of the fill and of the outline: the part of each pixel that belongs to
    it."""
    side = width * size
    tile = Image.new("RGBA", (OVERSAMPLING * size,) * 2)
    thing = Shape(shape, "white", "", (0.0, 0.0, width, width), (255, 255, 255))
    draw_thing(
        ImageDraw.Draw(tile),
        thing,
        (0, 0, OVERSAMPLING * side, OVERSAMPLING * side),
        round(OVERSAMPLING * OUTLINE * size),
    )
    pixels = np.asarray(tile, dtype=np.float32) / 255
    shown = pixels.reshape(size, OVERSAMPLING, size, OVERSAMPLING, 4).mean(axis=(1, 3))
    fill = shown[..., 0]
    return torch.from_numpy(fill), torch.from_numpy(shown[..., 3] - fill)


# ------------------------------------------------------------------------------------------- texts
# and scores

_SINGULAR = {PLURALS.get(shape, shape + "s"): shape for shape in SHAPES}
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
    """An image beside its text. Args: named: things that the text names. right: how many of them
    are there.
    exact: all of them are there, and nothing else.
    """

    named: int
    right: int
    exact: bool


def check(images: Sequence[Image.Image], texts: Sequence[str]) -> list[Check]:
    """Whether each image shows the things that its text names, in the right color and shape."""
    checks = []
    for seen, text in zip(look_at(images), texts, strict=True):
        named, shown = Counter(things_named(text)), Counter(one.look for one in seen)
        checks.append(Check(sum(named.values()), sum((named & shown).values()), named == shown))
    return checks


class SyntheticShapesScorer:
    """How well images of synthetic shapes fit texts: the part of what is named or seen that
    is both, in [0, 1]."""

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> np.ndarray:
        """float64[N], higher = fits better; 0 for a text that names nothing."""
        scores = []
        for seen, text in zip(look_at(images), texts, strict=True):
            named, shown = Counter(things_named(text)), Counter(one.look for one in seen)
            together = sum((named & shown).values())
            scores.append(together / max(1, sum((named | shown).values())) if named else 0.0)
        return np.asarray(scores, dtype=np.float64)
