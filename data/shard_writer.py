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
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ofa.data.rows import open_rows
from ofa.data.shard_index import open_shard_index
from ofa.data.shards import MANIFEST, name_of, read_manifest
from ofa.data.tsv import TsvFile
from ofa.errors import UserError
from ofa.io.atomic import names_file, replacing
from ofa.io.fingerprint import sha256_of
from ofa.io.folder_lock import lock_folder
from ofa.io.paths import LONGEST, delete_below, path_below
from ofa.io.progress import Progress

logger = logging.getLogger(__name__)

MAGIC = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}
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
        kind = next((MAGIC[magic] for magic in MAGIC if head.startswith(magic)), None)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            kind = "webp"
        if kind is None:
            return None
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    same = base64.b64encode(content).decode("ascii").rstrip("=") == text
    return (kind, content) if same else None


def sample_of(row: int, cells: list[str]) -> dict[str, str | bytes]:
    """A row as the members of a sample, for ``webdataset.TarWriter``."""
    images = {column: found for column, cell in enumerate(cells) if (found := image_of(cell))}
    others = [None if column in images else cell for column, cell in enumerate(cells)]
    members: dict[str, str | bytes] = {"__key__": f"{row:09d}"}
    members["json"] = json.dumps(others, ensure_ascii=False).encode()
    for column, (kind, content) in images.items():
        members[f"{column}.{kind}" if len(images) > 1 else kind] = content
    return members


def write_shard(path: str, folder: Path, name: str, part: tuple[int, int, int]) -> dict[str, Any]:
    """Args: path: of the TSV. part: number of the shard, first row, row after the last.
    Returns: its entry in the manifest."""
    from webdataset import TarWriter

    number, start, stop = part
    rows, target = TsvFile(path), folder / f"{name}-{number:06d}.tar"
    with (
        replacing(target, "wb") as file,
        TarWriter(file, encoder=False, mtime=0, user="ofa", group="ofa", compress=False) as tar,
    ):
        for row in range(start, stop):
            tar.write(sample_of(row, rows[row]))
    open_shard_index(target)
    size = target.stat().st_size
    return {"name": target.name, "rows": stop - start, "bytes": size, "sha256": sha256_of(target)}


def parts_of(rows: TsvFile, megabytes: float, most_rows: int | None) -> list[tuple[int, int, int]]:
    """(number, first row, row after the last) of each shard. Args: megabytes: of a shard, about;
    unless ``most_rows``."""
    if most_rows:
        bounds = [*range(0, len(rows), most_rows), len(rows)]
    else:
        sizes = np.diff(rows.offsets.astype(np.int64)) * 3 // 4 + PER_ROW
        shard = (np.cumsum(sizes) - sizes) // int(megabytes * 1e6)
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
    rows, folder = TsvFile(path), Path(out)
    with ExitStack() as stack:
        stack.enter_context(lock_folder(folder, f"{MANIFEST.format(name)}.lock"))
        parts = parts_of(rows, megabytes, most_rows)
        status = os.stat(path)
        plan = {
            "source": os.path.basename(path),
            "source_bytes": status.st_size,
            "source_mtime_ns": status.st_mtime_ns,
            "rows_per_shard": hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16],
        }
        manifest = begin(folder, name, plan)
        done = {entry["name"]: entry for entry in manifest["shards"]}
        left = [part for part in parts if f"{name}-{part[0]:06d}.tar" not in done]
        packed = len(rows) - sum(stop - start for _, start, stop in left)
        what = f"packing {Path(path).name}"
        progress = stack.enter_context(Progress(len(rows), what, "rows", packed))
        write = functools.partial(write_shard, path, folder, name)
        written: Iterator[dict[str, Any]] = map(write, left)
        if jobs > 1 and len(left) > 1:
            pool = multiprocessing.get_context("spawn").Pool(min(jobs, len(left)))
            written = stack.enter_context(pool).imap(write, left)
        for entry in written:
            done[entry["name"]] = entry
            manifest["shards"] = [done[key] for key in sorted(done)]
            save(folder, name, manifest)
            progress.update(entry["rows"])
        manifest |= {"rows": len(rows), "columns": rows.num_columns, "finished": True}
        save(folder, name, manifest)
    return manifest


def begin(folder: Path, name: str, plan: dict) -> dict[str, Any]:
    """The manifest to continue with: that of an interrupted call of the same plan, without shards
    that are gone; else a new one, and the shards of another plan are deleted."""
    where = str(folder / MANIFEST.format(name))
    manifest = read_manifest(folder, name)
    known = {entry["name"]: entry["bytes"] for entry in manifest.get("shards", [])}
    if manifest.get("plan") == plan:
        paths = {shard: path_below(folder, shard, where) for shard in known}
        there = {
            s for s, path in paths.items() if path.is_file() and path.stat().st_size == known[s]
        }
        manifest["shards"] = [entry for entry in manifest["shards"] if entry["name"] in there]
        return manifest | {"finished": False}
    tars = sorted(file.name for file in folder.glob("*.tar"))
    others = [tar for tar in tars if tar not in known and name_of(tar) == name]
    if others and not manifest.get("plan"):
        raise UserError(
            f"{folder}: expected no shards of the name {name}, found {others[0]} and"
            f" {MANIFEST.format(name)} does not tell what it is; choose another --out or --name, or"
            " remove them"
        )
    files = [f"{shard}{ending}" for shard in (*known, *others) for ending in ("", ".idx")]
    delete_below(folder, files, (".tar", ".tar.idx"), where)
    manifest = {"made_by": "ofa pack", "plan": plan, "finished": False, "shards": []}
    save(folder, name, manifest)
    return manifest


def save(folder: Path, name: str, manifest: dict[str, Any]) -> None:
    with replacing(folder / MANIFEST.format(name)) as file:
        json.dump(manifest, file, indent=1)


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


def unpack(path: str, out: str) -> int:
    """Write the rows of shards as a TSV, or what is missing of it after an interruption.
    Returns: number of rows."""
    rows, folder, name = open_rows(path), Path(out).parent, Path(out).name
    with lock_folder(folder, f"{name}.lock"):
        part, plan_path = (
            path_below(folder, f"{name}{ending}", "--out") for ending in (".part", ".part.json")
        )
        status = {shard: os.stat(shard) for shard in getattr(rows, "shards", [path])}
        plan = json.dumps([[shard, s.st_size, s.st_mtime_ns] for shard, s in status.items()])
        if part.exists() and not plan_path.is_file():
            raise UserError(
                f"{part}: expected no file or one that an interrupted ofa pack left, found another;"
                " move it away, or choose another --out"
            )
        if not (plan_path.is_file() and plan_path.read_bytes() == plan.encode()):
            delete_below(folder, [part.name], (".tsv.part",), "ofa pack")
            with replacing(plan_path) as file:
                file.write(plan)
        done = _whole_lines(part)
        if done:
            logger.info("%s: continuing after %d of %d rows", part, done, len(rows))
        with (
            names_file(part),
            open(part, "ab") as file,
            Progress(len(rows), f"writing {name}", "rows", initial=done) as progress,
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
