"""Images by number, from the image column of a TSV or from a folder, and how they become square;
image codes by row, from a TSV or from a result file (``*_predict.json``)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ofa.data.rows import Rows, check_column, open_rows
from ofa.errors import UserError
from ofa.io.image_files import list_images
from ofa.io.images import decode_base64, decode_image, open_image, read_image_file
from ofa.io.json_files import read_json
from ofa.io.progress import counted
from ofa.task.results import IDS, TEXTS
from ofa.tokens.image_codes import square_side, text_to_codes

NON_SQUARE = ("crop", "squash", "refuse")


class TsvImages:
    """The images of a TSV or of shards, in RGB.

    Args: column: of the images, from 0; None finds the first that holds one in row 1.
    Attributes: files: what they are read from.
    Raises: UserError as ``open_rows``; if no column holds an image.
    """

    def __init__(self, path: str | Path, column: int | None = None):
        self.rows = open_rows(path)
        self.files = self.rows.files
        if column is None:
            message = (
                f"with an image file in base64, found none among {self.rows.num_columns} columns;"
                " is it the right file? --image-column N names the column when the image of row 1"
                " is broken"
            )
            column = first_column(self.rows, decode_image, message)
        self.column = column
        check_column(self.rows, self.column, "--image-column")

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        return self.rows.where(index)

    def __getitem__(self, index: int) -> Image.Image:
        """Raises: UserError naming file and row if the field holds no whole image."""
        return decode_image(self.rows[index][self.column], self.where(index))

    def data(self, index: int) -> bytes:
        """The image file as it lies in the field. Raises: UserError if it is no base64."""
        return decode_base64(self.rows[index][self.column], self.where(index))


class FolderImages:
    """The image files of a folder by name, in RGB. Raises: UserError if there are none."""

    def __init__(self, folder: str | Path):
        self.files: Sequence[str] = list(map(str, list_images(folder)))

    def __len__(self) -> int:
        return len(self.files)

    def where(self, index: int) -> str:
        return self.files[index]

    def __getitem__(self, index: int) -> Image.Image:
        """Raises: UserError naming the file if it holds no whole image."""
        return open_image(read_image_file(self.files[index]), self.where(index), upright=True)


def open_images(path: str | Path, column: int | None = None) -> TsvImages | FolderImages:
    """A TSV, shards or a folder of image files. Raises: UserError as the classes."""
    of_files = Path(path).is_dir() and not any(Path(path).glob("*.tar"))
    return FolderImages(path) if of_files else TsvImages(path, column)


def first_column(rows: Rows, holds: Callable[[str], object], message: str) -> int:
    """The first column of row 1 that holds something. Raises: UserError if none does."""
    for column, field in enumerate(rows[0]):
        with suppress(UserError):
            if holds(field):
                return column
    raise UserError(f"{rows.where(0)}: expects a column {message}")


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
    return image.resize((size, size), Image.Resampling.LANCZOS)


def square_pixels(
    images: TsvImages | FolderImages, chosen: Sequence[int], size: int, skip_broken: bool, what: str
) -> tuple[np.ndarray, int]:
    """The chosen images, made square: uint8[N, 3, size, size], and how many were left out.

    Args: skip_broken: leave out those that cannot be read. what: named by the progress.
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


# --- image codes


@dataclass(frozen=True)
class CodedRow:
    """``codes`` as text; ``where`` for messages."""

    name: str
    text: str
    codes: str
    where: str

    def grid(self, num_codes: int, shape: tuple[int, int] | None) -> np.ndarray:
        """int64[h, w]. Args: shape: rows and columns of codes; None: a square.
        Raises: UserError naming the row."""
        count = None if shape is None else shape[0] * shape[1]
        codes = text_to_codes(self.codes, num_codes, count, self.where)
        return codes.reshape(shape or (square_side(len(codes), self.where), -1))


def open_coded(
    path: str | Path,
    code_column: int | None = None,
    id_column: int = 0,
    text_column: int | None = None,
) -> list[CodedRow]:
    """All rows of a file. Raises: UserError if the file or a column is missing.

    Args: code_column: of a TSV; None finds the first that holds codes in row 1. text_column: None:
    no text.
    """
    if Path(path).suffix.lower() in (".json", ".jsonl"):
        return list(rows_of_results(Path(path)))
    rows = open_rows(path)
    if code_column is None:
        code_column = first_column(
            rows,
            lambda field: len(field.split()) > 1 and all(map(str.isdecimal, field.split())),
            "of image codes (integers with spaces between them), found none; name it by"
            " --code-column N, or make one by ofa tokenizer encode",
        )
    columns = [id_column, code_column, *([] if text_column is None else [text_column])]
    for number in columns:
        check_column(rows, number, "--code-column, --id-column or --text-column")
    found = ((rows.where(index), *rows.texts(index, columns)) for index in range(len(rows)))
    return [CodedRow(name, "".join(text), codes, where) for where, name, codes, *text in found]


def rows_of_results(path: Path) -> Iterator[CodedRow]:
    """Entries of a result file in their order: ``{"id": ..., "codes": "17 3 ..."}``."""
    expected = "a list of results, as NAME_predict.json of ofa evaluate or ofa draw"
    content = read_json(path, expected, kind=list)
    if not content:
        raise UserError(f"{path}: expected {expected}, found an empty one; give another file")
    for number, entry in enumerate(content):
        where = f"{path}: entry {number + 1}"
        codes = entry.get("codes") if isinstance(entry, dict) else None
        if not isinstance(codes, (str, list)):
            raise UserError(
                f"{where}: expects 'codes', found none; are the results of --task image_gen?"
            )
        text = codes if isinstance(codes, str) else " ".join(map(str, codes))
        yield CodedRow(first_of(entry, IDS) or str(number), first_of(entry, TEXTS), text, where)


def first_of(entry: dict, names: tuple[str, ...]) -> str:
    return next((str(entry[name]) for name in names if name in entry), "")
