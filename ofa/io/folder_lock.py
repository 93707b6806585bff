"""Who writes where: one process at a time owns a folder, or an unfinished file.

POSIX record locks (``fcntl.lockf``) end with their process, however it dies; children do not
inherit them, ``exec`` keeps them, and NFS passes them on (not with ``nolock``). Closing any
descriptor of a file gives them up, so lock files are opened here alone.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import weakref
from collections.abc import MutableMapping
from datetime import datetime
from pathlib import Path

from ofa.errors import UserError

logger = logging.getLogger(__name__)

LOCK = "run.lock"  # of a folder that one process at a time writes to
LAUNCHER = "OFA_LAUNCHER_PID"  # environment variable: process that holds the lock for its children
HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN)
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class FolderLock:
    """The right to write to a folder: until ``release``, the end of a ``with`` block, or of itself.

    Args: handle: of the locked file; None where nothing could be locked.
    """

    def __init__(self, path: Path, handle: int | None):
        self.path, self.handle, self.process, self.users = path, handle, os.getpid(), 1
        self._unlock = weakref.finalize(self, _unlock, path, handle, self.process)

    def release(self) -> None:
        """Free the folder once all who asked for it in this process have done so."""
        self.users -= 1
        if self.users == 0:
            _held.pop(str(self.path), None)
            self._unlock()

    def keep_through_exec(self) -> None:
        """The program that replaces this process (``os.exec*``) owns the folder as well."""
        if self.handle is not None:
            os.set_inheritable(self.handle, True)

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


_held: MutableMapping[str, FolderLock] = weakref.WeakValueDictionary()  # by path of the lock file


def lock_folder(folder: str | Path, name: str = LOCK) -> FolderLock:
    """Own a folder, which is made if need be. A process may ask again for what it owns.

    Args: name: of the lock file; work on different files of a folder may have a lock each.
    Raises: UserError if another process owns it, or the folder cannot be written to.
    """
    path = Path(os.path.realpath(folder)) / name
    lock = _held.get(str(path))
    if lock is not None and lock.process == os.getpid():
        lock.users += 1
        return lock
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _open_locked(path)
    except OSError as error:
        is_file = isinstance(error, (FileExistsError, NotADirectoryError))
        found = f"{error.strerror or error} ({path.name}); correct its permissions, or"
        raise UserError(
            f"{folder}: expected a folder that can be written to, found"
            f" {'a file;' if is_file else found} choose another folder"
        ) from error
    if handle is not None:
        os.truncate(handle, 0)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        os.pwrite(handle, f"{socket.gethostname()} {os.getpid()} {since}\n".encode(), 0)
    _held[str(path)] = lock = FolderLock(path, handle)
    return lock


def _open_locked(path: Path) -> int | None:
    """The lock file; None: the launcher of this process holds it, or there are no locks."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        locked = lock_file(handle)
        if locked and is_at(handle, path):
            return handle
        words = os.pread(handle, 200, 0).decode("utf-8", "replace").split()
        os.close(handle)
        if locked is None:
            advice = "make sure that no other run writes there"
            logger.warning("%s: this file system has no locks; %s", path.parent, advice)
            return None
        if not locked:
            if words[:2] == [socket.gethostname(), os.environ.get(LAUNCHER)]:
                return None
            unknown = ["this or another host", "unknown", "now"]
            host, process, since = words if len(words) == 3 else unknown
            raise UserError(
                f"{path.parent}: expected a folder that no other process writes to, found it in use"
                f" by process {process} on {host} since {since}; wait for its end or stop it, or"
                " choose another folder"
            )
        # its owner removed it after it was opened here: once more


def _unlock(path: Path, handle: int | None, process: int) -> None:
    if handle is not None and process == os.getpid():
        with contextlib.suppress(OSError):  # the folder may be gone or read-only by now
            if is_at(handle, path):
                path.unlink()  # while it is locked: nobody else can have taken it
        os.close(handle)


# --- files


def lock_file(handle: int) -> bool | None:
    """Lock an open file. Returns: False if another process holds it; None if there are no locks."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        if error.errno not in HELD_BY_ANOTHER:
            raise
        return False
    return True


def is_at(handle: int, path: str | Path) -> bool:
    """Whether ``path`` is still the open file."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def remove_if_abandoned(path: Path) -> bool:
    """Delete an unfinished file unless its process lives. Returns: whether it is gone."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        locked = lock_file(handle)
        if locked:
            path.unlink(missing_ok=True)
        elif locked is None:
            advice = "without locks its owner is unknown: delete it if no run is at work"
            logger.warning("%s: is not finished; %s", path, advice)
        return bool(locked)
    finally:
        os.close(handle)
