"""TSV -> WebDataset shards and back: images as image files, the other columns as JSON (see
``ofa.data.shards``).

A shard appears whole, with its index. ``NAME.shards.json`` lists those that are done, with rows,
bytes and SHA-256, and what they were made from: the same call after an interruption continues with
the next one.
"""

import base64
import binascii
import functools
import hashlib
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa.data.rows import Rows, open_rows
from ofa.data.shard_index import open_shard_index
from ofa.data.shards import MANIFEST, NUMBERED, read_manifest
from ofa.data.tsv import TsvFile
from ofa.errors import UserError
from ofa.io.atomic import names_file, replacing
from ofa.io.folder_lock import lock_folder
from ofa.io.paths import LONGEST, delete_below, path_below
from ofa.io.progress import Progress

logger = logging.getLogger(__name__)

MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)
PROBED = 16  # characters of base64 that the beginning of an image takes, at least
ALPHABET = str.maketrans("-_", "+/")
# bytes that a row takes in a tar besides its image: two headers, filling up, the other columns
PER_ROW = 2048


def image_of(cell: str) -> tuple[str, bytes] | None:
    """Suffix and content of an image in base64, either alphabet, with or without padding; None if
    it is no image.

    ``None`` also where base64 of the content is not what the column says: nothing is lost on the
    way back.
    """
    if len(cell) < 2 * PROBED:
        return None
    text = cell.rstrip("=").translate(ALPHABET)
    try:
        head = base64.b64decode(text[:PROBED])
        webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
        kind = (
            "webp"
            if webp
            else next((suffix for magic, suffix in MAGIC if head.startswith(magic)), None)
        )
        if kind is None:
            return None
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return (
        (kind, content) if base64.b64encode(content).decode("ascii").rstrip("=") == text else None
    )


def sample_of(row: int, cells: list[str]) -> dict[str, str | bytes]:
    """A row as the members of a sample, for ``webdataset.TarWriter``."""
    images = {
        column: found for column, cell in enumerate(cells) if (found := image_of(cell)) is not None
    }
    kept = [None if column in images else cell for column, cell in enumerate(cells)]
    members = {
        f"{column}.{kind}" if len(images) > 1 else kind: content
        for column, (kind, content) in images.items()
    }
    return {
        "__key__": f"{row:09d}",
        "json": json.dumps(kept, ensure_ascii=False).encode(),
        **members,
    }


@dataclass
class Shard:
    """A shard that is there. Args: name: of the file. sha256: of its bytes."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Hashed:
    """A file to write to that knows the SHA-256 of what was written."""

    def __init__(self, file):
        self.file, self.digest, self.bytes = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self.file.write(data)


def write_shard(path: str, folder: str, name: str, part: tuple[int, int, int]) -> Shard:
    """Args: path: of the TSV. part: number of the shard, first row, row after the last."""
    from webdataset import TarWriter

    number, start, stop = part
    rows, target = TsvFile(path), Path(folder) / f"{name}-{number:06d}.tar"
    with replacing(target, "wb") as file:
        hashed = Hashed(file)
        with TarWriter(
            hashed, encoder=False, mtime=0, user="ofa", group="ofa", compress=False
        ) as tar:
            for row in range(start, stop):
                tar.write(sample_of(row, rows[row]))
    open_shard_index(target)
    return Shard(target.name, stop - start, hashed.bytes, hashed.digest.hexdigest())


def parts_of(rows: TsvFile, megabytes: float, most_rows: int | None) -> list[tuple[int, int, int]]:
    """(number, first row, row after the last) of each shard. Args: megabytes: of a shard, about;
    unless ``most_rows``."""
    if most_rows:
        bounds = [*range(0, len(rows), most_rows), len(rows)]
    else:
        sizes = np.diff(rows.offsets.astype(np.int64)) * 3 // 4 + PER_ROW
        shard = np.cumsum(sizes) - sizes
        shard //= int(megabytes * 1e6)
        bounds = [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist(), len(rows)]
    return [(number, start, stop) for number, (start, stop) in enumerate(zip(bounds, bounds[1:]))]


def pack(
    path: str,
    out: str,
    name: str,
    megabytes: float = 256.0,
    most_rows: int | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Write the rows of a TSV as shards ``out/NAME-000000.tar``, or the ones that are still
    missing.

    Returns: the manifest. Raises: UserError if the folder holds other shards of this name, or
    another process writes them.
    """
    check_name(out, name)
    rows = TsvFile(path)
    with lock_folder(out, f"{MANIFEST.format(name)}.lock"):
        return _pack(path, rows, Path(out), name, megabytes, most_rows, jobs)


def _pack(
    path: str,
    rows: TsvFile,
    folder: Path,
    name: str,
    megabytes: float,
    most_rows: int | None,
    jobs: int,
) -> dict[str, Any]:
    status = os.stat(path)
    parts = parts_of(rows, megabytes, most_rows)
    plan = {
        "source": os.path.basename(path),
        "source_bytes": status.st_size,
        "source_mtime_ns": status.st_mtime_ns,
        "rows_per_shard": hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16],
    }
    manifest_path = folder / MANIFEST.format(name)
    manifest = begin(manifest_path, plan, folder, name)
    done = {entry["name"]: entry for entry in manifest["shards"]}
    left = [part for part in parts if f"{name}-{part[0]:06d}.tar" not in done]
    with Progress(
        len(rows),
        f"packing {Path(path).name}",
        "rows",
        initial=len(rows) - sum(stop - start for _, start, stop in left),
    ) as progress:
        for shard in _written(
            functools.partial(write_shard, str(path), str(folder), name), left, jobs
        ):
            done[shard.name] = vars(shard)
            save(manifest_path, manifest | {"shards": [done[key] for key in sorted(done)]})
            progress.update(shard.rows)
    manifest |= {
        "shards": [done[key] for key in sorted(done)],
        "rows": len(rows),
        "columns": rows.num_columns,
        "finished": True,
    }
    save(manifest_path, manifest)
    return manifest


def _written(write, parts: list, jobs: int) -> Iterator[Shard]:
    """The shards as they are done, in order, by several processes when there are several."""
    if jobs <= 1 or len(parts) < 2:
        yield from map(write, parts)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(parts))) as pool:
        yield from pool.imap(write, parts)


def begin(manifest_path: Path, plan: dict, folder: Path, name: str) -> dict[str, Any]:
    """The manifest to continue with: that of an interrupted call of the same plan, without shards
    that are gone; else a new one."""
    manifest = read_manifest(manifest_path, name)
    noted = manifest.get("shards", [])
    if manifest.get("plan") == plan:
        kept = [
            entry
            for entry in noted
            if _is_there(path_below(folder, entry["name"], str(manifest_path)), entry["bytes"])
        ]
        return manifest | {"shards": kept, "finished": False}
    known = {entry["name"] for entry in noted}
    others = [
        file.name
        for file in folder.glob("*.tar")
        if file.name not in known and (match := NUMBERED.fullmatch(file.name)) and match[1] == name
    ]
    if others and not manifest.get("plan"):
        raise UserError(
            f"{folder}: expected no shards of the name {name}, found {min(others)} and"
            f" {MANIFEST.format(name)} does not tell what it is; choose another --out or --name, or"
            " remove them"
        )
    delete_below(
        folder,
        (f"{file}{ending}" for file in [*known, *others] for ending in ("", ".idx")),
        (".tar", ".tar.idx"),
        str(manifest_path),
    )
    manifest = {"made_by": "ofa pack", "plan": plan, "finished": False, "shards": []}
    save(manifest_path, manifest)
    return manifest


def check_name(folder: str | Path, name: str) -> None:
    """Raises: UserError if shards cannot be called so."""
    longest = f"{name}-000000.tar.idx"
    if "/" in name or len(longest.encode(errors="surrogateescape")) > LONGEST:
        raise UserError(
            f"--name {name[:60]}: expected a file name of at most"
            f" {LONGEST - len(longest) + len(name)} bytes, found"
            f" {'a path' if '/' in name else 'a longer one'}; give another"
        )
    path_below(folder, longest, "--name")


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def save(path: Path, manifest: dict[str, Any]) -> None:
    with replacing(path) as file:
        json.dump(manifest, file, indent=1)


def unpack(path: str, out: str) -> int:
    """Write the rows of shards as a TSV, or what is missing of it after an interruption.
    Returns: number of rows."""
    rows = open_rows(path)
    with lock_folder(Path(out).parent, f"{Path(out).name}.lock"):
        return _unpack(path, rows, out)


def _unpack(path: str, rows: Rows, out: str) -> int:
    part, plan_path = (
        path_below(Path(out).parent, f"{Path(out).name}{ending}", "--out")
        for ending in (".part", ".part.json")
    )
    plan = [
        [shard, os.path.getsize(shard), os.stat(shard).st_mtime_ns]
        for shard in getattr(rows, "shards", [path])
    ]
    if part.exists() and not plan_path.is_file():
        raise UserError(
            f"{part}: expected no file or one that an interrupted ofa pack left, found another;"
            " move it away, or choose another --out"
        )
    if not (plan_path.is_file() and plan_path.read_bytes() == json.dumps(plan).encode()):
        delete_below(part.parent, [part.name], (".tsv.part",), "ofa pack")
        with replacing(plan_path) as file:
            json.dump(plan, file)
    done = _whole_lines(part)
    if done:
        logger.info("%s: continuing after %d of %d rows", part, done, len(rows))
    with (
        names_file(part),
        open(part, "ab") as file,
        Progress(len(rows), f"writing {Path(out).name}", "rows", initial=done) as progress,
    ):
        for row in range(done, len(rows)):
            # cells have no tabs and line breaks
            file.write("\t".join(rows[row]).encode("utf-8") + b"\n")
            progress.update()
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, out)
    plan_path.unlink(missing_ok=True)
    return len(rows)


def _whole_lines(part: Path) -> int:
    """Number of whole lines of a file that was not finished; half a line at the end is cut off."""
    lines = kept = 0
    if part.is_file():
        with open(part, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    lines, kept = lines + 1, kept + len(line)
        os.truncate(part, kept)
    return lines
