"""One process at a time writes to a folder; what a live process is writing is never deleted."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.cli.main import main
from ofa.errors import UserError
from ofa.io import folder_lock
from ofa.io.atomic import remove_abandoned, replacing
from ofa.io.folder_lock import LOCK, lock_folder

ROOT = Path(__file__).resolve().parents[2]
HOLD = (
    "import sys, time; from ofa.io.folder_lock import lock_folder; lock = lock_folder(sys.argv[1]);"
    " print('held', flush=True); time.sleep(60)"
)
TAKE = (
    "import sys; from ofa.io.folder_lock import lock_folder; lock_folder(sys.argv[1]);"
    " print('taken')"
)
WRITE = (
    "import sys, time; from ofa.io.atomic import replacing\nwith replacing(sys.argv[1], 'wb') as"
    " file: file.write(b'half'); file.flush(); print('begun', flush=True); time.sleep(60)"
)


def python(code: str, *arguments, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


@pytest.fixture
def started():
    """Function that starts a process and waits for its first line; all are ended after the test."""
    processes = []

    def start(code: str, *arguments) -> subprocess.Popen:
        processes.append(python(code, *arguments))
        assert processes[-1].stdout.readline(), processes[-1].stderr.read()
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_with_host_process_and_time_of_the_first(tmp_path, started):
    holder = started(HOLD, tmp_path / "run")
    with pytest.raises(
        UserError, match=rf"in use by process {holder.pid} on {socket.gethostname()} since 20\d\d-"
    ):
        lock_folder(tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_holds_nothing(tmp_path, started, number):
    holder = started(HOLD, tmp_path)
    holder.send_signal(number)
    holder.wait()
    with lock_folder(tmp_path):
        assert (tmp_path / LOCK).read_text().split()[1] == str(os.getpid())


def test_children_of_a_dead_process_hold_nothing(tmp_path):
    code = HOLD.replace("time.sleep(60)", "import os; os.fork() or time.sleep(60)")
    holder = python(code, tmp_path)
    assert holder.stdout.readline() == "held\n"
    holder.wait()  # the parent ends, its child sleeps on
    try:
        lock_folder(tmp_path).release()
    finally:
        child = subprocess.run(
            ["pgrep", "-f", str(tmp_path)], capture_output=True, text=True
        ).stdout.split()
        for process in child:
            os.kill(int(process), signal.SIGKILL)
        holder.communicate()


def test_no_file_stays_when_a_lock_is_released(tmp_path):
    with lock_folder(tmp_path), lock_folder(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert not list(tmp_path.iterdir())


def test_the_inner_of_two_locks_of_a_process_does_not_free_the_folder(tmp_path):
    with lock_folder(tmp_path):
        lock_folder(tmp_path).release()
        other = python(TAKE, tmp_path)
        assert other.wait() != 0 and "in use by process" in other.stderr.read()


def test_a_child_shares_the_lock_of_the_launcher_that_is_named_to_it(tmp_path):
    with lock_folder(tmp_path):
        child = python(TAKE, tmp_path, OFA_LAUNCHER_PID=str(os.getpid()))
        assert child.communicate()[0] == "taken\n"


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: expected a folder that can be written to"):
        lock_folder(tmp_path / "file")


def test_without_locks_of_the_file_system_the_work_goes_on_with_a_warning(
    tmp_path, monkeypatch, caplog
):
    def unsupported(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "lockf", unsupported)
    with lock_folder(tmp_path), replacing(tmp_path / "a.txt") as file:
        file.write("text")
    assert "has no locks" in caplog.text and (tmp_path / "a.txt").read_text() == "text"


def test_an_unfinished_file_stays_while_its_process_lives_and_goes_when_it_is_dead(
    tmp_path, started
):
    writer = started(WRITE, tmp_path / "checkpoint_last.pt")
    part = next(tmp_path.glob(".checkpoint_last.pt.*"))
    assert remove_abandoned(tmp_path, "checkpoint*.pt") == [] and part.exists()
    writer.kill()
    writer.wait()
    assert remove_abandoned(tmp_path, "checkpoint*.pt") == [part] and not part.exists()


def test_a_process_does_not_delete_what_it_is_writing_itself(tmp_path):
    with replacing(tmp_path / "checkpoint_last.pt") as file:
        file.write("whole")
        assert remove_abandoned(tmp_path, "checkpoint*.pt") == []
    assert (tmp_path / "checkpoint_last.pt").read_text() == "whole"


COMMANDS = [  # that write a folder, and the lock file of each
    ("manifest.json.lock", ["prepare", "synthetic-sentences", "--out", "out"]),
    ("rows.shards.json.lock", ["pack", "rows.tsv", "--out", "out"]),
    (LOCK, ["negatives", "build", "--data", "rows.tsv", "--out", "out"]),
    ("gpt2.lock", ["vocab", "fetch", "gpt2", "--source", ".", "--out", "out"]),
]


@pytest.mark.parametrize("name, command", COMMANDS)
def test_two_commands_do_not_write_into_the_same_folder_at_once(
    tmp_path, monkeypatch, name, command, started, capsys
):
    (tmp_path / "rows.tsv").write_text(
        "".join(f"{row}\t{row}\ta cat {row}\twhat?\tcat\t\t\tcaption\n" for row in range(3))
    )
    monkeypatch.chdir(tmp_path)
    started(
        HOLD.replace("lock_folder(sys.argv[1])", f"lock_folder(sys.argv[1], {name!r})"),
        tmp_path / "out",
    )
    assert main(command) == 2
    assert "in use by process" in capsys.readouterr().err and [
        path.name for path in (tmp_path / "out").iterdir()
    ] == [name]
