"""``ofa tokenizer encode``: files of images -> files with a column of image codes, for the two
tasks that have one.

    generation   uniq-id, codes of the whole image, caption in lower case   one row per caption
    pretraining  image-id, image, codes of its middle   half the side, cropped, then encoded
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ofa.data.image_rows import FolderImages, TsvImages, make_square, open_images
from ofa.errors import UserError
from ofa.inference.options import DeviceOptions, device_option
from ofa.io.flags import action, option
from ofa.io.image_files import file_state, name_broken
from ofa.io.images import encode_image, open_image
from ofa.io.progress import counted
from ofa.io.resumable import fingerprint
from ofa.io.terminal import with_noun
from ofa.io.values import one_line
from ofa.prepare.tsv_writer import IMAGE, Group, PreparedFolder
from ofa.task.text import JOIN
from ofa.tokens.image_codes import codes_to_text

SIZES = {"generation": 256, "pretraining": 128}  # pixels that are encoded, of upstream
SETTINGS = "purpose id_column text_column non_square image_format sample skip_broken".split()
KINDS = "tokenizer.pt, its folder, or a folder with model.yaml and last.ckpt (VQGAN)"

Images = TsvImages | FolderImages
# images of one size, number of the first -> codes of each
Encode = Callable[[list[Image.Image], int], Any]


@dataclass(frozen=True, kw_only=True)
class TokenizerDevice(DeviceOptions):
    """A tokenizer is small: it computes on the CPU, where the same call gives the same codes."""

    device: str = device_option("cpu")


@dataclass(frozen=True, kw_only=True)
class ImagesOptions(TokenizerDevice):
    images: str = option(help="TSV with an image column, or folder of images", metavar="TSV|DIR")
    image_column: int | None = option(None, "column of the images, from 0, if not the first")
    skip_broken: bool = option(False, "skip images that cannot be read instead of stopping")


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(ImagesOptions):
    tokenizer: str = option(help=KINDS)
    purpose: Literal["generation", "pretraining"] = option(help="file to write", flag="--for")
    out: str = option(help="file to write")
    code_image_size: int | None = option(
        None, "side of the encoded square in pixels, if not 256 (pretraining: 128)"
    )
    id_column: int = option(0, "column of the ids")
    text_column: int = option(2, "column of the captions, for generation")
    non_square: Literal["crop", "squash", "refuse"] = option(
        "crop", "images that are not square: keep the center, give up the aspect, or stop"
    )
    image_format: Literal["jpeg", "png"] = option("jpeg", "of images resized for pretraining")
    sample: int | None = option(None, "seed to sample the codes of a GumbelVQ with")
    batch_size: int = option(16, "images at a time", least=1)


@action
def encode(args: EncodeOptions) -> None:
    """Make the files with image codes for text to image and pretraining.

    --for generation writes the columns uniq-id, codes, caption: the whole image of
    --code-image-size pixels (256: 1024 codes), a row per caption. --for pretraining writes
    image-id, image, codes: the image with twice that side (128: 256 pixels) and the codes of its
    center (256 codes). Images are resized by PIL's Lanczos filter as upstream. Beside the file lies
    OUT.manifest.json. An interrupted call is resumed by the same call.

    example: ofa tokenizer encode --images caption_stage1_train.tsv --tokenizer vqgan --for
    generation --out coco_gen.tsv
    """
    from ofa.inference.predictor import choose_device
    from ofa.models.image_tokenizer import codec

    tokenizer = codec.load_image_tokenizer(args.tokenizer, choose_device(args.device))
    usual = SIZES[args.purpose]
    size = usual if args.code_image_size is None else args.code_image_size
    if size < tokenizer.factor or size % tokenizer.factor:
        raise UserError(
            f"--code-image-size {size}: expected a multiple of {tokenizer.factor} pixels, which"
            f" have one code each; choose another, such as {usual}"
        )
    images = open_images(args.images, args.image_column)
    chosen, broken = readable(images, args.images) if args.skip_broken else (range(len(images)), {})
    settings = {name: getattr(args, name) for name in SETTINGS}
    files = images.files, tokenizer_files(Path(args.tokenizer))
    states = [[file_state(str(path)) for path in some] for some in files]
    plan = fingerprint("image codes 1", size, settings, states)
    path, made_by = Path(args.out), "ofa tokenizer encode"
    out = PreparedFolder(path.parent, plan, made_by, manifest=f"{path.name}.manifest.json")
    if out.is_finished():
        print(f"{path}: already complete")
        return
    side = size // tokenizer.factor
    out.note(
        images=args.images,
        tokenizer=args.tokenizer,
        num_codes=tokenizer.num_codes,
        code_image_size=size,
        codes_per_picture=side * side,
        settings=settings,
        left_out=[f"{where}: {reason}" for where, reason in broken.items()],
    )
    group = caption_groups if args.purpose == "generation" else image_groups
    groups, coder = group(images, chosen, args), codec.image_encoder(tokenizer, args.sample)
    out.write_groups(
        path.name, groups, lambda first: cells(images, chosen[first:], args, size, coder)
    )
    out.save_manifest(finished=True, left_out=len(broken))
    if broken:
        skipped = with_noun(len(broken), "image")
        print(f"{args.images}: {skipped} skipped: {name_broken(broken)}")
    entry = out.manifest["files"][path.name]
    print(
        f"{path}: {with_noun(entry['rows'], 'row')}, {side * side} codes each ({side} x {side}),"
        f" {entry['bytes'] / 1e6:.1f} MB"
    )


def tokenizer_files(path: Path) -> list[Path]:
    """What a tokenizer is read from."""
    from ofa.models.image_tokenizer.codec import CONFIG, TOKENIZER, WEIGHTS

    parts = [path / name for name in (TOKENIZER, CONFIG, WEIGHTS)]
    return list(filter(Path.is_file, parts)) if path.is_dir() else [path]


def readable(images: Images, path: str) -> tuple[list[int], dict[str, str]]:
    """Numbers of the images that can be read, and place -> what is wrong with each other one.
    Raises: UserError if none can be read."""
    good, broken = [], {}
    for index in counted(range(len(images)), len(images), f"looking at {path}", "img"):
        try:
            images[index]
            good.append(index)
        except UserError as error:
            where, _, reason = str(error).partition(": ")
            broken[where] = reason
    if not good:
        raise UserError(
            f"{path}: expected images, found none that can be read ({name_broken(broken)})"
        )
    return good, broken


def caption_groups(images: Images, chosen: Sequence[int], args: EncodeOptions) -> list[Group]:
    """Rows for generation, several captions of an image as ``7_0``, ``7_1``, ... Raises: UserError
    naming the row for one without caption; for a folder, which has none."""
    if isinstance(images, FolderImages):
        raise UserError(
            f"{images.where(0)}: --for generation expects a TSV with captions, found a folder of"
            " images; make one by ofa prepare, or encode --for pretraining"
        )
    check_columns(images, {"--id-column": args.id_column, "--text-column": args.text_column})
    groups = []
    for index in chosen:
        name, text = images.rows.texts(index, [args.id_column, args.text_column])
        captions = list(filter(None, map(one_line, text.lower().split(JOIN))))
        if not captions:
            raise UserError(
                f"{images.where(index)}: expects a caption in column {args.text_column}, found"
                " none; is --text-column right (columns count from 0)?"
            )
        rows = [(f"{name}_{number}", IMAGE, text) for number, text in enumerate(captions)]
        groups.append(Group(index, tuple(rows) if rows[1:] else ((name, IMAGE, captions[0]),)))
    return groups


def image_groups(images: Images, chosen: Sequence[int], args: EncodeOptions) -> list[Group]:
    """Rows for pretraining; ``IMAGE`` stands for two columns."""
    if isinstance(images, FolderImages):
        names = [Path(images.files[index]).stem for index in chosen]
    else:
        check_columns(images, {"--id-column": args.id_column})
        names = [images.rows.texts(index, [args.id_column])[0] for index in chosen]
    return [Group(index, ((name, IMAGE),)) for index, name in zip(chosen, names)]


def check_columns(images: TsvImages, flags: dict[str, int]) -> None:
    for flag, column in flags.items():
        if not 0 <= column < images.rows.num_columns or column == images.column:
            columns = f"columns 0 to {images.rows.num_columns - 1}"
            found = "the images" if column == images.column else columns
            raise UserError(
                f"{images.where(0)}: {flag} {column} expects a column of text, found {found};"
                " correct the option"
            )


def cells(
    images: Images, chosen: Sequence[int], args: EncodeOptions, size: int, encode: Encode
) -> Iterator[str]:
    """What stands for ``IMAGE`` in the rows of each chosen image.

    For generation its codes. For pretraining the image in base64, with sides of 2 x ``size``, and
    the codes of its middle, of the pixels as they are stored.
    """
    step = args.batch_size if args.sample is None else 1
    middle = (size // 2, size // 2, size // 2 + size, size // 2 + size)
    for start in range(0, len(chosen), step):
        batch = chosen[start : start + step]
        before: Iterator[str] = repeat("")  # what stands before the codes
        if args.purpose == "generation":
            how = args.non_square
            squares = [make_square(images[i], size, how, images.where(i)) for i in batch]
        else:
            stored = [stored_image(images, index, 2 * size, args) for index in batch]
            squares = [open_image(data).crop(middle) for data in stored]
            before = (f"{encode_image(data)}\t" for data in stored)
        for column, codes in zip(before, encode(squares, batch[0])):
            yield column + codes_to_text(codes)


def stored_image(images: Images, index: int, side: int, args: EncodeOptions) -> bytes:
    """A file of ``side`` x ``side`` pixels: of a TSV the very file, if it has them already."""
    image = images[index]
    if image.size == (side, side) and isinstance(images, TsvImages):
        return images.data(index)
    image = make_square(image, side, args.non_square, images.where(index))
    file = io.BytesIO()
    quality = {"quality": 95} if args.image_format == "jpeg" else {}
    image.save(file, args.image_format.upper(), **quality)
    return file.getvalue()
