"""What the kinds of ``ofa prepare`` share: options, and how a data set that was read is written."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ofa.errors import UserError
from ofa.io.flags import Parser, command, option
from ofa.io.jobs import JobsOptions


@dataclass(frozen=True, kw_only=True)
class OutOptions:
    """Where the files go."""

    out: str = option(help="folder to write")


@dataclass(frozen=True, kw_only=True)
class SkipOptions:
    """What becomes of faults."""

    skip_broken: bool = option(
        False, "skip unreadable images and malformed rows instead of stopping"
    )


@dataclass(frozen=True, kw_only=True)
class WriteOptions(OutOptions, JobsOptions):
    """How files are written."""

    seed: int = option(1, "seed of all random choices")


@dataclass(frozen=True, kw_only=True)
class SourceOptions(WriteOptions, SkipOptions):
    """A data set that exists."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions(SourceOptions):
    """A data set whose images lie in folders or TSV files."""

    images: tuple[str, ...] = option(
        help="folders of the image files, or TSV files of image ids and base64", metavar="DIR|TSV"
    )


@dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """How boxes are written."""

    box_format: Literal["xyxy", "xywh", "xyxy_norm", "xywh_norm"] = option(
        "xyxy", "corners, or corner, width and height; pixels, or norm: fractions of the image"
    )


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """Columns that are not called as the task calls them."""

    columns: tuple[tuple[str, str], ...] = option(
        (),
        "columns or keys with another name than the task's",
        parse=lambda text: column(text),
        metavar="NAME=COLUMN",
    )


def add_kind(
    add: Callable[..., Parser],
    kind: str,
    options: type,
    run: Callable[[Any], int],
    help: str,
    writes: str,
    example: str,
) -> None:
    """A kind whose images are embedded. Args: writes: the files it makes. example: a command."""
    description = (
        f"Writes {writes} and manifest.json. Image files are embedded as they are; those with an "
        f"EXIF orientation "
        "are turned upright."
    )
    command(add(kind, help=help), options, run, f"example: {example}", description)


def column(text: str) -> tuple[str, str]:
    """``NAME=COLUMN`` of a command line."""
    name, equals, column = text.partition("=")
    if not (name and equals and column):
        raise argparse.ArgumentTypeError(
            f"{text} is not of the form NAME=COLUMN, such as image=file_name"
        )
    return name, column


def given_splits(args: Any, *names: str) -> dict[str, str]:
    """The files of the splits that were given. Raises: UserError if there are none."""
    given = {name: getattr(args, name) for name in names if getattr(args, name)}
    if not given:
        raise UserError(
            f"expected one of {', '.join(f'--{name}' for name in names)}, found none; give at "
            f"least one"
        )
    return given


def images_and_problems(args: Any) -> tuple[Any, Any]:
    """The folders of images, None if none are given, and what counts faults."""
    from ofa.io.image_files import ImageFolders
    from ofa.prepare.prepared_dataset import Problems

    return ImageFolders(args.images) if args.images else None, Problems(args.skip_broken)


def write_found(found: Any, args: Any) -> int:
    """Write a data set that was read."""
    from ofa.prepare.write_dataset import prepare

    summary(prepare(found, args.out, args.jobs, args.skip_broken))
    return 0


def summary(out: Any) -> None:
    """Print which files were written, and how many images are not byte for byte the data set's."""
    turned = out.manifest.get("pictures", {}).get("turned_upright")
    if turned:
        print(
            f"{turned} images are turned upright, as their EXIF orientation says: PNG, WebP and "
            f"TIFF lose nothing, "
            "JPEG is encoded again with its own quantization tables"
        )
    for name, entry in out.manifest["files"].items():
        print(f"{out.folder / name}: {entry['rows']} rows, {entry['bytes'] / 1e6:.1f} MB")
