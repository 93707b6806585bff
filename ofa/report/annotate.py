"""Images with a model's predictions drawn on them: boxes and their labels, readable on a thumbnail
as on a photo of 20 megapixels.

    annotated = draw_boxes(image, [Mark(box, "the red car"), Mark(true_box, "true", TRUE)])

Lines and letters grow with the image; an image too small for letters is enlarged first. Every
line has a dark rim, so that it shows on light and dark ground.
"""

import functools
import os
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps, ImageText

from ofa.errors import UserError
from ofa.inference.predictions import Answer, Region
from ofa.inference.requests import Request
from ofa.io.atomic import replacing
from ofa.io.paths import path_below
from ofa.tokens.boxes import box_overlap, clip_boxes

# what a model found, what was expected, what was asked about
PREDICTED, TRUE, GIVEN = ("#ff6a2b", "#18b4d8", "#f2c53d")
RIM = "#101418"
# a shorter side below SMALLEST is enlarged by a whole factor, never beyond LARGEST
SMALLEST, LARGEST = (320, 2000)
LINE, LETTER = 0.008, 0.042  # line width and letter size as parts of the shorter side
MAX_LINES = 2
WIDE_FONTS = (
    *("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "NotoSansSC-Regular.otf"),
    *("msyh.ttc", "PingFang.ttc", "DejaVuSans.ttf"),
)


class AnnotatedImageWriter:
    """Writes one annotated JPEG per request into a folder, ``NAME.jpg``; a name that comes again
    gets a number."""

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.used: set[str] = set()

    def draw(self, request: Request, image: Image.Image, prediction: Answer | Region) -> str:
        """Returns: path of the file. Raises: UserError if it would lie among the images
        themselves."""
        source = request.image or Path(request.name)
        if os.path.realpath(source.parent) == os.path.realpath(self.folder):
            raise UserError(
                f"--draw {self.folder}: expects another folder than that of the image"
                f" {source}, which could be overwritten; choose another"
            )
        name, number = source.stem, 1
        while name in self.used:
            number += 1
            name = f"{source.stem}_{number}"
        self.used.add(name)
        path = path_below(self.folder, f"{name}.jpg", request.where)
        with replacing(path, "wb") as file:
            annotated(request, image, prediction).save(file, format="JPEG", quality=92)
        return str(path)


def annotated(request: Request, image: Image.Image, prediction: Answer | Region) -> Image.Image:
    """The image with the boxes of the request and the prediction, and what was asked and answered
    above it."""
    asked = next((word for word in request.words.values() if isinstance(word, str)), "")
    marks = [Mark(word, "", GIVEN) for word in request.words.values() if isinstance(word, list)]
    if isinstance(prediction, Region):
        label = f"{asked} {prediction.probability:.2f}".strip()
        return draw_boxes(image, [*marks, Mark(prediction.box, label, PREDICTED)])
    if prediction.region is not None:
        marks.append(Mark(prediction.region.box, "", PREDICTED))
    if prediction.objects:
        found = [Mark(region.box, name, PREDICTED) for region, name in prediction.objects]
        return draw_boxes(image, [*marks, *found], heading=asked)
    between = " " if not asked or asked.endswith("?") else ": "
    return draw_boxes(image, marks, heading=f"{asked}{between}{prediction}".strip())


@dataclass(frozen=True)
class Mark:
    """A box to draw. Args: box: xyxy, pixels of the image; what lies outside is moved onto the
    border."""

    box: Sequence[float]
    label: str = ""
    color: str = PREDICTED


def draw_boxes(image: Image.Image, marks: Sequence[Mark], heading: str = "") -> Image.Image:
    """A copy of the image in RGB with boxes and labels.

    Args: heading: a text on a band above the image, such as a caption or an answer.
    """
    factor = max(1, min(-(-SMALLEST // min(image.size)), LARGEST // max(image.size)))
    canvas = ImageOps.scale(image.convert("RGB"), factor, Image.Resampling.NEAREST)
    pen = _Pen(canvas)
    boxes = [(clip_boxes(mark.box, image.size) * factor).tolist() for mark in marks]
    for mark, box in zip(marks, boxes):
        pen.rectangle(box, mark.color)
    for mark, box in zip(marks, boxes):
        if mark.label:
            pen.label(mark.label, box, mark.color)
    if not heading.strip():
        return canvas
    text = pen.fitted(heading)
    band = round(pen.extent(text)[1]) + pen.margin
    whole = ImageOps.expand(canvas, (0, band, 0, 0), "white")
    ImageDraw.Draw(whole).text((pen.margin, pen.margin), text, fill=RIM)
    return whole


class _Pen:
    """Draws on one canvas; remembers where labels are, so that they do not cover each other."""

    def __init__(self, canvas: Image.Image):
        self.size = canvas.size
        self.draw = ImageDraw.Draw(canvas)
        shorter = min(canvas.size)
        self.line = max(3, round(LINE * shorter))
        self.letter = max(12, round(LETTER * shorter))
        self.margin = max(2, self.letter // 4)
        self.taken: list[tuple[float, ...]] = []  # by labels

    def rectangle(self, box: Sequence[float], color: str) -> None:
        """The frame of a box, wholly inside the canvas."""
        rim = max(1, self.line // 3)
        x0, y0, x1, y1 = (round(number) for number in box)
        x1, y1 = min(max(x1, x0 + 1), self.size[0] - 1), min(max(y1, y0 + 1), self.size[1] - 1)
        x0, y0 = min(x0, x1 - 1), min(y0, y1 - 1)
        self.draw.rectangle((x0, y0, x1, y1), outline=RIM, width=self.line + 2 * rim)
        if x1 - x0 > 2 * rim and y1 - y0 > 2 * rim:
            inner = (x0 + rim, y0 + rim, x1 - rim, y1 - rim)
            self.draw.rectangle(inner, outline=color, width=self.line)

    def label(self, words: str, box: Sequence[float], color: str) -> None:
        """Letters on a ground of ``color``: above the box, below it, or inside at its top or
        bottom, where it is free."""
        text = self.fitted(words)
        width, height = self.extent(text)
        left = max(0.0, min(box[0], self.size[0] - width))
        places = (box[1] - height, box[3], box[1] + self.line, box[3] - height - self.line)
        inside = [top for top in places if 0 <= top <= self.size[1] - height] or [0.0]
        spots = [(left, top, left + width, top + height) for top in inside]
        free = [spot for spot in spots if not any(box_overlap(spot, one) for one in self.taken)]
        spot = (free or spots[-1:])[0]
        self.taken.append(spot)
        self.draw.rectangle(spot, fill=color)
        # black or white, whichever is easier to read
        red, green, blue = ImageColor.getrgb(color)[:3]
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
        origin = (spot[0] + self.margin, spot[1] + self.margin)
        self.draw.text(origin, text, fill=RIM if light else "#ffffff")

    def extent(self, text: "ImageText.Text[str]") -> tuple[float, float]:
        """Width and height of a text with its margins."""
        box = text.get_bbox()
        return box[2] + 2 * self.margin, box[3] + 2 * self.margin

    def fitted(self, words: str) -> "ImageText.Text[str]":
        """The words in at most ``MAX_LINES`` lines that are no wider than the canvas; the rest
        becomes ``…``."""
        words = " ".join(words.split())
        font = load_font(self.letter, wide=not words.isascii())
        most = 4 * self.size[0] // self.letter  # of the narrowest letters in a line
        for columns in range(min(len(words), most), 0, -1):
            lines = textwrap.wrap(words, columns, max_lines=MAX_LINES, placeholder="…")
            text = ImageText.Text("\n".join(lines), font, spacing=self.margin)
            if self.extent(text)[0] <= self.size[0]:
                break
        return text


@functools.lru_cache(maxsize=32)
def load_font(size: int, wide: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of the given size in pixels. Args: wide: with Chinese letters, if this machine has
    such a font."""
    for name in WIDE_FONTS if wide else ():
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)
