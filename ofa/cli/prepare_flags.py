"""Flags and steps that the kinds of ``ofa prepare`` share."""

import argparse
import os
from typing import Any


def new_kind(
    kinds, kind: str, help: str, writes: str, example: str, run
) -> argparse.ArgumentParser:
    """Parser of one kind. Args: writes: the files it makes, and anything worth knowing. example:
    a command."""
    parser = kinds.add_parser(
        kind,
        help=help,
        description=(
            f"Writes {writes} and manifest.json. Image files are embedded as "
            "they are; those with an EXIF orientation are turned upright."
        ),
        epilog=f"example: {example}",
    )
    parser.set_defaults(run=run)
    return parser


def add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        nargs="+",
        required=True,
        metavar="DIR|TSV",
        help=(
            "folders of the image files, at any depth; or TSV files of image ids and images in"
            " base64"
        ),
    )


def add_id_prefix(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--id-prefix",
        nargs="*",
        metavar="TEXT",
        help=f"before the ids of {what}, one per file (without a value: the files' names)",
    )


def add_val_fraction(group) -> None:
    group.add_argument(
        "--val-fraction",
        type=float,
        metavar="F",
        help="part of the images, drawn at random, for validation",
    )


def add_box_format(parser: argparse.ArgumentParser) -> None:
    from ofa.prepare.csv_jsonl import BOX_FORMATS

    parser.add_argument(
        "--box-format",
        choices=BOX_FORMATS,
        default=BOX_FORMATS[0],
        help=(
            "corners, or corner, width and height; in pixels, or norm: fractions of the image"
            " (%(default)s)"
        ),
    )


def add_skip_broken(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave unreadable images and wrong entries out instead of stopping",
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--seed", type=int, default=1, help="of everything drawn at random (%(default)s)"
    )
    parser.add_argument(
        "--jobs",
        "--processes",
        type=count,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes that read or draw images (%(default)s)",
    )


def count(text: str) -> int:
    """A number that has to be positive, of a command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def character(text: str) -> str:
    """One character, also as ``\\t``."""
    text = text.replace("\\t", "\t")
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character such as ; or a tab")
    return text


def column(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not (name and equals and column):
        raise argparse.ArgumentTypeError(
            f"{text} is not of the form NAME=COLUMN, such as image=file_name"
        )
    return name, column


def given_splits(args: argparse.Namespace, *names: str) -> dict[str, str]:
    from ofa.errors import UserError

    given = {name: getattr(args, name) for name in names if getattr(args, name)}
    if not given:
        raise UserError(
            f"expected one of {', '.join(f'--{name}' for name in names)}, found none; give at"
            " least one"
        )
    return given


def images_and_problems(args: argparse.Namespace) -> tuple[Any, Any]:
    from ofa.io.image_files import ImageFolders
    from ofa.prepare.prepared_dataset import Problems

    return ImageFolders(args.images) if args.images else None, Problems(args.skip_broken)


def write_found(found, args: argparse.Namespace) -> int:
    from ofa.prepare.write_dataset import prepare

    summary(prepare(found, args.out, args.jobs, args.skip_broken))
    return 0


def summary(out) -> None:
    """Say which files were written, and how many images are not byte for byte those of the data
    set."""
    turned = out.manifest.get("pictures", {}).get("turned_upright")
    if turned:
        print(
            f"{turned} images are turned upright, as their EXIF orientation says: PNG, WebP and"
            " TIFF lose nothing, JPEG is encoded again with its own quantization tables"
        )
    for name, entry in out.manifest["files"].items():
        print(f"{out.folder / name}: {entry['rows']} rows, {entry['bytes'] / 1e6:.1f} MB")
