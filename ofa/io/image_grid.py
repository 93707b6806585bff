"""Several images as one: all samples of a caption, best first, beside its true image."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ofa.io.images import encode_image, open_image, read_image_file

GAP, EDGE = 4, 3  # pixels between images, and of the line around the true one
GROUND, TRUE = (205, 205, 200), (24, 180, 216)
LARGEST = 128  # images are reduced to this side where there are many
EVERY = "all_results"  # folder of all samples
REFERENCE = "reference"  # folder of the true images, beside those of the drawn ones


def grid(
    images: Sequence[Image.Image], reference: Image.Image | None = None, columns: int | None = None
) -> Image.Image:
    """The images in rows; in front of them, with a line around it, the true one.

    Args: columns: default: about twice as many as rows.
    """
    columns = columns or max(1, math.ceil(math.sqrt(2 * len(images))))
    side = max(image.width for image in images)
    if len(images) > 1:
        side = min(side, LARGEST)
    tiles = [scaled(image.convert("RGB"), side) for image in images]
    if reference is not None:
        columns += 1
        tiles.insert(0, ImageOps.expand(scaled(reference.convert("RGB"), side), EDGE, TRUE))
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    step = side + GAP
    sheet = Image.new("RGB", (columns * step + GAP, rows * step + GAP), GROUND)
    for number, tile in enumerate(tiles):
        edge = (tile.width - side) // 2
        row, column = divmod(number, columns)
        sheet.paste(tile, (GAP + column * step - edge, GAP + row * step - edge))
    return sheet


def scaled(image: Image.Image, side: int) -> Image.Image:
    """A square; small images keep visible pixels."""
    smooth = image.width > side
    return image.resize(
        (side, side), Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    )


def grid_of_files(files: Sequence[str]) -> str:
    """Base64 of the grid of image files, and of the true image beside them; "" if they are gone."""
    found = [path for path in map(Path, files) if path.is_file()]
    if not found:
        return ""
    true = reference_file(found[0])
    has_reference = found[0].parent.name == EVERY and true.is_file()
    shown = [*([true] if has_reference else []), *found]
    images = [open_image(read_image_file(path), str(path), upright=True) for path in shown]
    return as_field(grid(images[has_reference:], images[0] if has_reference else None))


def as_field(image: Image.Image, kind: str = "png", **options: Any) -> str:
    """Base64 of an image file, as an image column holds it. Args: options: of Pillow's writer."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return encode_image(file.getvalue())


def reference_file(image: Path) -> Path:
    """The true image of the caption of ``.../all_results/7_a_cat_0.png``."""
    return image.parent.parent / REFERENCE / f"{image.stem.rpartition('_')[0]}.png"
