"""Images by number, from the image column of a TSV or from a folder, and how they become
square."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ofa.data.rows import Rows, check_column, open_rows
from ofa.errors import UserError
from ofa.io.image_files import list_images
from ofa.io.images import decode_base64, decode_image, open_image, read_image_file
from ofa.io.progress import counted

NON_SQUARE = ("crop", "squash", "refuse")


class TsvImages:
    """The images of a TSV or of shards, in RGB.

    Args: column: of the images, from 0; None finds the first that holds one in row 1.
    Raises: UserError as ``open_rows``; if no column holds an image.
    """

    def __init__(self, path: str | Path, column: int | None = None):
        self.rows = open_rows(path)
        self.column = image_column(self.rows) if column is None else column
        check_column(self.rows, self.column, "--image-column")

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        return self.rows.where(index)

    def files(self) -> list[str]:
        """What they are read from."""
        return list(self.rows.files)

    def __getitem__(self, index: int) -> Image.Image:
        """Raises: UserError naming file and row if the field holds no whole image."""
        return decode_image(self.rows[index][self.column], self.where(index))

    def data(self, index: int) -> bytes:
        """The image file as it lies in the field. Raises: UserError if it is no base64."""
        return decode_base64(self.rows[index][self.column], self.where(index))


class FolderImages:
    """The image files of a folder by name, in RGB. Raises: UserError if there are none."""

    def __init__(self, folder: str | Path):
        self.paths = list_images(folder)

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, index: int) -> str:
        return str(self.paths[index])

    def files(self) -> list[str]:
        """What they are read from."""
        return list(map(str, self.paths))

    def __getitem__(self, index: int) -> Image.Image:
        """Raises: UserError naming the file if it holds no whole image."""
        return open_image(read_image_file(self.paths[index]), self.where(index), upright=True)


def open_images(path: str | Path, column: int | None = None) -> TsvImages | FolderImages:
    """A TSV, shards or a folder of image files. Raises: UserError as the classes."""
    of_files = Path(path).is_dir() and not any(Path(path).glob("*.tar"))
    return FolderImages(path) if of_files else TsvImages(path, column)


def image_column(rows: Rows) -> int:
    """The first column of row 1 that holds an image. Raises: UserError if none does."""
    for column, field in enumerate(rows[0]):
        try:
            decode_image(field)
            return column
        except UserError:
            continue
    raise UserError(
        f"{rows.where(0)}: expects a column with an image file in base64, found none among"
        f" {rows.num_columns} columns; is it the right file? --image-column N names the column when"
        " the image of row 1 is broken"
    )


def make_square(
    image: Image.Image, size: int, non_square: str = "crop", where: str = ""
) -> Image.Image:
    """The image as ``size`` x ``size`` pixels, by PIL's Lanczos filter as upstream.

    Args: non_square: one of ``NON_SQUARE``, for an image with unequal sides: keep the middle, as
        much as fits; give up its aspect; or raise UserError, which names ``where``.
    """
    width, height = image.size
    if width != height and non_square == "refuse":
        raise UserError(
            f"{where or 'image'}: expects a square image, found {width} x {height} pixels; make"
            " it square, or choose --non-square crop or squash"
        )
    if width != height and non_square == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    same = image.size == (size, size)
    return image if same else image.resize((size, size), Image.Resampling.LANCZOS)


def square_pixels(
    images: TsvImages | FolderImages, chosen: Sequence[int], size: int, skip_broken: bool, what: str
) -> tuple[np.ndarray, int]:
    """The chosen images, made square.

    Args: skip_broken: leave out those that cannot be read. what: named by the progress.
    Returns: uint8[N, 3, size, size], and how many were left out.
    Raises: UserError if one cannot be read, or fewer than two can.
    """
    squares, skipped = [], 0
    for index in counted(chosen, len(chosen), what, "img"):
        try:
            squares.append(np.asarray(make_square(images[index], size)))
        except UserError:
            if not skip_broken:
                raise
            skipped += 1
    if len(squares) < 2:
        raise UserError(
            f"{what}: expected at least 2 readable images, found {len(squares)}; give more"
        )
    return np.stack(squares).transpose(0, 3, 1, 2).copy(), skipped


def spread(count: int, limit: int) -> Sequence[int]:
    """At most ``limit`` of the numbers below ``count``, evenly spread."""
    return range(count) if count <= limit else [round(i * count / limit) for i in range(limit)]
