"""``ofa synthetic-shapes check``: what images of synthetic shapes show, seen without any training.

    >>> from ofa.synthetic.shapes import make_scene, render
    >>> image = render(make_scene(seed=1, split="train", index=0))
    >>> [seen.look for seen in look_at(image)]
    [('brown', 'arrow'), ('orange', 'square')]

A template of each shape, in several widths, colors and at every place, adds up how much better it
explains the pixels under it than bare background would; the best one is taken, then the best of
those that do not overlap it, and so on. C colors, K templates, S side of the image.
"""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ofa.errors import UserError
from ofa.io.flags import action, option
from ofa.io.images import open_image, read_image_file
from ofa.synthetic import shapes
from ofa.synthetic.shapes import COLORS, SHAPES, Box, Shape
from ofa.synthetic.shapes_language import ENGLISH
from ofa.synthetic.shapes_phrases import NUMBERS
from ofa.task.results import prediction_of, read_predictions, write_json

# parts of the side
WIDTHS_OF = {"small": (0.235, 0.265, 0.295), "large": (0.37, 0.40, 0.43)}
TEMPLATES = [
    (one, size, width) for one in SHAPES for size in WIDTHS_OF for width in WIDTHS_OF[size]
]
WIDTHS = np.array([width for *_, width in TEMPLATES], np.float32)
NOISE = 28.0  # standard deviation of a color channel: shades of one name, what a coder blurs
WORST = 4.0  # how badly a pixel may speak against a shape: a few wrong ones must not outvote it
CERTAIN = 0.2  # part of the highest possible evidence that a shape needs
OVERLAP = 0.2  # part of the smaller box that may be shared with a shape that is already seen
FEWEST = 8  # pixels of a color below which it is not looked for
MOST = 6  # shapes that are looked for in an image

_SINGULAR = {ENGLISH.noun(shape, plural=True): shape for shape in SHAPES}
_SIZE_WORDS = itertools.chain(*ENGLISH.table["sizes"].values())
_THING = re.compile(
    rf"\b(?:({'|'.join(NUMBERS[1:])}|an?)\s+)?(?:(?:{'|'.join(_SIZE_WORDS)})\s+)?"
    rf"({'|'.join(COLORS)})\s+({'|'.join([*_SINGULAR, *SHAPES])})\b"
)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    result: str = option(help="result file with captions and image files", positional=True)
    out: str | None = option(None, "figures to write")
    images: tuple[str, ...] = option(
        (),
        "folder of generated images outside that of the result file",
        flag="--gen-images-path",
        repeat=True,
    )


@action
def check(args: CheckOptions) -> None:
    """Count the shapes of each caption that its image shows in the right color.

    Looks at the first image of every entry of a result file of 'ofa evaluate' or 'ofa draw',
    without any model.

    example: ofa synthetic-shapes check results/test_predict.json --out results/drawings.json
    """
    checks = []
    for number, entry in enumerate(read_predictions(args.result), 1):
        where, folder = f"{args.result}: entry {number}", Path(args.result).parent
        drawn = prediction_of(entry, where, folder, args.images, ["caption"])
        if drawn.file is None:
            raise UserError(
                f"{where}: expects files of images, as 'ofa draw' writes them, found none; draw"
                " them again"
            )
        image = open_image(read_image_file(drawn.file), drawn.file, upright=True)
        checks.append(compare(image, drawn.text))
    things, drawings = sum(one.named for one in checks), len(checks)
    found = {
        "drawings": drawings,
        "things": things,
        "things_right": sum(one.right for one in checks) / max(1, things),
        "all_things_there": sum(one.right == one.named for one in checks) / max(1, drawings),
        "exact": sum(len({*one}) == 1 for one in checks) / max(1, drawings),
    }
    print(
        f"{drawings} drawings, {things} things named: {100 * found['things_right']:.1f} %"
        " in the right color and shape; drawings with all of them"
        f" {100 * found['all_things_there']:.1f} %, with all of them and nothing else"
        f" {100 * found['exact']:.1f} %"
    )
    if args.out:
        write_json(args.out, found, indent=1)


class Check(NamedTuple):
    """How an image fits its text: things that the text names, that the image shows, and how many
    are both, in color and shape."""

    named: int
    seen: int
    right: int


def compare(image: Image.Image, text: str) -> Check:
    named, seen = Counter(things_named(text)), Counter(one.look for one in look_at(image))
    return Check(named.total(), seen.total(), (named & seen).total())


class SyntheticShapesScorer:
    """How well images fit texts, for ``--image-text-scorer``."""

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> np.ndarray:
        """float64[N], the part of what is named or seen that is both; 0 if nothing is named."""
        checks = map(compare, images, texts)
        return np.array([n and right / (n + seen - right) for n, seen, right in checks], np.float64)


def things_named(text: str) -> list[tuple[str, str]]:
    """Color and shape of all things that a caption counts up.

    >>> things_named("two small red crosses and a ring on mint dots, a blue star")
    [('red', 'cross'), ('red', 'cross'), ('blue', 'star')]
    """
    found = []
    for number, color, shape in _THING.findall(text.lower()):
        count = NUMBERS.index(number) if number in NUMBERS else 1
        found += [(color, _SINGULAR.get(shape, shape))] * count
    return found


def look_at(image: Image.Image, size: int = 64) -> list[Shape]:
    """The shapes of an image, from left to right, with boxes of a template's width. Args: size:
    side to which other images are reduced or enlarged."""
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    evidence = _evidence(np.asarray(image, np.float32))
    seen: list[Shape] = []
    while len(seen) < MOST and evidence.max() > 0:
        color, template, y, x = map(int, np.unravel_index(int(np.argmax(evidence)), evidence.shape))
        shape, kind, width = TEMPLATES[template]
        box = (x / size, y / size, x / size + width, y / size + width)
        name, rgb = [*COLORS.items()][color]
        seen.append(Shape(shape, name, kind, box, rgb))
        evidence[:, _overlapping(box, size)] = 0.0
    return sorted(seen, key=lambda one: one.box[0] + one.box[2])


def _overlapping(box: Box, size: int) -> np.ndarray:
    """bool[K, S, S]: the places of each template where it shares too much with the box."""
    corner, widths = np.arange(size, dtype=np.float32) / size, WIDTHS[:, None]
    x, y = (
        (np.minimum(corner + widths, high) - np.maximum(corner, low)).clip(min=0.0)
        for low, high in (box[::2], box[1::2])
    )  # (K, S) each
    smaller = np.minimum(widths, box[2] - box[0]) ** 2
    return y[:, :, None] * x[:, None, :] > OVERLAP * smaller[:, :, None]


def _evidence(pixels: np.ndarray) -> np.ndarray:
    """Log-likelihood ratios float[C, K, S, S] of templates, by their upper left corners, over bare
    background; 0 where they are too low to count."""
    from torch import from_numpy
    from torch.nn.functional import conv2d, pad

    size, masks, papers = (
        len(pixels),
        _templates(len(pixels)),
        np.array([*shapes.BACKDROPS.values()]),
    )
    background = _likelihood(pixels, np.concatenate([papers, papers - shapes.SHADE])).max(axis=0)
    fills = _likelihood(pixels, np.array([*COLORS.values()])) - background  # (C, S, S)
    (ink,) = _likelihood(pixels, np.array([shapes.INK])) - background
    corner, free = np.arange(size), size - (WIDTHS * size)[:, None, None]
    inside = (corner[:, None] <= free) & (corner <= free)
    least = CERTAIN * WORST * masks.sum(axis=(1, 2, 3))[:, None, None]
    evidence = np.zeros((len(fills), *inside.shape), np.float32)
    room = masks.shape[-1] - 1
    for color, fill in enumerate(fills):
        if (fill > 0).sum() >= FEWEST:  # of most colors there is nothing
            planes = pad(from_numpy(np.stack([fill, ink])), (0, room, 0, room))
            found = conv2d(planes[None], from_numpy(masks))[0].numpy()
            evidence[color] = np.where(inside & (found >= least), found, 0.0)
    return evidence


def _likelihood(pixels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """float[N, S, S]: log-likelihood of each pixel for each of N colors, not below -WORST."""
    distance = ((pixels[None] - colors[:, None, None].astype(np.float32)) ** 2).sum(axis=-1)
    return (-distance / (2 * NOISE**2)).clip(min=-WORST)


@functools.cache
def _templates(size: int) -> np.ndarray:
    """float[K, 2, W, W], W the largest width: parts of each pixel that are fill, and outline."""
    fine, largest, masks = shapes.OVERSAMPLING, math.ceil(np.max(WIDTHS) * size), []
    for shape, kind, width in TEMPLATES:
        tile, box = Image.new("RGBA", (fine * largest,) * 2), (0.0, 0.0, width * size, width * size)
        shapes.draw_oversampled(
            tile, Shape(shape, "white", kind, box, (255, 255, 255)), box, shapes.OUTLINE * size
        )
        pixels = np.asarray(tile, np.float32).reshape(largest, fine, largest, fine, 4) / 255
        shown = pixels.mean(axis=(1, 3))
        masks.append((shown[..., 0], shown[..., 3] - shown[..., 0]))
    return np.array(masks)
