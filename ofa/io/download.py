"""Files that others publish, into a folder: resumed, checked, and never half there.

Each file is downloaded to ``NAME.part`` (continued where an interruption left it), or copied there
from a folder, compared with its sha256 sum where one is known, and only then renamed.
"""

import email.utils
import http.client
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ofa.errors import UserError
from ofa.io.fingerprint import sha256_of
from ofa.io.folder_lock import lock_folder
from ofa.io.paths import path_below
from ofa.io.progress import Progress
from ofa.io.terminal import in_units

logger = logging.getLogger(__name__)

TIMEOUT = 30  # seconds without an answer
BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class PublishedFiles:
    """Files that lie in one place."""

    name: str  # by which a command knows them
    command: str  # that fetches them, for messages
    title: str  # of one of them, for messages
    url: str  # where they lie
    sums: Mapping[str, str | None]  # file name -> sha256; None: nobody publishes it
    kept_in: str  # who has them as well
    otherwise: str = ""  # what to do without them
    first_bytes: tuple[bytes, ...] = ()  # with one of these begins a file without a sum
    largest: int = 16 << 20  # bytes of a file: no server fills the disk


def fetch(
    public: PublishedFiles,
    folder: str | Path,
    source: str | None = None,
    made: Mapping[str, Callable[[], bytes]] | None = None,
) -> list[str]:
    """Put published files into a folder. Returns: those that were missing.

    Args: source: address of a mirror, or a local folder that has the files. made: what makes the
    content of a file that the source lacks.
    Raises: UserError if a file of another content is there, the source cannot be reached (with what
    to copy where), or what came is damaged.
    """
    folder, source, made = Path(folder), source or public.url, made or {}
    is_new = not folder.exists()
    missing = [file for file in public.sums if not (folder / file).exists()]
    for file, expected in public.sums.items():
        if file not in missing and expected and sha256_of(folder / file) != expected:
            raise UserError(
                f"{folder / file}: expected {public.title} (sha256 {expected[:12]}...), "
                "found another one; remove it, or choose another --out"
            )
    try:
        # another process would append to the same part
        with lock_folder(folder, f"{public.name}.lock") if missing else nullcontext():
            for file in missing:
                part = path_below(folder, f"{file}.part", "--out")
                try:
                    if file in made:
                        part.write_bytes(made[file]())
                    elif "://" not in source:
                        _copy(Path(source), file, part)
                    else:
                        download(f"{source.rstrip('/')}/{file}", part, public.largest)
                except (OSError, ValueError, http.client.HTTPException) as error:
                    raise UserError(_offline(public, folder, source, missing, error)) from error
                _check(public, file, part, source)
                os.replace(part, folder / file)
                logger.info("%s: complete", folder / file)
    finally:
        if is_new and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    return missing


def _copy(source: Path, file: str, part: Path) -> None:
    """A file of a local folder. Raises: OSError."""
    if not source.is_dir():
        raise OSError("a file, no folder" if source.exists() else "no such folder")
    if not (source / file).is_file():
        raise OSError(f"the folder holds no {file}")
    shutil.copyfile(source / file, part)


def _check(public: PublishedFiles, file: str, part: Path, source: str) -> None:
    """Removes a download that is not the file asked for. Raises: UserError."""
    expected = public.sums[file]
    if expected:
        wrong = sha256_of(part) != expected
        words = f"sha256 {expected}, found a file with another one"
    else:
        with open(part, "rb") as content:
            start = content.read(16)
        wrong = bool(public.first_bytes) and not start.startswith(public.first_bytes)
        words = f"{public.title}, found a file that begins with {start!r}"
    if wrong:
        part.unlink()
        raise UserError(
            f"{source}/{file}: expected {words} (the copy is removed); start again, or take a"
            " mirror with --source"
        )


def _offline(
    public: PublishedFiles, folder: Path, source: str, missing: list[str], error: Exception
) -> str:
    addresses = ", ".join(f"{public.url}/{file}" for file in missing)
    if "://" not in source:
        return (
            f"{source}: expected a folder with {', '.join(missing)}, found: {error}; name one that"
            f" has them by --source ({public.kept_in}), or download {addresses}"
        )
    again = ", then run this again: it checks the copies" * all(map(public.sums.get, missing))
    return (
        f"{source}: cannot be read ({getattr(error, 'reason', None) or error}). Without a"
        f" connection: copy {', '.join(missing)} to {folder.resolve()} from a machine that has them"
        f" ({public.kept_in}; elsewhere download {addresses}){again}. Or name a folder that has"
        f" them: {public.command} --source FOLDER --out {folder}.{public.otherwise}"
    )


def download(url: str, part: Path, largest: int) -> None:
    """Download to ``part``, continuing from the bytes that are there if the server can.

    Raises: OSError if the server cannot be reached, ends early, sends more than ``largest`` bytes
    or more than the disk holds; HTTPException, ValueError.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {}
    if have:
        since = email.utils.formatdate(part.stat().st_mtime, usegmt=True)
        headers = {"Range": f"bytes={have}-", "If-Unmodified-Since": since}
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to download
        if error.code == http.client.PRECONDITION_FAILED and have:  # another file since then
            part.unlink()
            return download(url, part, largest)
        raise
    with answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            have = 0
        left = answer.headers.get("Content-Length")
        total = have + int(left) if left else None
        free = shutil.disk_usage(part.parent).free
        if left and int(left) > free:
            raise OSError(f"{in_units(int(left))} are left, the disk has {in_units(free)}")
        progress = Progress(total or largest, part.stem, "B", have, scaled=True)
        with open(part, "ab" if have else "wb") as file, progress:
            while block := answer.read(BLOCK):
                have += len(block)
                if have > largest:
                    raise OSError(f"more than {largest} bytes; it is not the file asked for")
                file.write(block)
                progress.update(len(block))
    if total is not None and have < total:
        raise OSError(f"connection closed after {have} of {total} bytes; run it again to continue")
