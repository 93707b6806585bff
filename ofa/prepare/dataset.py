"""What a data set holds, before any image is opened, and how it is written."""

import hashlib
import itertools
import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.fingerprint import sha256_of
from ofa.io.image_files import ImageFile, file_state, look_at_all, name_broken
from ofa.io.resumable import MANIFEST, fingerprint
from ofa.io.terminal import with_noun
from ofa.io.values import Ids
from ofa.prepare import tsv_writer
from ofa.prepare.annotations import Problems
from ofa.prepare.tsv_writer import CaptionedImage, Group, PreparedFolder

logger = logging.getLogger(__name__)

VERSION = 2  # of the rows that are made from the same data set

# Rows of a file of texts alone. It is read twice: once to find what is wrong, once to be written.
Reader = Callable[[Problems], Iterator[Sequence[str]]]


@dataclass
class PreparedDataset:
    """The rows of a data set.

    Args:
        files: file name -> groups of rows, images as paths. readers: the same of texts alone.
        inputs: the annotation files that were read.
        settings: what else decides the content; empty: all options of the command.
        counts: figures for the manifest. manifest: its name.
        texts: further small files: name -> (content, entries).
        sizes: image path -> (width, height) that the annotations state; an image of another size
            is refused.
        images_of, caption_files: as ``add_captions`` has them.
    """

    files: dict[str, list[Group]] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)
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
        self.files[name] = [
            Group(path, tuple(tuple(columns) for _, columns in some))
            for path, some in itertools.groupby(rows, key=itemgetter(0))
        ]
        self.counts[counted_as] = len(rows)

    def add_captions(
        self, splits: Mapping[str, list[CaptionedImage]], name: str = "caption"
    ) -> None:
        """The files of captioning. Args: splits: images of train, val and test. name: how those
        with images begin. Raises: UserError for an image, or its id, that is not of one place."""
        split_of: dict[Any, str] = {}
        ids = Ids(
            "image",
            "each image may stand in one split only, under an id of its own (--id-prefix, or a"
            " column image_id)",
        )
        for split, images in splits.items():
            for one in images:
                ids.add(one.image_id, f"{split} ({one.source})")
                if split_of.setdefault(one.source, split) != split:
                    raise UserError(
                        f"{one.source}: expected an image in one split, found it in"
                        f" {split_of[one.source]} and in {split}, there as image {one.image_id};"
                        " remove it from one of them"
                    )
        self.images_of, self.caption_files = splits, name

    def image_paths(self) -> list[str]:
        """Every image once, in order of the path."""
        paths = {path for groups in self.files.values() for group in groups for path in group.paths}
        return sorted(paths.union(one.source for some in self.images_of.values() for one in some))

    def named(self) -> str:
        """What was read, for messages."""
        return ", ".join(self.inputs[:3])


def label_text(labels: Mapping[str, int]) -> tuple[str, int]:
    """A label file as JSON, and its number of entries."""
    return json.dumps(labels, ensure_ascii=False, indent=0) + "\n", len(labels)


def split_at_random(
    items: Sequence[Any], keys: Sequence[Any], val: float, seed: int, test: float = 0.0
) -> dict[str, list]:
    """Parts for ``train``, ``val`` and ``test``, the same each time; what shares a key (its image)
    stays together. Args: val, test: fractions of the keys, rounded, at least one unless 0."""
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


def write_dataset(kind: str, found: PreparedDataset, options: Any) -> PreparedFolder:
    """Write the files, or continue an interrupted call; nothing is written if an image or a row
    is broken. Args: kind: as in ``ofa prepare KIND``. options: ``out``, ``skip_broken``, ``jobs``.
    Raises: UserError that names the unusable images or rows."""
    paths, skip_broken, jobs = found.image_paths(), options.skip_broken, getattr(options, "jobs", 1)
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
    plan = fingerprint(kind, VERSION, inputs, found.settings, skip_broken, content)
    out = PreparedFolder(options.out, plan, f"ofa prepare {kind}", manifest=found.manifest)
    if out.is_finished():
        logger.info("%s: already complete", out.folder)
        return out
    skipped_rows = check_readers(found, skip_broken)
    facts: dict[str, Any] = {"settings": found.settings, "inputs": inputs}
    if paths and "left_out" not in out.manifest:  # else an interrupted call has looked already
        facts |= look_at_images(found, paths, skip_broken, jobs, Path(f"{out.folder}.looking"))
    out.note(**facts)
    left_out = out.manifest.get("left_out", {})
    if left_out:
        logger.warning("%s skipped: %s", with_noun(len(left_out), "image"), name_broken(left_out))
    write_files(found, out, left_out, jobs)
    skipped = {"images_left_out": len(left_out)} if paths else {}
    skipped |= {"rows_left_out": skipped_rows} if found.readers else {}
    out.save_manifest(True, **skipped, **found.counts)
    return out


def write_files(
    found: PreparedDataset, out: PreparedFolder, left_out: Mapping[str, str], jobs: int
) -> None:
    """All files, without the images that are left out."""
    embedded = tsv_writer.base64_of_file
    if found.images_of:
        splits = {
            split: [image for image in images if image.source not in left_out]
            for split, images in found.images_of.items()
        }
        if not splits["train"]:
            raise UserError(f"{found.named()}: no image with a caption for training")
        tsv_writer.write_caption_files(out, splits, embedded, jobs, found.caption_files)
    for name, groups in found.files.items():
        kept = [group for group in groups if left_out.keys().isdisjoint(group.paths)]
        out.embed(name, kept, embedded, jobs)
    for name, read in found.readers.items():
        out.write_lines(name, map("\t".join, read(Problems(skip=True))))
    for name, (content, entries) in found.texts.items():
        out.write_text(name, content, entries)


def check_readers(found: PreparedDataset, skip_broken: bool) -> int:
    """Read all rows of texts once. Returns: how many are skipped."""
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
    """What the manifest says of the images; SHA-256 is over those of the images, in order of the
    path. Raises: UserError for unusable ones, unless they are to be skipped."""
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
    return {"images": looks, "left_out": broken}


def fault_of(image: ImageFile, stated: tuple[int, int] | None) -> str:
    """Why an image cannot be used, or an empty text. Args: stated: size in the annotations."""
    if image.broken or stated in (None, image.size, image.stored_size):
        return image.broken
    return (
        f"{image.size[0]} x {image.size[1]} pixels, but the annotations say {stated[0]} x"
        f" {stated[1]}: was it resized?"
    )
