"""Programs that begin as forks do what programs of their own do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import ROOT, interpreter


def run(python: str, folder: Path, code: str, **settings: str) -> subprocess.CompletedProcess:
    (folder / "train.py").write_text(code)
    environment = os.environ | settings
    return subprocess.run(
        [python, "train.py", "one", ""],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        input="typed\n",
    )


@pytest.mark.parametrize(
    "code",
    [
        "import sys, os; print(sys.argv, os.getcwd(), sys.path[0], input(), __name__, end='')",
        "import sys, atexit; atexit.register(print, 'end'); sys.exit(3)",
        "import sys; print('before'); sys.exit('a reason')",
        "raise KeyError('é')",
        "raise KeyboardInterrupt",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, sys; print(sorted(os.environ.items())); os._exit(4)",
        "import sys; print(sys.orig_argv[1:])",
        "import logging, sys; print(logging.getLogger().handlers, sys.stdout.line_buffering)",
    ],
)
def test_a_fork_prints_and_ends_as_the_interpreter_does(tmp_path, code):
    found, expected = (run(python, tmp_path, code) for python in (interpreter(), sys.executable))
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    assert found.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_settings_and_packages_that_imports_depend_on_get_the_interpreter(tmp_path):
    code = "import sys; print('torch' in sys.modules)"
    assert run(interpreter(), tmp_path, code).stdout == "True\n"
    assert run(interpreter(), tmp_path, code, OMP_NUM_THREADS="3").stdout == "False\n"
    for value, forked in (("True", True), ("3", False)):  # by scikit-learn, and by somebody
        done = run(interpreter(), tmp_path, code, KMP_DUPLICATE_LIB_OK=value)
        assert done.stdout == f"{forked}\n"
    (tmp_path / "ofa").mkdir()
    (tmp_path / "ofa/__init__.py").touch()
    assert run(interpreter(), tmp_path, code).stdout == "False\n"


def test_a_sitecustomize_runs_before_the_program(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.seen = sys.orig_argv[1:]")
    code = "import sys; print('torch' in sys.modules, *sys.seen)"
    search = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = run(interpreter(), tmp_path, code, PYTHONPATH=search)
    assert done.stdout == "True train.py one \n"


WAIT = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
pathlib.Path("process").write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.mark.parametrize(
    "number, status", [(signal.SIGTERM, 5), (signal.SIGINT, -2), (signal.SIGKILL, -9)]
)
def test_a_signal_reaches_the_fork(tmp_path, number, status):
    (tmp_path / "train.py").write_text(WAIT)

    def heed() -> None:  # what begins in the background ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [interpreter(), "train.py"]
    with subprocess.Popen(command, cwd=tmp_path, preexec_fn=heed) as program:
        wait_until(lambda: (tmp_path / "process").exists())
        wait_until(lambda: (tmp_path / "process").read_text())
        program.send_signal(number)
    assert program.returncode == status
    wait_until(lambda: not Path("/proc", (tmp_path / "process").read_text()).exists())


def wait_until(found) -> None:
    end = time.monotonic() + 20
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)
