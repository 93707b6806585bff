"""From the rows that a source has found to the files: plan, check of every image, writing,
manifest."""

import hashlib
import logging
import os
from pathlib import Path

from ofa.errors import UserError
from ofa.io.image_files import ImageFile, file_state, look_at_all, name_broken
from ofa.io.resumable import fingerprint
from ofa.prepare.prepared_dataset import PreparedDataset
from ofa.prepare.tsv_writer import PreparedFolder, base64_of_file, write_caption_files

logger = logging.getLogger(__name__)


def prepare(
    found: PreparedDataset, out: str, jobs: int, skip_broken: bool = False
) -> PreparedFolder:
    """Write the files of a data set, or continue an interrupted call; nothing is written if an
    image is broken.

    Args: jobs: processes. skip_broken: leave rows of unusable images out instead of stopping.
    Raises: UserError that names the unusable images.
    """
    paths = found.image_paths()
    if not paths:
        raise UserError(f"{', '.join(found.inputs)}: no row to write; are these the right files?")
    inputs = {
        path: {"bytes": os.path.getsize(path), "sha256": sha256_of(path)} for path in found.inputs
    }
    plan = fingerprint(
        found.kind,
        "upright",
        inputs,
        found.settings,
        found.texts,
        [file_state(path) for path in paths],
        skip_broken,
        {
            name: [(group.source, group.rows) for group in groups]
            for name, groups in found.files.items()
        },
        {
            split: [(p.image_id, p.captions, p.source) for p in images]
            for split, images in found.images_of.items()
        },
    )
    folder = PreparedFolder(out, plan, f"ofa prepare {found.kind}")
    if folder.is_finished():
        logger.info("%s: already complete", folder.folder)
        return folder
    if (
        "left_out" not in folder.manifest
    ):  # otherwise an interrupted call has looked at them already
        looked = look_at_all(paths, jobs, Path(f"{folder.folder}.looking"))
        broken = broken_ones(looked, found.sizes)
        if broken and not skip_broken:
            raise UserError(
                f"{', '.join(found.inputs)}: {len(broken)} of the images cannot be used:"
                f" {name_broken(broken)}. Fix them, or skip them with --skip-broken"
            )
        folder.make()
        folder.note(
            settings=found.settings,
            inputs=inputs,
            pictures=summary(looked, broken),
            left_out=broken,
        )
    if folder.manifest["left_out"]:
        logger.warning(
            "%d images skipped: %s",
            len(folder.manifest["left_out"]),
            name_broken(folder.manifest["left_out"]),
        )
    write(found, folder, jobs)
    return folder


def write(found: PreparedDataset, folder: PreparedFolder, jobs: int) -> None:
    """All files, without the images that are left out."""
    left_out = folder.manifest["left_out"]
    if found.images_of:
        splits = {
            split: [p for p in images if p.source not in left_out]
            for split, images in found.images_of.items()
        }
        if not splits["train"]:
            raise UserError(f"{', '.join(found.inputs)}: no image with a caption for training")
        write_caption_files(folder, splits, base64_of_file, jobs)
    for name, groups in found.files.items():
        kept = [group for group in groups if left_out.keys().isdisjoint(group.paths)]
        folder.embed(name, kept, base64_of_file, jobs)
    for name, (content, entries) in found.texts.items():
        folder.write_text(name, content, entries)
    folder.save_manifest(finished=True, images_left_out=len(left_out), **found.counts)


def broken_ones(looked: dict[str, ImageFile], sizes: dict[str, tuple[int, int]]) -> dict[str, str]:
    """Path -> why it cannot be used."""
    broken = {}
    for path, image in looked.items():
        if image.broken:
            broken[path] = image.broken
        elif sizes.get(path, image.size) not in (image.size, image.stored_size):
            wide, high = sizes[path]
            broken[path] = (
                f"{image.size[0]} x {image.size[1]} pixels, but the annotations say {wide} x"
                f" {high}: was it resized?"
            )
    return broken


def summary(looked: dict[str, ImageFile], broken: dict[str, str]) -> dict:
    """Number, bytes and one SHA-256 (over the images' own, in order of the path) of the
    images used; how many are turned."""
    used = [image for path, image in looked.items() if path not in broken]
    digest = hashlib.sha256("".join(image.sha256 for image in used).encode()).hexdigest()
    return {
        "files": len(used),
        "bytes": sum(image.num_bytes for image in used),
        "sha256": digest,
        "turned_upright": sum(image.orientation != 1 for image in used),
    }


def sha256_of(path: str) -> str:
    """SHA-256 of a file. Raises: UserError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
