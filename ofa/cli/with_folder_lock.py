"""``python -m ofa.cli.with_folder_lock [--fresh] FOLDER COMMAND ...``: the command, in this very
process, as owner of a folder.

What scripts such as ``run_scripts/launch.sh`` start themselves by (``bash SCRIPT ...``), so that a
run that is refused has moved and logged nothing. --fresh: what the folder holds is moved aside.
"""

import os
import signal
import sys
import time
from pathlib import Path

from ofa.failures import message_of
from ofa.io.folder_lock import LOCK, FolderLock, lock_folder

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # and then by whatever it becomes


def main(arguments: list[str]) -> int:
    """Returns only if the folder cannot be owned: status 2."""
    fresh = arguments[0] == "--fresh"
    folder, *command = arguments[fresh:]
    try:
        lock = lock_folder(folder)
        if fresh:
            lock = move_aside(Path(folder), lock)
        lock.keep_through_exec()
        for number in IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except (ValueError, OSError) as error:
        print(f"{Path(command[1]).stem}: error: {message_of(error) or error}", file=sys.stderr)
        return 2


def move_aside(folder: Path, lock: FolderLock) -> FolderLock:
    """Rename a folder that holds a run. Returns: the lock of an empty one in its place."""
    if any(path.name != LOCK for path in folder.iterdir()):
        aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        (aside / LOCK).unlink(missing_ok=True)
        lock.release()
        lock = lock_folder(folder)
    return lock


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
