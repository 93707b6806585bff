"""Rows with their images embedded, written through ``ofa.io.resumable``; the files of captions.

391895_0 <tab> 391895 <tab> a man on a red motorcycle <tab> <tab> /9j/4AAQSkZJRgABAQ...
uniq-id        image-id     caption, captions joined by &&   objects (empty)   image in base64
"""

import functools
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.io.image_files import read_image
from ofa.io.images import encode_image, upright_file
from ofa.io.jobs import map_by_jobs
from ofa.io.resumable import ResumableFolder
from ofa.io.values import one_line
from ofa.task.text import JOIN, without_join

logger = logging.getLogger(__name__)

CAPTION_KINDS = {0: "id", 2: "texts", 4: "image"}  # column -> kind, as in the example
IMAGE = "\0image"  # stands in a row where the image's base64 goes


class ImagePath(str):
    """A cell for a further image of the row: the path of its file."""


@dataclass(frozen=True)
class Group:
    """Rows in a row that show the same image. Args: source: what its base64 text is made from.
    rows: their columns, ``IMAGE`` for the image, ``ImagePath`` for a further one."""

    source: Any
    rows: tuple[tuple[str, ...], ...]

    def block(self, image: str) -> str:
        """The rows as they stand in the file."""
        return "".join(
            "\t".join(cell_text(cell, image) for cell in row) + "\n" for row in self.rows
        )

    @property
    def paths(self) -> list[str]:
        """All images that it needs."""
        further = (cell for row in self.rows for cell in row if isinstance(cell, ImagePath))
        return [self.source, *further]


def cell_text(cell: str, image: str) -> str:
    """The text of a cell. Args: image: the group's, in base64."""
    if isinstance(cell, ImagePath):
        return base64_of_file(cell)
    return image if cell == IMAGE else cell


def base64_of_file(path: str) -> str:
    """Its bytes as they are, or turned where its EXIF orientation says so (``upright_file``)."""
    return encode_image(upright_file(read_image(path), path))


class PreparedFolder(ResumableFolder):
    """The output folder of a preparation, whose files hold images."""

    def write_groups(
        self, name: str, groups: Sequence[Group], images: Callable[[int], Iterator[str]]
    ) -> None:
        """A file of rows. Args: images: base64 texts of the groups' images from a group on."""
        lines = [len(group.rows) for group in groups]
        self.write(name, lambda done: map(Group.block, groups[done:], images(done)), lines, "img")

    def embed(
        self, name: str, groups: Sequence[Group], encode: Callable[[Any], str], jobs: int
    ) -> None:
        """A file of rows. Args: encode: source of a group -> base64 text, by ``jobs`` processes."""
        sources = [group.source for group in groups]
        self.write_groups(name, groups, lambda done: map_by_jobs(encode, sources[done:], jobs))


def last_column(path: Path, first: int = 0) -> Iterator[str]:
    """The images of a complete file, one per row, from a row on."""
    with open(path, encoding="ascii", errors="replace") as file:
        for line in itertools.islice(file, first, None):
            yield line.rstrip("\n").rpartition("\t")[2]


# --------------------------------------------------------------------------------- captions


@dataclass(frozen=True)
class CaptionedImage:
    """An image, its captions, and what its base64 text is made from."""

    image_id: str
    captions: tuple[str, ...]
    source: Any

    def group(self, row_per_caption: bool = False) -> Group:
        """Its rows in a caption file."""
        texts = {self.image_id: JOIN.join(self.captions)}
        if row_per_caption:
            texts = {f"{self.image_id}_{i}": text for i, text in enumerate(self.captions)}
        rows = ((uniq_id, self.image_id, text, "", IMAGE) for uniq_id, text in texts.items())
        return Group(self.source, tuple(rows))


@dataclass
class CaptionCleaner:
    """Makes captions fit for a TSV and counts what it had to change."""

    cleaned: int = 0
    empty: int = 0

    def __call__(self, caption: str) -> str:
        """One line without tabs and without ``&&``; empty if nothing is left."""
        text = one_line(caption)
        self.cleaned += any(mark in caption.strip() for mark in "\t\r\n\v\f\x85\u2028\u2029")
        self.cleaned += JOIN in text
        self.empty += not text
        return without_join(text)

    def counts(self) -> dict[str, int]:
        """For the manifest; logged as well."""
        message = "captions: %d cleaned of tabs, line breaks or '%s', %d empty ones skipped"
        logger.info(message, self.cleaned, JOIN, self.empty)
        return {"captions_cleaned": self.cleaned, "captions_empty": self.empty}


def coco_reference(images: Sequence[CaptionedImage]) -> str:
    """The captions as a COCO annotation file, with the image ids as strings, as in the TSV."""
    pairs = [(one.image_id, caption) for one in images for caption in one.captions]
    annotations = [
        {"id": number, "image_id": image_id, "caption": caption}
        for number, (image_id, caption) in enumerate(pairs)
    ]
    ids = [{"id": one.image_id} for one in images]
    content = {"type": "captions", "info": {}, "licenses": [], "images": ids}
    return json.dumps(content | {"annotations": annotations}, ensure_ascii=False) + "\n"


def write_caption_files(
    out: PreparedFolder,
    splits: Mapping[str, Sequence[CaptionedImage]],
    encode: Callable[[Any], str],
    jobs: int,
    name: str = "caption",
) -> None:
    """All files of a captioning data set: both training stages, evaluation splits, references,
    plain captions. Args: name: how those with images begin."""
    lines = [caption for one in splits["train"] for caption in one.captions]
    counts = {f"{split}_images": len(images) for split, images in splits.items()}
    out.save_manifest(False, **counts, train_captions=len(lines))
    for split, images in splits.items():
        file = f"{name}_stage2_train.tsv" if split == "train" else f"{name}_{split}.tsv"
        if images:
            out.embed(file, [one.group() for one in images], encode, jobs)
        if split == "train":
            rows = [one.group(row_per_caption=True) for one in images]
            again = functools.partial(last_column, out.folder / file)
            out.write_groups(f"{name}_stage1_train.tsv", rows, again)
        elif any(one.captions for one in images):
            out.write_text(f"{split}_{name}_coco_format.json", coco_reference(images), len(images))
    out.write_text("captions.txt", "".join(f"{line}\n" for line in lines), len(lines))
