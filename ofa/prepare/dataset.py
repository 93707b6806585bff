"""What a data set holds, before any image is opened, and how it is written: plan, check of every
image, files, manifest."""

import hashlib
import json
import logging
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.fingerprint import sha256_of
from ofa.io.image_files import ImageFile, file_state, look_at_all, name_broken
from ofa.io.resumable import MANIFEST, fingerprint
from ofa.io.values import RowError, in_fractions
from ofa.prepare.annotations import Problems
from ofa.prepare.tsv_writer import (
    CaptionedImage,
    Group,
    PreparedFolder,
    base64_of_file,
    write_caption_files,
)

logger = logging.getLogger(__name__)

VERSION = 2  # of the rows that are made from the same data set
# pixels by which annotated boxes may leave the image (COCO's do, by rounding): they are clipped
BEYOND = 1.0

# Rows of a file of texts alone. It is read twice: once to find what is wrong, once to be written.
Reader = Callable[[Problems], Iterator[Sequence[str]]]


@dataclass
class PreparedDataset:
    """The rows of a data set.

    Args:
        files: file name -> groups of rows, images as paths. readers: the same of texts alone.
        inputs: the annotation files that were read.
        settings: what else decides the content; None: all options of the command.
        counts: figures for the manifest. texts: further small files: name -> (content, entries).
        sizes: image path -> (width, height) that the annotations state; an image of another size
            is refused.
        images_of: split -> images with captions, for captioning. caption_files: how their names
            begin.
        manifest: its name.
    """

    files: dict[str, list[Group]] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    settings: dict[str, Any] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, tuple[str, int]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    images_of: Mapping[str, list[CaptionedImage]] = field(default_factory=dict)
    caption_files: str = "caption"
    manifest: str = MANIFEST

    def add_rows(
        self, name: str, rows: Sequence[tuple[str, Sequence[str]]], counted_as: str
    ) -> None:
        """A file. Args: rows: (image path, columns) in order; neighbors may share their image.
        counted_as: name of their number in the manifest."""
        groups: list[tuple[str, list]] = []
        for path, columns in rows:
            if not groups or groups[-1][0] != path:
                groups.append((path, []))
            groups[-1][1].append(tuple(columns))
        self.files[name] = [Group(path, tuple(columns)) for path, columns in groups]
        self.counts[counted_as] = len(rows)

    def image_paths(self) -> list[str]:
        """Every image once, in order of the path."""
        paths = {path for groups in self.files.values() for group in groups for path in group.paths}
        paths.update(image.source for images in self.images_of.values() for image in images)
        return sorted(paths)

    def named(self) -> str:
        """What was read, for messages."""
        return ", ".join(self.inputs[:3])


def label_text(labels: Mapping[str, int]) -> tuple[str, int]:
    """A label file as JSON, and its number of entries."""
    return json.dumps(labels, ensure_ascii=False, indent=0) + "\n", len(labels)


def split_at_random(
    items: Sequence[Any], keys: Sequence[Any], val: float, seed: int, test: float = 0.0
) -> dict[str, list]:
    """``train``, ``val`` and ``test`` parts; what shares a key (its image) stays together; the
    same each time.

    Args: val, test: fractions of the keys, rounded, at least one unless 0. Raises: UserError if
    none would be left for training.
    """
    order = sorted(set(keys))
    counts = [max(1, round(part * len(order))) if part else 0 for part in (val, test)]
    if not (0 <= val < 1 and 0 <= test < 1) or sum(counts) >= len(order):
        both = f" --test-fraction {test}" if test else ""
        raise UserError(
            f"--val-fraction {val}{both}: expected a fraction between 0 and 1 that leaves images"
            f" for training, found {len(order)} images in all; choose another, for example 0.1"
        )
    random.Random(seed).shuffle(order)
    part_of = dict.fromkeys(order, "train") | dict.fromkeys(order[: sum(counts)], "test")
    part_of |= dict.fromkeys(order[: counts[0]], "val")
    return {
        part: [item for item, key in zip(items, keys) if part_of[key] == part]
        for part in ("train", "val", "test")
    }


# ------------------------------------------------------------------------------------- boxes


def box_cell(box: Sequence[float], size: tuple[int, int]) -> str:
    """``[10, 20.126, 30, 40]`` -> ``"10.0,20.13,30.0,40.0"``; overhang of a pixel is clipped.

    Args: box: xyxy in pixels. size: width and height of the image. Raises: RowError.
    """
    found = ",".join(f"{number:g}" for number in box)
    if not all(math.isfinite(number) for number in box):
        raise RowError(f"a box of numbers, found {found}")
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise RowError(f"a box with x0 < x1 and y0 < y1, found {found} (turned round or empty)")
    if max(size) > 1:
        refuse_fractions(box)
    width, height = size
    inside = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    overhang = max(-x0, -y0, x1 - width, y1 - height)
    if overhang > BEYOND or inside[2] <= inside[0] or inside[3] <= inside[1]:
        raise RowError(f"a box inside the image of {width} x {height} pixels, found {found}")
    return ",".join(repr(round(float(number), 2)) for number in inside)


def refuse_fractions(box: Sequence[float]) -> None:
    """Raises: RowError for a box of numbers up to 1 where pixels are expected."""
    if in_fractions(box):
        raise RowError(
            f"a box in pixels, found {','.join(f'{number:g}' for number in box)}: less than one"
            " pixel; are these fractions of the image? --box-format of csv and jsonl takes them"
        )


# ----------------------------------------------------------------------------------- writing


def write_dataset(
    kind: str,
    found: PreparedDataset,
    settings: Mapping[str, Any],
    out: str,
    skip_broken: bool,
    jobs: int,
) -> PreparedFolder:
    """Write the files, or continue an interrupted call; nothing is written if an image or a row
    is broken.

    Args: kind: as in ``ofa prepare KIND``. settings: what decides the content besides the files.
        skip_broken: leave out what is unusable instead of stopping. jobs: processes.
    Raises: UserError that names the unusable images or rows.
    """
    paths = found.image_paths()
    if not paths and not found.readers:
        raise UserError(f"{found.named()}: no row to write; are these the right files?")
    inputs = {
        path: {"bytes": os.path.getsize(path), "sha256": sha256_of(path)} for path in found.inputs
    }
    images = [file_state(path) for path in paths]
    rows = [[(group.source, group.rows) for group in groups] for groups in found.files.values()]
    captions = [[vars(image) for image in images] for images in found.images_of.values()]
    names = [*found.files, *found.readers, *found.images_of]
    content = (names, rows, captions, found.texts, images)
    plan = fingerprint(kind, VERSION, inputs, settings, skip_broken, content)
    folder = PreparedFolder(out, plan, f"ofa prepare {kind}", manifest=found.manifest)
    if folder.is_finished():
        logger.info("%s: already complete", folder.folder)
        return folder
    skipped_rows = check_readers(found, skip_broken)
    facts: dict[str, Any] = {"settings": settings, "inputs": inputs}
    if paths and "left_out" not in folder.manifest:  # else an interrupted call has looked already
        facts |= look_at_images(found, paths, skip_broken, jobs, Path(f"{folder.folder}.looking"))
    folder.note(**facts)
    left_out = folder.manifest.get("left_out", {})
    if left_out:
        logger.warning("%d images skipped: %s", len(left_out), name_broken(left_out))
    write_files(found, folder, left_out, jobs)
    skipped = {"images_left_out": len(left_out)} if paths else {}
    skipped |= {"rows_left_out": skipped_rows} if found.readers else {}
    folder.save_manifest(True, **skipped, **found.counts)
    return folder


def write_files(
    found: PreparedDataset, folder: PreparedFolder, left_out: Mapping[str, str], jobs: int
) -> None:
    """All files, without the images that are left out."""
    if found.images_of:
        splits = {
            split: [image for image in images if image.source not in left_out]
            for split, images in found.images_of.items()
        }
        if not splits["train"]:
            raise UserError(f"{found.named()}: no image with a caption for training")
        write_caption_files(folder, splits, base64_of_file, jobs, found.caption_files)
    for name, groups in found.files.items():
        kept = [group for group in groups if left_out.keys().isdisjoint(group.paths)]
        folder.embed(name, kept, base64_of_file, jobs)
    for name, read in found.readers.items():
        folder.write_lines(name, map("\t".join, read(Problems(skip=True))))
    for name, (content, entries) in found.texts.items():
        folder.write_text(name, content, entries)


def check_readers(found: PreparedDataset, skip_broken: bool) -> int:
    """Read all rows of texts once. Returns: how many are skipped. Raises: UserError that names
    wrong rows, or a file without any."""
    problems = Problems(skip_broken)
    counts = {name: sum(1 for _ in read(problems)) for name, read in found.readers.items()}
    problems.settle()
    for name, count in counts.items():
        if not count:
            raise UserError(
                f"{found.named()}: expected rows for {name}, found none; are these the right files?"
            )
    return len(problems.messages)


def look_at_images(
    found: PreparedDataset, paths: Sequence[str], skip_broken: bool, jobs: int, notes: Path
) -> dict[str, Any]:
    """What the manifest says of the images: number, bytes and one SHA-256 (over the images' own,
    in order of the path) of those used, how many are turned, and which are unusable and why.

    Raises: UserError for unusable ones, unless they are to be skipped.
    """
    looked = look_at_all(paths, jobs, notes)
    faults = {path: fault_of(image, found.sizes.get(path)) for path, image in looked.items()}
    broken = {path: fault for path, fault in faults.items() if fault}
    if broken and not skip_broken:
        raise UserError(
            f"{found.named()}: {len(broken)} of the images cannot be used:"
            f" {name_broken(broken)}. Fix them, or skip them with --skip-broken"
        )
    used = [image for path, image in looked.items() if path not in broken]
    looks = {
        "files": len(used),
        "bytes": sum(image.num_bytes for image in used),
        "sha256": hashlib.sha256("".join(image.sha256 for image in used).encode()).hexdigest(),
        "turned_upright": sum(image.orientation != 1 for image in used),
    }
    return {"pictures": looks, "left_out": broken}


def fault_of(image: ImageFile, stated: tuple[int, int] | None) -> str:
    """Why an image cannot be used, or an empty text. Args: stated: size in the annotations."""
    if image.broken or stated in (None, image.size, image.stored_size):
        return image.broken
    return (
        f"{image.size[0]} x {image.size[1]} pixels, but the annotations say {stated[0]} x"
        f" {stated[1]}: was it resized?"
    )
