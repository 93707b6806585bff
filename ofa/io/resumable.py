"""Folders that many rows are written to: a manifest lists what is complete, and the same call
resumes after an interruption::

    out = ResumableFolder("out", fingerprint(what, decides, the, content), "ofa prepare vqa2")
    if not out.is_finished():
        out.write("a.tsv", lambda done: blocks[done:], lines=[2, 1])
        out.save_manifest(finished=True, rows=3)

A call with the same plan keeps complete files and continues ``NAME.part`` after its last whole
block; with another plan it starts over. Files of others are neither overwritten nor deleted.
"""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.atomic import FULL, names_file, replacing
from ofa.io.folder_lock import FolderLock, lock_folder
from ofa.io.json_files import load_json
from ofa.io.paths import delete_below, path_below
from ofa.io.progress import Progress

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PART = ".part"
LISTED_TOGETHER = 256
MOST_NAMES = 200  # characters of the names in a message
ENDINGS = (".tsv", ".txt", ".json", ".jsonl")
KINDS = {"plan": str, "finished": bool, "counts": dict, "files": dict, "begun": list}


def fingerprint(*parts: object) -> str:
    """A short digest of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class ResumableFolder:
    """The output folder of a call; touched by the first write, which also takes its lock.

    Args:
        plan: digest of everything that decides the content (``fingerprint``).
        made_by: the command, for the manifest.
        manifest: its name; files of several plans may lie in one folder, each with its own.
        endings: of the files that may be written and, with another plan, deleted.
    Raises: UserError if the folder cannot be made or written to, if a file of others is in the way,
    or another process writes these files.
    """

    def __init__(
        self,
        folder: str | Path,
        plan: str,
        made_by: str,
        manifest: str = MANIFEST,
        endings: tuple[str, ...] = ENDINGS,
    ):
        self.folder, self.endings = Path(folder), endings
        self.manifest_path = self.folder / manifest
        self.lock: FolderLock | None = None
        facts = {"made_by": made_by, "plan": plan, "finished": False}
        new: dict[str, Any] = {**facts, "counts": {}, "files": {}, "begun": []}
        self._previous = read_manifest(self.manifest_path)
        self.manifest = self._previous if self._previous.get("plan") == plan else new
        self._check_place()

    def _check_place(self) -> None:
        """Raises: UserError if the folder cannot be made: now, not after hours of work."""
        place = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        start = f"{self.folder}: the output folder cannot be made"
        if not place.is_dir():
            raise UserError(f"{start} ({place} is a file); choose another --out")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(
                f"{start} or written to ({place} is not yours to write to); choose another --out,"
                " or fix the permissions"
            )

    def make(self) -> None:
        """Make and lock the folder; what another plan left there goes."""
        if self.lock is None:
            self.lock = lock_folder(self.folder, f"{self.manifest_path.name}.lock")
            if self._previous is not self.manifest:
                self._discard(self._previous)
                if files := ", ".join(self._previous.get("files", {})):
                    logger.warning(
                        "%s: %s of an earlier call with other options or files are written anew",
                        self.folder,
                        files[:MOST_NAMES],
                    )

    def _discard(self, previous: dict) -> None:
        """Raises: UserError, before anything is deleted, if a file was changed or is not ours."""
        for name, entry in previous.get("files", {}).items():
            path = self.path(name)
            if path.is_file() and path.stat().st_size != entry["bytes"]:
                raise UserError(
                    f"{path}: expected {entry['bytes']} bytes as {self.manifest_path.name} says,"
                    f" found {path.stat().st_size}: it was changed, and another preparation would"
                    " delete it; move it away, or choose another --out"
                )
        # the one file of a manifest NAME.manifest.json
        own = self.manifest_path.name.removesuffix(f".{MANIFEST}")
        begun = set(previous.get("begun", [])).difference(previous.get("files", {}))
        # complete but not listed: ``write_files`` was killed
        whole = [name for name in begun if not self.path(f"{name}{PART}").exists()]
        parts = [f"{name}{PART}" for name in previous.get("begun", [])]
        endings = [ending + part for ending in (*self.endings, own) for part in ("", PART)]
        names = [*previous.get("files", {}), *whole, *parts]
        delete_below(self.folder, names, tuple(endings), str(self.manifest_path))

    def path(self, name: str) -> Path:
        """The file of this name. Raises: UserError if it would lie elsewhere."""
        return path_below(self.folder, name, str(self.manifest_path))

    def is_complete(self, name: str) -> bool:
        entry, path = self.manifest["files"].get(name), self.path(name)
        return entry is not None and path.is_file() and path.stat().st_size == entry["bytes"]

    def is_finished(self) -> bool:
        """Whether an earlier call with this plan has written everything, and it is still there."""
        return self.manifest["finished"] and all(map(self.is_complete, self.manifest["files"]))

    def save_manifest(self, finished: bool = False, **counts: int) -> None:
        """Write the manifest. Args: finished: all files are written. counts: figures to keep."""
        self.make()
        self.manifest["finished"] = finished
        self.manifest["counts"].update(counts)
        text = json.dumps(self.manifest, indent=1, ensure_ascii=False) + "\n"
        with replacing(self.manifest_path, "wb") as file:
            # half of a pair of UTF-16, which some ids end in, is no UTF-8: as JSON escapes it
            file.write(text.encode(errors="backslashreplace"))

    def note(self, **facts: object) -> None:
        """Keep facts in the manifest: ``inputs``, ``settings``, ..."""
        self.manifest.update(facts)
        self.save_manifest(self.manifest["finished"])

    def begin(self, *names: str) -> Path:
        """``NAME.part`` of the last name, to write or to continue. Raises: UserError if there is a
        file of others."""
        self.make()
        begun = set(self.manifest["begun"])
        new = [name for name in names if name not in begun]
        for name in new:
            files = self.path(name), self.path(f"{name}{PART}")
            foreign = next((file for file in files if file.exists()), None)
            if foreign is not None and name not in self.manifest["files"]:
                raise UserError(
                    f"{foreign}: expected no such file, found one that {self.manifest_path.name}"
                    " does not list; move it away, or choose another --out"
                )
        if new:
            self.manifest["begun"] += new
            self.save_manifest()
        return self.path(f"{names[-1]}{PART}")

    def complete(self, name: str, rows: int, sha256: str) -> None:
        """Give ``NAME.part`` its final name and list it."""
        self._list(name, rows, sha256)
        self.save_manifest()

    def _list(self, name: str, rows: int, sha256: str) -> None:
        path = self.path(name)
        os.replace(self.path(f"{name}{PART}"), path)
        size = path.stat().st_size
        self.manifest["files"][name] = {"rows": rows, "bytes": size, "sha256": sha256}

    def write(
        self,
        name: str,
        blocks: Callable[[int], Iterable[str]],
        lines: Sequence[int] | None = None,
        unit: str = "rows",
    ) -> None:
        """Write a file block by block; a block is some whole lines.

        Args: blocks: number of the first one -> the blocks from there on. lines: of each block;
        None: one each, of an unknown number of blocks. unit: what messages call a block.
        """
        if self.is_complete(name):
            logger.info("%s: already complete", self.folder / name)
            return
        part = self.begin(name)
        done, rows, digest = _whole_blocks(part, lines)
        if done:
            of = "" if lines is None else f" of {len(lines)}"
            logger.info("%s: continuing after %d%s %s", part, done, of, unit)
        total = None if lines is None else len(lines)
        shown = nullcontext() if total is None else Progress(total, name, unit, initial=done)
        with _continued(part), open(part, "ab") as file, shown as progress:
            for block in blocks(done):
                data = block.encode()
                file.write(data)
                digest.update(data)
                rows += data.count(b"\n")
                if progress:
                    progress.update()
            file.flush()
            os.fsync(file.fileno())
        self.complete(name, rows, digest.hexdigest())

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """A text file of any length, line by line."""
        self.write(name, lambda done: (f"{line}\n" for line in itertools.islice(lines, done, None)))

    def write_text(self, name: str, text: str, rows: int) -> None:
        """A small file, written at once. Args: rows: its entries, for the manifest."""
        if not self.is_complete(name):
            data = text.encode()
            with replacing(self.begin(name), "wb") as file:
                file.write(data)
            self.complete(name, rows, hashlib.sha256(data).hexdigest())

    def write_files(self, names: Sequence[str], contents: Iterable[bytes]) -> None:
        """Many small files of a row each; the manifest is saved once for ``LISTED_TOGETHER``."""
        if names:
            self.begin(*names)
        try:
            for number, (name, data) in enumerate(zip(names, contents, strict=True), 1):
                with replacing(self.path(f"{name}{PART}"), "wb") as file:
                    file.write(data)
                self._list(name, 1, hashlib.sha256(data).hexdigest())
                if number % LISTED_TOGETHER == 0:
                    self.save_manifest()
        finally:
            self.save_manifest()


@contextmanager
def _continued(part: Path) -> Iterator[None]:
    """Context of writing a part. Raises: UserError for a full disk: what was written stays."""
    try:
        with names_file(part):
            yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"{part}: {error.strerror}. What is written stays there; free some space, then run the"
            " same command again: it continues there"
        ) from error


def _whole_blocks(part: Path, lines: Sequence[int] | None) -> tuple[int, int, Any]:
    """Cut an interrupted file after its last whole block.

    Returns: blocks and rows it keeps, and the SHA-256 object of their bytes.
    """
    done, rows, kept, digest = 0, 0, 0, hashlib.sha256()
    if not part.is_file():
        return done, rows, digest
    with open(part, "rb") as file:
        for count in itertools.repeat(1) if lines is None else lines:
            block = b"".join(itertools.islice(file, count))
            if block.count(b"\n") < count:
                break
            digest.update(block)
            done, rows, kept = done + 1, rows + count, kept + len(block)
    os.truncate(part, kept)
    return done, rows, digest


def read_manifest(path: Path) -> dict:
    """That of an earlier call; empty if there is none. Raises: UserError if it is none."""
    try:
        manifest = load_json(path.read_text(encoding="utf-8"))
        check_manifest(manifest)
        return manifest
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: expected the manifest of an earlier call, found something else ({error});"
            " choose another --out, or move it away"
        ) from None


def check_manifest(manifest: Any) -> None:
    """Raises: ValueError if the content is not our manifest."""
    if not isinstance(manifest, dict) or not str(manifest.get("made_by", "")).startswith("ofa "):
        raise ValueError("not made by ofa")
    manifest.setdefault("begun", [])
    for key, kind in KINDS.items():
        if not isinstance(manifest.get(key), kind):
            raise ValueError(f"no '{key}'")
    for name, entry in manifest["files"].items():
        numbers = [isinstance(entry, dict) and entry.get(key) for key in ("rows", "bytes")]
        if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
            raise ValueError(f"no rows and bytes of {name[:60]!r}")
