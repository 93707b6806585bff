"""TSV -> WebDataset shards and back: images as image files, the other columns as JSON (see
``ofa.data.shards``).

``NAME.shards.json`` is the manifest of the shards (``ofa.io.resumable``): the same call after an
interruption continues with the next one. So each shard is a file of its own for
``webdataset.TarWriter``: ``ShardWriter`` writes them in one process, and cannot resume.
"""

import base64
import functools
import io
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ofa.data.images import squashed
from ofa.data.rows import open_rows
from ofa.data.shard_index import first_bytes, open_index
from ofa.data.shards import MANIFEST, read_manifest
from ofa.data.tsv import TsvFile
from ofa.errors import UserError, place
from ofa.io.atomic import names_file
from ofa.io.fingerprint import sha256_of
from ofa.io.images import open_image, suffix_of
from ofa.io.jobs import map_by_jobs
from ofa.io.paths import LONGEST, path_below
from ofa.io.progress import counted
from ofa.io.resumable import MANIFEST as FILE_MANIFEST
from ofa.io.resumable import ResumableFolder, fingerprint

SHORTEST = 32  # characters of an image in base64
ALPHABET = str.maketrans("-_", "+/")
# bytes that a row takes in a tar besides its image: two headers, filling up, the other columns
PER_ROW = 2048
QUALITY = 95  # of images that are made smaller: 1 to 2 gray levels off on average
# A box in pixels, as refcoco, grounded questions and detection have them.
BOX = re.compile(r"\s*-?\d+(?:\.\d+)?(?:,-?\d+(?:\.\d+)?){3}(?:,|&&|\s*$)")


def image_of(cell: str) -> tuple[str, bytes] | None:
    """Suffix and content of an image in base64, either alphabet, with or without padding; None if
    it is no image, or base64 of the content is not what the column says: nothing is lost on the
    way back."""
    text = cell.rstrip("=").translate(ALPHABET)
    try:
        suffix = suffix_of(base64.b64decode(text[:SHORTEST], validate=True))
        if suffix is None or len(cell) < SHORTEST:
            return None
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return None
    same = base64.b64encode(content).decode("ascii").rstrip("=") == text
    return (suffix, content) if same else None


def squashed_file(data: bytes, side: int, where: str) -> bytes:
    """A JPEG of the square that a model of this image size sees; of an image that is one the file
    itself. Raises: UserError naming ``where`` if it cannot be read."""
    image = open_image(data, where)
    if image.size == (side, side):
        return data
    file = io.BytesIO()
    squashed(image, side).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def sample_of(
    row: int, cells: list[str], side: int | None = None, where: str = ""
) -> dict[str, str | bytes]:
    """A row as the members of a sample, for ``webdataset.TarWriter``. Args: side: images are
    squashed to it. where: ``file:line``. Raises: UserError for a row that this would change."""
    images = {column: found for column, cell in enumerate(cells) if (found := image_of(cell))}
    if side is not None:
        if box := next(filter(BOX.match, cells), None):
            raise UserError(
                f"{place(where)}--image-size expects rows without boxes, which count the pixels of"
                f" the image as it is, found {box[:40]!r}; pack them without it"
            )
        for column, (_, content) in images.items():
            smaller = squashed_file(content, side, where)
            images[column] = suffix_of(smaller) or "jpg", smaller
    others = [None if column in images else cell for column, cell in enumerate(cells)]
    members: dict[str, str | bytes] = {"__key__": f"{row:09d}"}
    members["json"] = json.dumps(others, ensure_ascii=False).encode()
    for column, (kind, content) in images.items():
        members[f"{column}.{kind}" if len(images) > 1 else kind] = content
    return members


def write_shard(path: str, part: tuple[Path, int, int], side: int | None = None) -> str:
    """Args: path: of the TSV. part: file to write, first row, row after the last. side: images are
    squashed to it. Returns: SHA-256."""
    from webdataset import TarWriter

    target, start, stop = part
    rows = TsvFile(path)
    plain = {"mtime": 0, "user": "ofa", "group": "ofa", "compress": False}
    with names_file(target), open(target, "wb") as file:
        with TarWriter(file, encoder=False, **plain) as tar:
            for row in range(start, stop):
                tar.write(sample_of(row, rows[row], side, rows.where(row)))
        file.flush()
        os.fsync(file.fileno())
    return sha256_of(target)


def first_rows(
    rows: TsvFile, megabytes: float, most_rows: int | None, side: int | None
) -> list[int]:
    """Of the shards."""
    if most_rows:
        return list(range(0, len(rows), most_rows))
    sizes = np.diff(rows.offsets.astype(np.int64)) * 3 // 4 + PER_ROW
    if side is not None:  # four bits a pixel, about
        sizes = np.minimum(sizes, side * side // 2 + PER_ROW)
    shard = (np.cumsum(sizes) - sizes) // int(megabytes * 1e6)
    return [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist()]


def pack(
    path: str,
    out: str,
    name: str,
    megabytes: float = 256.0,
    most_rows: int | None = None,
    jobs: int = 1,
    image_size: int | None = None,
) -> dict[str, Any]:
    """Write the rows of a TSV as shards ``out/NAME-000000.tar``, or the ones that are still
    missing.

    Args: megabytes: of a shard, about; unless ``most_rows``. image_size: side to which images are
        squashed, once for all trainings; the manifest says so.
    Returns: the manifest. Raises: UserError if shards cannot be called so, the folder holds other
    shards of this name, or another process writes them.
    """
    longest = f"{name}-000000.tar.part"
    if path_below(out, longest, "--name") != Path(out, longest) or "/" in name:
        raise UserError(
            f"--name {name[:60]}: expected the name of a file, found a path, or one with which"
            f" shards have names of more than {LONGEST} bytes; give another"
        )
    read_manifest(out, name)  # of others it may name what is not ours
    rows, status = TsvFile(path), os.stat(path)
    starts = first_rows(rows, megabytes, most_rows, image_size)
    spans = itertools.pairwise([*starts, len(rows)])
    parts = {f"{name}-{number:06d}.tar": span for number, span in enumerate(spans)}
    changed = [] if image_size is None else [f"image size {image_size}"]
    plan = fingerprint(os.path.basename(path), status.st_size, status.st_mtime_ns, parts, *changed)
    folder = ResumableFolder(out, plan, "ofa pack", MANIFEST.format(name), (".tar",))
    left = [shard for shard in parts if not folder.is_complete(shard)]
    work = [(folder.begin(shard), *parts[shard]) for shard in left]
    write = functools.partial(write_shard, path, side=image_size)
    written = map_by_jobs(write, work, jobs, few=2, chunk=1)
    for shard, sha256 in zip(left, counted(written, len(left), f"packing {path}", "shards")):
        start, stop = parts[shard]
        folder.complete(shard, stop - start, sha256)
    shards = [str(folder.path(shard)) for shard in parts]
    open_index(shards, first_bytes(shards))
    folder.save_manifest(finished=True, rows=len(rows), columns=rows.num_columns)
    if image_size is not None:
        folder.note(image_size=image_size, images=f"squashed, JPEG of quality {QUALITY}")
    return folder.manifest


def unpack(path: str, out: str) -> int:
    """Write the rows of shards as a TSV, or what is missing of it after an interruption.
    Returns: number of rows."""
    rows, name = open_rows(path), Path(out).name
    status = {file: os.stat(file) for file in rows.files}
    plan = fingerprint([(file, s.st_size, s.st_mtime_ns) for file, s in status.items()])
    folder = ResumableFolder(Path(out).parent, plan, "ofa pack", f"{name}.{FILE_MANIFEST}")

    def lines(done: int) -> Iterator[str]:
        for row in range(done, len(rows)):
            yield "\t".join(rows[row]) + "\n"  # cells have no tabs and line breaks

    folder.write(name, lines, lines=[1] * len(rows))
    folder.save_manifest(finished=True, rows=len(rows))
    return len(rows)
