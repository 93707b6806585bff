"""``ofa``: the command a person types. Each module of ``ofa.cli`` with an ``add_parser`` adds its own sub-command."""

import argparse
import importlib
import logging
import pkgutil
import sys

import ofa.cli
from ofa import __version__
from ofa.errors import UserError
from ofa.process_state import silence_known_warnings


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
    """Run one command. Returns its exit status: 0 done, 2 what the user can mend, 130 interrupted."""
    logging.basicConfig(format="%(asctime)s | %(levelname)s | %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    silence_known_warnings()
    namespace = build_parser().parse_args(arguments)
    try:
        return namespace.run(namespace) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder without permission, ...
        print(f"error: {error.filename or 'reading or writing'}: {error.strerror or error}. Nothing half-written is left; "
              "the same command goes on when the cause is mended", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
