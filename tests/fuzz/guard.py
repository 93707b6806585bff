"""While data is read, no process may start, no socket open, and no file be written, moved or
deleted outside of one folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STARTS = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.startfile",
    "pty.",
    "ctypes.dlopen",
    "webbrowser.",
)
SENDS = ("socket.", "urllib.", "ftplib.", "smtplib.", "http.client")
ASKS = ("socket.gethostname",)  # the kernel for the name that a lock file shows; no socket opens
CHANGES = {
    "os.remove": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "shutil.rmtree": 1,
    "shutil.move": 2,
    "shutil.copyfile": 2,
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """Notes what happens while ``watching``. An audit hook cannot be removed: there is one per
    process."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._note)

    @contextmanager
    def watching(self, folder: Path) -> Iterator[list[str]]:
        """Args: folder: the only one that may be written to. Returns: what was done besides."""
        self.folder, self.seen = os.path.realpath(folder), []
        try:
            yield self.seen
        finally:
            self.folder = None

    def _note(self, event: str, arguments: tuple) -> None:
        if self.folder is None or event in ASKS:
            return
        if event.startswith(STARTS) or event.startswith(SENDS):
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event == "open":
            path, mode, flags = arguments
            writes = (flags or 0) & WRITING or any(letter in (mode or "") for letter in "wax+")
            if writes and not self._inside(path):
                self.seen.append(f"open {path!r} for writing")
        elif event in CHANGES and not all(map(self._inside, arguments[: CHANGES[event]])):
            self.seen.append(f"{event} {arguments!r}"[:200])

    def _inside(self, path: object) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return True  # a descriptor that is open already
        return os.path.realpath(os.fsdecode(path)).startswith(
            (f"{self.folder}{os.sep}", "/dev/null")
        )
