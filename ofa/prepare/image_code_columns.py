"""Files of images -> files with a column of image codes, for the two tasks that have one.

    generation   uniq-id, codes of the whole image, caption in lower case   one row per caption
    pretraining  image-id, image, codes of its middle   half the side, cropped, then encoded

An image is made square and resized (``make_square``) to the side that is encoded, or to twice that
side for pretraining.
"""

import io
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from ofa.data.image_rows import FolderImages, TsvImages, make_square
from ofa.errors import UserError
from ofa.io.images import encode_image, open_image
from ofa.io.progress import counted
from ofa.io.values import one_line
from ofa.prepare.tsv_writer import IMAGE, Group
from ofa.task.text import JOIN
from ofa.tokens.image_codes import codes_to_text

GENERATION, PRETRAINING = "generation", "pretraining"
SIZES = {GENERATION: 256, PRETRAINING: 128}  # pixels that are encoded, of upstream

Images = TsvImages | FolderImages
# images of one size, number of the first -> codes of each
Encode = Callable[[list[Image.Image], int], Sequence]


def caption_groups(
    images: Images, chosen: Sequence[int], id_column: int, text_column: int
) -> list[Group]:
    """Rows for generation. Captions that are joined by ``&&`` become a row each: ``7_0``, ``7_1``,
    ...

    Raises: UserError naming file and row for a row without caption; for a folder, which has no
    captions.
    """
    if isinstance(images, FolderImages):
        raise UserError(
            f"{images.where(0)}: --for generation expects a TSV with captions, found a folder of"
            " images; make one by ofa prepare, or encode --for pretraining"
        )
    check_columns(images, {"--id-column": id_column, "--text-column": text_column})
    groups = []
    for index in chosen:
        name, text = images.rows.texts(index, [id_column, text_column])
        captions = list(filter(None, map(one_line, text.lower().split(JOIN))))
        if not captions:
            raise UserError(
                f"{images.where(index)}: expects a caption in column {text_column}, found none;"
                " is --text-column right (columns count from 0)?"
            )
        names = [name]
        if len(captions) > 1:
            names = [f"{name}_{number}" for number in range(len(captions))]
        rows = ((name, IMAGE, caption) for name, caption in zip(names, captions))
        groups.append(Group(index, tuple(rows)))
    return groups


def image_groups(images: Images, chosen: Sequence[int], id_column: int) -> list[Group]:
    """Rows for pretraining; ``IMAGE`` stands for two columns. Files of a folder are called by
    their names."""
    if isinstance(images, FolderImages):
        names = [images.paths[index].stem for index in chosen]
    else:
        check_columns(images, {"--id-column": id_column})
        names = [images.rows.texts(index, [id_column])[0] for index in chosen]
    return [Group(index, ((name, IMAGE),)) for index, name in zip(chosen, names)]


def check_columns(images: TsvImages, options: dict[str, int]) -> None:
    for option, column in options.items():
        if not 0 <= column < images.rows.num_columns or column == images.column:
            found = f"columns 0 to {images.rows.num_columns - 1}"
            if column == images.column:
                found = "the images"
            raise UserError(
                f"{images.where(0)}: {option} {column} expects a column of text, found {found};"
                " correct the option"
            )


def whole_images(
    images: Images,
    chosen: Sequence[int],
    size: int,
    non_square: str,
    batch_size: int,
    encode: Encode,
) -> Iterator[str]:
    """Codes as text of each chosen image."""
    for some in batches(chosen, batch_size):
        squares = [
            make_square(images[index], size, non_square, images.where(index)) for index in some
        ]
        yield from map(codes_to_text, encode(squares, some[0]))


def images_with_middles(
    images: Images,
    chosen: Sequence[int],
    size: int,
    non_square: str,
    batch_size: int,
    encode: Encode,
    image_format: str,
) -> Iterator[str]:
    """Two columns for each chosen image: itself with sides of 2 x ``size`` in base64, and codes
    of its middle.

    The codes are those of the pixels as they are stored.
    """
    start, stop = size // 2, size // 2 + size
    for some in batches(chosen, batch_size):
        stored = [stored_image(images, index, 2 * size, non_square, image_format) for index in some]
        middles = [open_image(data).crop((start, start, stop, stop)) for data in stored]
        for data, codes in zip(stored, encode(middles, some[0])):
            yield f"{encode_image(data)}\t{codes_to_text(codes)}"


def stored_image(
    images: Images, index: int, side: int, non_square: str, image_format: str
) -> bytes:
    """The image as a file of ``side`` x ``side`` pixels: of a TSV the very file, if it has
    them already."""
    image = images[index]
    if image.size == (side, side) and isinstance(images, TsvImages):
        return images.data(index)
    image = make_square(image, side, non_square, images.where(index))
    file = io.BytesIO()
    image.save(file, image_format.upper(), **({"quality": 95} if image_format == "jpeg" else {}))
    return file.getvalue()


def batches(items: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def readable(images: Images, path: str) -> tuple[list[int], list[str]]:
    """Numbers of the images that can be read, and a message for each of the others."""
    good, broken = [], []
    for index in counted(range(len(images)), len(images), f"looking at {path}", "img"):
        try:
            images[index]
            good.append(index)
        except UserError as error:
            broken.append(str(error))
    return good, broken
