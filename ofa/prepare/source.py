"""How a kind of ``ofa prepare`` is declared: its options, and how they are read into a data set.

@source(MugeOptions, "muge")
def read_muge(options: MugeOptions, problems: Problems) -> PreparedDataset: ...
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from ofa.errors import UserError
from ofa.io.flags import action, option
from ofa.io.jobs import JobsOptions
from ofa.io.resumable import ResumableFolder
from ofa.io.terminal import with_noun
from ofa.io.values import name_and_value
from ofa.prepare.annotations import Problems
from ofa.prepare.dataset import PreparedDataset, write_dataset

SPLITS = ("train", "val", "dev", "testA", "testB", "test")
EMBEDDED = (
    " Image files are embedded as they are; those with an EXIF orientation are turned upright."
)
# kind -> the last arguments of ``command``, of the modules that are imported
SOURCES: dict[str, tuple[type, Callable[[Any], None], str, str]] = {}
Read = TypeVar("Read", bound=Callable[..., PreparedDataset | list[PreparedDataset]])
UNSETTLED = ("out", "jobs", "skip_broken")  # options that decide nothing of the content


@dataclass(frozen=True, kw_only=True)
class OutOptions:
    out: str = option(help="folder to write")


@dataclass(frozen=True, kw_only=True)
class TextOptions(OutOptions):
    """A data set of texts alone."""

    skip_broken: bool = option(
        False, "skip unreadable images and malformed rows instead of stopping"
    )


@dataclass(frozen=True, kw_only=True)
class WriteOptions(OutOptions, JobsOptions):
    seed: int = option(1, "seed of all random choices")


@dataclass(frozen=True, kw_only=True)
class SourceOptions(WriteOptions, TextOptions):
    """A data set that exists."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions(SourceOptions):
    """A data set whose images lie in folders or TSV files."""

    images: tuple[str, ...] = option(
        help="folders of the image files, or TSV files of image ids and base64", metavar="DIR|TSV"
    )


@dataclass(frozen=True, kw_only=True)
class DivideOptions:
    """Files of annotations, which may be divided at random and have ids of one another."""

    val_fraction: float | None = option(
        None, "part of the images, at random, for validation", exclusive="split"
    )
    id_prefix: tuple[str, ...] | None = option(
        None, "prefix of the ids of each annotation file; alone: the files' names", empty=True
    )


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Columns that are not called as the task calls them, and boxes in any form."""

    columns: tuple[tuple[str, str], ...] = option(
        (),
        "columns or keys with another name than the task's",
        parse=name_and_value("NAME=COLUMN, such as image=file_name"),
        metavar="NAME=COLUMN",
    )
    box_format: Literal["xyxy", "xywh", "xyxy_norm", "xywh_norm"] = option(
        "xyxy", "corners, or corner, width and height; pixels, or norm: fractions of the image"
    )


def source(options: Any, *kinds: str) -> Callable[[Read], Read]:
    """Declare a kind of ``ofa prepare``: a function of options and problems that reads the data
    set, or several with a manifest each. Its docstring is the help, as of ``action``. Of several
    kinds, it takes the kind first, and KIND in the docstring stands for it."""

    def declare(read: Read) -> Read:
        for kind in kinds:
            run = partial(prepare, kind, partial(read, kind) if len(kinds) > 1 else read)
            texts = (text.replace("KIND", kind) for text in vars(action(read))["texts"])
            _, example, description = texts
            description += EMBEDDED if "images" in options.__dataclass_fields__ else ""
            SOURCES[kind] = options, run, example, description
        return read

    return declare


def prepare(kind: str, read: Callable[[Any, Problems], Any], options: Any) -> None:
    """Read, check and write; print which files were written."""
    problems = Problems(options.skip_broken)
    found = read(options, problems)
    problems.settle()
    given = dataclasses.asdict(options)
    for one in found if isinstance(found, list) else [found]:
        if problems.messages:
            one.counts["entries_left_out"] = len(problems.messages)
        if not one.settings:
            one.settings = {name: given[name] for name in given if name not in UNSETTLED}
        summary(write_dataset(kind, one, options))


def given_splits(options: Any) -> dict[str, str]:
    """The files of the splits that were given. Raises: UserError if there are none."""
    known = {name: getattr(options, name) for name in SPLITS if hasattr(options, name)}
    given = {name: path for name, path in known.items() if path}
    if not given:
        flags = ", ".join(f"--{name}" for name in known)
        raise UserError(f"expected one of {flags}, found none; give at least one")
    return given


def summary(out: ResumableFolder) -> None:
    """Print which files were written, and how many images are not byte for byte the data set's."""
    looks = out.manifest.get("images") or out.manifest.get("pictures", {})  # its earlier name
    turned = looks.get("turned_upright")
    if turned:
        print(
            f"{with_noun(turned, 'image')} turned upright, as EXIF orientation says: PNG, WebP and"
            " TIFF lose nothing, JPEG is encoded again with its own quantization tables"
        )
    for name, entry in out.manifest["files"].items():
        print(
            f"{out.folder / name}: {with_noun(entry['rows'], 'row')}, {entry['bytes'] / 1e6:.1f} MB"
        )
