"""Failures that are no bug of the project are told in one line; bugs keep their traceback."""

import errno

import pytest

from ofa.errors import UserError
from ofa.failures import message_of


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


class ProcessExitedException(Exception):
    error_index, error_pid, exit_code, signal_name = 1, 4711, -9, "SIGKILL"


class OutOfMemoryError(RuntimeError):
    pass


@pytest.mark.parametrize(
    "error, words",
    [
        (UserError("a.tsv:3: expected 5 columns, found 4"), "a.tsv:3: expected 5 columns, found 4"),
        (raised_from(Exception("vague"), UserError("the reason")), "the reason"),
        (
            Exception(
                "-- Process 1 terminated:\nTraceback ...\nofa.errors.UserError: a.tsv:3: bad\n"
            ),
            "a.tsv:3: bad",
        ),
        (
            RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
            (
                "data worker (process 12): expected batches of it, found that it was killed by"
                " signal: Killed. "
            ),
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"),
            (
                "data worker (process 12, 13): expected batches of it, found that it exited"
                " unexpectedly. "
            ),
        ),
        (
            RuntimeError(
                "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that"
                " dataloader's workers are out of shared memory."
            ),
            "--shm-size",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate"
                " memory: you tried to allocate 8 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "found DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        ),
        (
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            "found CUDA out of memory. Tried to allocate 2.00 GiB. ",
        ),
        (MemoryError(), "memory: expected enough for this command, found none left"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory: expected enough"),
        (
            OSError(errno.EROFS, "Read-only file system", "run/checkpoint_last.pt"),
            "run/checkpoint_last.pt: Read-only file system",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "run/a.json"),
            "run/a.json: Disk quota exceeded. Nothing half-written is left. Free some space",
        ),
        (
            OSError(
                "Caught OSError in DataLoader worker process 0.\nOriginal Traceback:\n  File"
                " ...\nOSError: [Errno 116] Stale file handle\n"
            ),
            "data worker: expected to read the data, found Stale file handle",
        ),
        (ProcessExitedException(), "rank 1 (process 4711): ended by SIGKILL"),
    ],
)
def test_one_line_says_what_was_found(error, words):
    assert words in message_of(error) and "\n" not in message_of(error)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("name"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        AssertionError(),
        None,
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    ],
)
def test_other_errors_have_no_line(error):
    assert message_of(error) is None


def test_an_error_that_is_its_own_cause_ends_the_search():
    error = KeyError("a")
    error.__cause__ = error
    assert message_of(error) is None
