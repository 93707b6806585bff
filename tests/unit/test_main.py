"""The command ``ofa`` as a process: what it returns when its output has no reader, and when
something fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.cli import main as command
from ofa.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PRINTS = """
import sys
from ofa.cli import main

def commands():
    parser = main.argparse.ArgumentParser()
    parser.set_defaults(run=lambda arguments: print("line\\n" * 100_000))
    return parser

main.build_parser = commands
sys.exit(main.main([]))
"""


def without_reader(
    *words: str, errors_too: bool = False, **environment: str
) -> subprocess.CompletedProcess:
    """A Python process whose output is a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, *words],
            stdout=writer,
            stderr=writer if errors_too else subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": ""} | environment,
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "words",
    [
        ("-c", PRINTS),
        ("-m", "ofa", "--help"),
        ("-m", "ofa", "prepare", "csv", "--help"),
        ("-m", "ofa", "--version"),
    ],
)
def test_an_output_without_reader_ends_the_command_quietly(words):
    done = without_reader(*words)
    assert (done.returncode, done.stderr) == (command.PIPE_CLOSED, "")


def test_an_unbuffered_output_without_reader_ends_the_command_quietly():
    done = without_reader("-c", PRINTS, PYTHONUNBUFFERED="1")
    assert (done.returncode, done.stderr) == (command.PIPE_CLOSED, "")


def test_errors_without_reader_end_the_command_as_well():
    done = without_reader(
        "-c",
        PRINTS.replace("print(", "print(file=sys.stderr, *[").replace("100_000)", "100_000])"),
        errors_too=True,
    )
    assert done.returncode == command.PIPE_CLOSED


def of(error: BaseException, monkeypatch, capsys) -> tuple[int, str]:
    """Exit status and errors of a command that raises ``error``."""

    def fail(namespace):
        raise error

    def build_parser():
        parser = command.argparse.ArgumentParser()
        parser.set_defaults(run=fail)
        return parser

    monkeypatch.setattr(command, "build_parser", build_parser)
    return command.main([]), capsys.readouterr().err


def test_a_broken_pipe_elsewhere_is_an_error(monkeypatch, capsys):
    status, errors = of(BrokenPipeError(32, "Broken pipe"), monkeypatch, capsys)
    assert status == 2 and errors.startswith("error: ") and "Broken pipe" in errors


@pytest.mark.parametrize(
    "error, found",
    [
        (
            UserError("a.tsv:3: expected 5 columns, found 4"),
            "error: a.tsv:3: expected 5 columns, found 4\n",
        ),
        (
            OSError(28, "No space left on device", "out/a.tsv"),
            "error: out/a.tsv: No space left on device. Nothing half-written is left",
        ),
        (PermissionError(13, "Permission denied", "out"), "error: out: Permission denied"),
        (MemoryError(), "error: memory: expected enough for this command"),
    ],
)
def test_a_failure_that_the_user_can_correct_is_one_line(error, found, monkeypatch, capsys):
    status, errors = of(error, monkeypatch, capsys)
    assert status == 2 and errors.startswith(found) and errors.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch, capsys):
    with pytest.raises(KeyError):
        of(KeyError("name"), monkeypatch, capsys)
