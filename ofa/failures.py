"""What a person reads in place of a traceback: one line for every failure that is no bug of this
project.

Failures of other processes (data workers, ranks) arrive as text around the original message.
"""

import contextlib
import errno
import os
import re
import select
import sys
from typing import Any, TextIO

from ofa.errors import UserError

USER_ERROR = f"{UserError.__module__}.{UserError.__qualname__}: "
DATA_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is )?([^.\n]+)")
NO_MEMORY = re.compile(
    r"CUDA out of memory[^\n]*|[^\n]*can't allocate memory[^\n]*|[^\n]*Cannot allocate"
    r" memory[^\n]*|^MemoryError\b[^\n]*",
    re.M,
)
ERROR_OF_WORKER = re.compile(
    r"Caught \w+ in DataLoader worker.*^\w*Error: \[Errno (\d+)\] ([^\n]+)", re.M | re.S
)
AGAIN = "Then run the same command again"
PIPE_CLOSED = 141  # status of a command that SIGPIPE ended, as a shell reports it


def message_of(error: BaseException | None) -> str | None:
    """One line: what was found, and the remedy. None for an error that needs its traceback."""
    if error is not None and USER_ERROR in str(error):
        return str(error).rsplit(USER_ERROR, 1)[1].strip()
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    return next(filter(None, map(_of_the_machine, chain)), None)


def _chain(error: BaseException | None):
    """An error and what it was raised from or met while it was handled."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _of_the_machine(error: BaseException) -> str | None:
    """A killed process, short memory, a disk that is full or gone."""
    text = str(error)
    if worker := DATA_WORKER.search(text):
        how = re.sub("^killed", "was killed", worker[2])
        return (
            f"data worker (process {worker[1]}): expected batches of it, found that it"
            f" {how}. Memory is usually short: lower --num-workers or --batch-size, or"
            f" give a container more shared memory (--shm-size). {AGAIN}"
        )
    found, kind = NO_MEMORY.search(text), type(error).__name__
    named = isinstance(error, MemoryError) or kind == "OutOfMemoryError"
    if named or found and isinstance(error, (RuntimeError, OSError)):
        # without the addresses and advice that torch puts around the first sentences
        before, mark, after = (found[0] if found else "none left").partition("DefaultCPUAllocator")
        left = ". ".join((mark + after or before).split(". ")[:2]).strip().rstrip(".")
        return (
            f"memory: expected enough for this command, found {left}. Lower --batch-size (a higher"
            " --update-freq makes up for it), --num-workers or the image size, or free memory."
            f" {AGAIN}"
        )
    if kind == "ProcessExitedException":
        ended: Any = error
        how = ended.signal_name or f"status {ended.exit_code}"
        return (
            f"rank {ended.error_index} (process {ended.error_pid}): ended by {how}; its own message"
            f" is above. {AGAIN}"
        )
    if remote := ERROR_OF_WORKER.search(text):
        return f"data worker: expected to read the data, found {remote[2]}. Correct that. {AGAIN}"
    if isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.errno:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return (
            f"{error.filename or 'reading or writing'}: {error.strerror or error}. Nothing"
            f" half-written is left. {'Free some space' if full else 'Correct that'}. {AGAIN}"
        )
    return None


def reader_is_gone() -> bool:
    """Whether nobody reads what this process prints, as after ``| head``; what it has still to
    print is dropped then."""
    if not without_reader(sys.stdout) and not without_reader(sys.stderr):
        return False
    # what is left in them would be written at the end of the interpreter
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return True


def without_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe whose other end is closed, as that of ``ofa ... | head`` is."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # closed, or no file: a test that captures it
        return False
