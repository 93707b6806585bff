"""A run of ``ofa quickstart`` whose commands begin as forks, with torch imported; its trainings
become programs of their own all the same."""

import io
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from training_runs import fork

from ofa.cli.main import main
from ofa.cli.quickstart import ROOT, StagedRun


def staged_run(folder: Path, settings: Mapping[str, str], *words: str) -> str:
    """Args: settings: of the environment. words: behind ``ofa quickstart``. Returns: what it
    printed."""

    def run(staged: StagedRun, program: list[str], **environment: str) -> None:
        assert program[:3] == [sys.executable, "-m", "ofa"]
        done = fork(_command, (program[3:], environment), folder.with_suffix(".log"))
        staged.print(done.log)
        assert done.code == 0, done.log[-3000:]

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.setattr(StagedRun, "run", run)
        assert main(["quickstart", *words]) == 0, printed.getvalue()[-3000:]
    return printed.getvalue()


def _command(words: list[str], environment: dict[str, str]) -> None:
    os.chdir(ROOT)
    os.environ.update(environment)
    sys.exit(main(words))
