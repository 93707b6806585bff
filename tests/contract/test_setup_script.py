"""run_scripts/setup.sh: idempotent, locked, and clear when it cannot go on (the installation itself is not repeated here)."""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def fingerprint() -> str:
    parts = [(ROOT / name).read_bytes() for name in ("setup.py", "run_scripts/constraints.txt")]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def mark_ready(venv: Path) -> None:
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    if not (venv / "bin/python").exists():
        (venv / "bin/python").symlink_to(sys.executable)
    (venv / ".ofa-setup").write_text(fingerprint() + "\n")


def start(venv: Path, **settings: str) -> subprocess.Popen:
    environment = os.environ | {"OFA_VENV": str(venv)} | settings
    command = ["bash", str(ROOT / "run_scripts/setup.sh")]
    return subprocess.Popen(command, env=environment, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_finished_environment_is_left_alone(tmp_path):
    mark_ready(tmp_path / "venv")
    process = start(tmp_path / "venv")
    assert process.communicate(timeout=30) == ("", "") and process.returncode == 0


def test_a_second_call_waits_for_the_first_and_then_has_nothing_to_do(tmp_path):
    venv = tmp_path / "venv"
    with open(f"{venv}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(venv)
        assert "waiting" in process.stdout.readline()
        assert process.poll() is None
        mark_ready(venv)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("python, finding", [("/nowhere/python", "found ''"), ("/bin/false", "found ''")])
def test_an_unfit_interpreter_is_named(tmp_path, python, finding):
    process = start(tmp_path / "venv", OFA_PYTHON=python)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 2 and "OFA_PYTHON" in error and finding in error and python in error
    assert not (tmp_path / "venv").exists()
