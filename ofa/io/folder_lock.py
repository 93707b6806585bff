"""Who writes where: one process at a time owns a folder, and an unfinished file belongs to the
process that writes it.

The locks are POSIX record locks (``fcntl.lockf``). The kernel releases them when their process
dies, however it dies; children do not inherit them, so an orphaned data worker keeps nothing
locked; ``exec`` keeps them; NFS clients pass them on to the server, so they hold between machines
(with ``nolock`` or ``local_lock=posix`` mounts: on one machine only). Closing any descriptor of a
file gives up this process's locks on it, so lock files are opened here alone.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ofa.errors import UserError

logger = logging.getLogger(__name__)

LOCK = "run.lock"  # of a folder that one process at a time writes to
LAUNCHER = (  # environment variable: a process that holds the lock for its children
    "OFA_LAUNCHER_PID"
)
HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN)
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

_held: dict[str, "_Held"] = {}  # lock files of this process


class _Held:
    """A lock of this process. Args: handle: of the locked file; None where nothing could be
    locked."""

    def __init__(self, path: Path, handle: int | None):
        self.path, self.handle, self.process, self.users = path, handle, os.getpid(), 1


class FolderLock:
    """The right to write to a folder: until ``release``, the end of a ``with`` block, or of the
    process."""

    def __init__(self, held: _Held):
        self._held = held
        self.release: Callable[[], None] = weakref.finalize(self, _release, held)

    def keep_through_exec(self) -> None:
        """The program that takes the place of this process (``os.exec*``) owns the folder as
        well."""
        if self._held.handle is not None:
            os.set_inheritable(self._held.handle, True)

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def lock_folder(folder: str | Path, name: str = LOCK) -> FolderLock:
    """Own a folder, which is made if need be. A process may ask again for what it owns.

    Args: name: of the lock file; work on different files of a folder may have a lock each.
    Raises: UserError if another process owns it, or the folder cannot be written to.
    """
    path = Path(os.path.realpath(folder)) / name
    held = _held.get(str(path))
    if held is not None and held.process == os.getpid():
        held.users += 1
        return FolderLock(held)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _open_locked(path)
    except OSError as error:
        raise UserError(
            f"{folder}: expected a folder that can be written to, found {error.strerror or error}"
            f" ({path.name}); correct its permissions, or choose another folder"
        ) from error
    if handle is not None:
        os.truncate(handle, 0)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        os.pwrite(handle, f"{socket.gethostname()} {os.getpid()} {since}\n".encode(), 0)
    held = _held[str(path)] = _Held(path, handle)
    return FolderLock(held)


def _open_locked(path: Path) -> int | None:
    """The locked lock file. None: the launcher of this process holds it, or the file system has
    no locks."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        locked = lock_file(handle)
        if locked and is_at(handle, path):
            return handle
        words = os.pread(handle, 200, 0).decode("utf-8", "replace").split()
        os.close(handle)
        if locked is None:
            logger.warning(
                "%s: this file system has no locks; make sure that no other run writes there",
                path.parent,
            )
            return None
        if not locked and _holds_for_us(words):
            return None
        if not locked:
            raise UserError(_in_use(path.parent, words))
        # its owner removed it after it was opened here: once more


def _holds_for_us(words: list[str]) -> bool:
    """Whether the owner, as the lock file names it, is the launcher of this process."""
    return words[:2] == [socket.gethostname(), os.environ.get(LAUNCHER)]


def _in_use(folder: Path, words: list[str]) -> str:
    host, process, since = words if len(words) == 3 else ("this or another host", "unknown", "now")
    return (
        f"{folder}: expected a folder that no other process writes to, found it in use by process"
        f" {process} on {host} since {since}; wait for its end or stop it, or choose another folder"
    )


def _release(held: _Held) -> None:
    held.users -= 1
    if held.users or held.process != os.getpid():
        return
    _held.pop(str(held.path), None)
    if held.handle is not None:
        with contextlib.suppress(OSError):  # the folder may be gone or read-only by now
            if is_at(held.handle, held.path):
                held.path.unlink()  # while it is locked: nobody else can have taken it
        os.close(held.handle)


# --- files
# --------------------------------------------------------------------------------------------------


def lock_file(handle: int) -> bool | None:
    """Lock an open file for this process. Returns: False if another one holds it; None where
    there are no locks."""
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
    """Delete an unfinished file unless the process that writes it lives. Returns: whether it is
    gone."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        locked = lock_file(handle)
        if locked:
            path.unlink(missing_ok=True)
        elif locked is None:
            logger.warning(
                "%s: is not finished; without locks its owner is unknown: delete it if no run is at"
                " work",
                path,
            )
        return bool(locked)
    finally:
        os.close(handle)
