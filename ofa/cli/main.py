"""``ofa``: the command a person types. Each module of ``ofa.cli`` with an ``add_parser`` adds its own sub-command."""

import argparse
import contextlib
import importlib
import logging
import os
import pkgutil
import select
import sys
from typing import TextIO

import ofa.cli
from ofa import __version__
from ofa.failures import message_of
from ofa.process_state import silence_known_warnings

PIPE_CLOSED = 141  # as a shell reports a command that SIGPIPE ended


def build_parser() -> argparse.ArgumentParser:
    """Parser of all sub-commands. Their modules import heavy libraries only when they run."""
    parser = argparse.ArgumentParser(prog="ofa", description="Train, evaluate and use One-For-All models.")
    parser.add_argument("--version", action="version", version=f"ofa-fairseq {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in sorted(info.name for info in pkgutil.iter_modules(ofa.cli.__path__) if info.name != "main"):
        command = importlib.import_module(f"ofa.cli.{module}")
        if hasattr(command, "add_parser"):
            command.add_parser(subparsers)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns: its exit status: 0 done, 2 what the user can correct, 130 interrupted, 141 the reader of the output is gone.
    """
    logging.basicConfig(format="%(asctime)s | %(levelname)s | %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    silence_known_warnings()
    try:
        return run(arguments)
    except BrokenPipeError as error:
        if not without_reader(sys.stdout) and not without_reader(sys.stderr):  # another pipe: the error is worth a line
            print(f"error: {message_of(error) or error}", file=sys.stderr)
            return 2
        for stream in (sys.stdout, sys.stderr):  # what is left in them would be written at the end of the interpreter
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def run(arguments: list[str] | None) -> int:
    """The command, with errors in one line. Raises: BrokenPipeError if nobody reads what it prints."""
    try:
        namespace = build_parser().parse_args(arguments)
        status = namespace.run(namespace) or 0
    except SystemExit:  # of --help and of wrong arguments
        sys.stdout.flush()
        raise
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        status = 2
    sys.stdout.flush()
    return status


def without_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe whose other end is closed, as that of ``ofa ... | head`` is."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # closed, or no file: a test that captures it
        return False


if __name__ == "__main__":
    sys.exit(main())
