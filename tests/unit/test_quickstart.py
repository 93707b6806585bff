"""What ``ofa quickstart`` does when a stage is asked to stop."""

import signal
import sys

import pytest

from ofa.cli.quickstart import StagedRun, StageEnded

ASKED = "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit({status}))"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Function: a program of Python -> the status with which its stage ends."""
    monkeypatch.setenv("QUICKSTART_DIR", str(tmp_path))
    staged = StagedRun("quickstart", long=False)

    def status_of(program: str) -> int:
        with pytest.raises(StageEnded) as ended:
            staged.run([sys.executable, "-c", program])
        return ended.value.args[0]

    return status_of


@pytest.mark.parametrize("status", [130, 143])
def test_a_training_that_was_stopped_alone_ends_the_run_without_an_error(run, capsys, status):
    assert run(f"raise SystemExit({status})") == status
    assert capsys.readouterr().err == ""


def test_sigterm_is_passed_on_and_its_status_given(run, capsys):
    """The training has its own status, which may be another one."""
    before = signal.getsignal(signal.SIGTERM)
    ask = "os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    assert run(f"{ASKED.format(status=1)}; {ask}") == 143
    assert capsys.readouterr().err == "" and signal.getsignal(signal.SIGTERM) is before


def test_a_stage_that_fails_is_named(run, capsys):
    assert run("raise SystemExit(3)") == 3
    assert "quickstart: error: ended with status 3 at: " in capsys.readouterr().err
