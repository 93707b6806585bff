"""``ofa``: the command a person types. Each module of ``ofa.cli`` with an ``add_parser`` adds
its own sub-command."""

import argparse
import importlib
import logging
import pkgutil
import sys

import ofa.cli
from ofa import __version__
from ofa.failures import PIPE_CLOSED, message_of, reader_is_gone
from ofa.process_state import silence_known_warnings


def build_parser() -> argparse.ArgumentParser:
    """Parser of all sub-commands. Their modules import heavy libraries only when they run."""
    parser = argparse.ArgumentParser(
        prog="ofa", description="Train, evaluate and use One-For-All models."
    )
    parser.add_argument("--version", action="version", version=f"ofa-fairseq {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in sorted(
        info.name for info in pkgutil.iter_modules(ofa.cli.__path__) if info.name != "main"
    ):
        command = importlib.import_module(f"ofa.cli.{module}")
        if hasattr(command, "add_parser"):
            command.add_parser(subparsers)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns: its exit status: 0 done, 2 what the user can correct, 130 interrupted, 141 the reader
    of the output is gone.
    """
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(message)s", datefmt="%H:%M:%S", level=logging.INFO
    )
    silence_known_warnings()
    try:
        return run(arguments)
    except BrokenPipeError as error:
        if reader_is_gone():
            return PIPE_CLOSED
        print(f"error: {message_of(error) or error}", file=sys.stderr)  # another pipe
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def run(arguments: list[str] | None) -> int:
    """The command, with errors in one line. Raises: BrokenPipeError if nobody reads what it
    prints."""
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


if __name__ == "__main__":
    sys.exit(main())
