"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ofa.io.folder_lock import is_at, lock_file, remove_if_abandoned

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the quota, the limit of one file
CANNOT_WRITE = (*FULL, errno.EIO, errno.EROFS, errno.ESTALE)
NEW_FILE = 0o666  # the kernel takes off the bits of the umask
# Characters of a name in that of its temporary file: of 4 bytes each they stay below 255 bytes.
NAMED = 60

_parts: set[str] = set()  # unfinished files of this process


@contextmanager
def replacing(path: str | Path, mode: str = "w") -> Iterator[Any]:
    """A file to write that takes the place of ``path`` at the end; until then, and after a failure,
    the old one stays. The folder is made; text is UTF-8.

    Args: mode: "w" or "wb". Raises: OSError that names ``path``, also where a library hides the
    error of a write.
    """
    path = Path(path)
    with names_file(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = _begin(path)
        _parts.add(part)
        try:
            with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as opened:
                file = RememberingFile(opened)
                try:
                    yield file
                except Exception as error:
                    if file.error in (None, error):
                        raise
                    raise file.error from error
                opened.flush()
                os.fsync(opened.fileno())
                os.replace(part, path)  # before it is closed, which unlocks it
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
        finally:
            _parts.discard(part)


def _begin(path: Path) -> tuple[int, str]:
    """Descriptor and name of a new, locked file beside ``path``."""
    while True:
        part = str(path.parent / f"{_prefix(path)}{secrets.token_hex(4)}")
        try:
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, NEW_FILE)
        except FileExistsError:
            continue
        if lock_file(handle) is not False and is_at(handle, part):
            return handle, part
        os.close(handle)  # taken for an abandoned one before it was locked


def _prefix(path: Path) -> str:
    """What the name of the unfinished file of ``path`` begins with."""
    return f".{path.name[:NAMED]}."


def remove_abandoned(folder: str | Path, pattern: str) -> list[Path]:
    """Delete the unfinished files of ``replacing`` whose process is dead; those of a live one stay.

    Args: pattern: of the names of the finished files. Returns: what was deleted.
    """
    parts = (part for part in Path(folder).glob(f".{pattern}.*") if str(part) not in _parts)
    return [part for part in parts if remove_if_abandoned(part)]


@contextmanager
def names_file(path: str | Path) -> Iterator[None]:
    """Context in which an ``OSError`` without a file name, as of a full disk, gets this one."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None and error.errno in CANNOT_WRITE
        if unnamed or Path(os.fsdecode(error.filename or "")).name.startswith(_prefix(Path(path))):
            error.filename = str(path)
        raise


class RememberingFile:
    """A file that keeps the error of a failed write: torch reports it as a bug of its own."""

    def __init__(self, file: IO):
        self.file = file
        self.error: OSError | None = None

    def write(self, data) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name: str):
        return getattr(self.file, name)
