"""Images of text for a network that sees squares: aspect kept, the rest of the square filled with
the image's edge.

wide image, S = 480          tall image              a strip of 4 x S, cut into four lines
+----------------+             +----+------+----+        +----------------+
| edge, repeated |             |    | tall |    |        | edge, repeated |
+----------------+             |edge| pic- |edge|        | first quarter  |
|  wide image  |             |    | ture |    |        | second quarter |
+----------------+             |    |      |    |        | third quarter  |
| edge, repeated |             |    |      |    |        | last quarter   |
+----------------+             +----+------+----+        +----------------+
"""

import random
from typing import Optional

import numpy as np
from PIL import Image

# pixels of the shorter side: thinner images are stretched, text of fewer pixels is hard to read
SHORTEST = 64
LINES = 4  # that a document's strip is cut into
# height and width of such a line, pixels; other squares have lines of the same shape
LINE = (64, 480)


def fit_square(
    image: Image.Image, size: int, document: bool = False, rng: Optional[random.Random] = None
) -> Image.Image:
    """An image of text as a square of ``size`` pixels.

    Args: document: a long line, which becomes four short ones, see above. rng: where in the square
    it lies is drawn by chance; None: in the middle. Upstream draws it in evaluation as well, so
    that a model's answer changes from call to call; here only in training.
    """
    width, height = image.size
    if document:
        line = size * LINE[0] // LINE[1]
        strip = np.asarray(resized(image, LINES * size, line))
        pixels = np.concatenate(np.split(strip, LINES, axis=1), axis=0)  # (LINES * line, size, 3)
    elif width >= height:
        pixels = np.asarray(resized(image, size, shorter_side(size, height / width)))
    else:
        pixels = np.asarray(resized(image, shorter_side(size, width / height), size))
    return Image.fromarray(padded(pixels, size, rng))


def shorter_side(size: int, part: float) -> int:
    """Pixels of the shorter side if the longer one has ``size``. Args: part: of the longer side."""
    return max(min(SHORTEST, size), int(size * part))


def padded(pixels: np.ndarray, size: int, rng: Optional[random.Random]) -> np.ndarray:
    """uint8[size, size, 3] around uint8[H, W, 3], one of whose sides has that length already."""
    free = size - min(pixels.shape[:2])
    before = free // 2 if rng is None else rng.randint(0, free)
    margin = (before, free - before)
    margins = (margin, (0, 0)) if pixels.shape[0] < size else ((0, 0), margin)
    return np.pad(pixels, (*margins, (0, 0)), mode="edge")


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Bicubic, and the same to the last bit with every Pillow: 13 begins with the height where that
    leaves less to do, earlier ones never do; between the two steps values are rounded, which is up
    to twenty gray levels."""
    if width > image.width and height < image.height:
        image = image.resize((image.width, height), Image.Resampling.BICUBIC)
    return image.resize((width, height), Image.Resampling.BICUBIC)
