"""Runs that cannot begin or that the machine ends: one line that says what to do, and nothing of
another run is touched."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults import InUpdate, KilledWorker, LittleSpace, lose_folder, lose_gpu_memory, lose_memory
from programs import interpreter
from training_runs import ROOT, flags, log_lines, make_files, train

from ofa.io.folder_lock import lock_folder
from ofa.trainer.processes import free_port

RECIPE = (
    "--max-epoch=1",
    "--save-interval-updates=2",
    "--keep-interval-updates=1",
    "--disable-validation",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("failing"))


@pytest.fixture(scope="module")
def finished(files):
    """The folder of a finished run."""
    folder = files.folder / "finished"
    done = train(flags(files, folder, *RECIPE))
    assert done.code == 0, done.log[-3000:]
    return folder


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def the_error(done) -> str:
    """The one line of a run that ended with status 2."""
    errors = [line for line in done.log.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1 and "Traceback" not in done.log, done.log[-3000:]
    return errors[0]


def test_a_second_run_ends_before_it_touches_the_folder_of_the_first(files, finished):
    assert not list(finished.glob("*.lock")), "a run that ended holds nothing"
    with lock_folder(finished):
        before = state_of(finished)
        error = the_error(
            train(
                flags(
                    files,
                    finished,
                    *RECIPE,
                    "--max-epoch=2",
                    f"--tensorboard-logdir={finished / 'tensorboard'}",
                    f"--log-file={finished / 'log.txt'}",
                )
            )
        )
        assert state_of(finished) == before
    assert f"in use by process {os.getpid()} on {socket.gethostname()} since" in error


def launch(files, folder: Path, *more: str, **how: Any) -> subprocess.CompletedProcess:
    """``ofa train`` to its end."""
    with start(files, folder, *more, **how) as run:
        output, errors = run.communicate()
    return subprocess.CompletedProcess(run.args, run.returncode, output, errors)


def start(
    files,
    folder: Path,
    *more: str,
    in_short: bool = False,
    python: str = sys.executable,
    **settings: str,
) -> subprocess.Popen:
    """Args: in_short: the console shows what matters, and not fairseq's lines."""
    data, *words = flags(files, folder, *RECIPE, *more)
    left_out = ("--user-dir", "--save-dir", *["--log-format"] * in_short)
    given = [word for word in words if not word.startswith(left_out)]
    environment = {
        **os.environ,
        "NPROC": "1",
        "OMP_NUM_THREADS": "1",
        "SAVE_DIR": str(folder),
        **settings,
    }
    return subprocess.Popen(
        [python, "-m", "ofa", "train", data, *given],
        env=environment,
        cwd="/",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("settings", [{}, {"FRESH": "1"}, {"NPROC": "2"}])
def test_the_launcher_neither_logs_into_nor_moves_the_folder_of_a_run(files, tmp_path, settings):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/train.log").write_text("of the first run\n")
    with lock_folder(tmp_path / "run"):
        before = state_of(tmp_path)
        done = launch(files, tmp_path / "run", **settings)
        assert state_of(tmp_path) == before
    assert (
        done.returncode == 2
        and f"in use by process {os.getpid()}" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_a_launched_run_owns_its_folder_logs_and_begins_anew_when_asked(files, tmp_path):
    folder = tmp_path / "run"
    looks = tmp_path / "sitecustomize.py"
    looks.write_text(
        "import sys, os, pathlib\nif 'fairseq_cli.train' in sys.orig_argv:\n    print('owner:',"
        f" pathlib.Path({str(folder)!r}, 'run.lock').read_text().split()[1] == str(os.getpid()))\n"
    )
    done = launch(files, folder, in_short=True, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "checkpoint_last.pt").exists() and not (folder / "run.lock").exists()
    log = (folder / "train.log").read_text()
    assert "owner: True\n" in log and "done training" in log
    assert "\x1e" not in log and len(log_lines(log)) == 1
    assert yaml.safe_load((folder / "config.yaml").read_text())["label_smoothing"] == 0.1
    plan, *lines = done.stdout.splitlines()
    assert plan.startswith("plan: 21 rows, batch 4, 1 epoch, 6 updates, about ")
    assert plan in log
    assert lines[0] == f"starting; the whole log is {folder / 'train.log'}"
    assert lines[1].startswith("training ") and lines[1].endswith(" on 1 process (cpu, fp32)")
    assert lines[2].startswith("update 5/6, epoch 1/1: loss ") and ", ETA " in lines[2]
    last = folder / "checkpoint_last.pt"
    evaluate = f"ofa evaluate {last} {files.valid} --report {folder / 'report.html'}"
    assert lines[3:] == [
        f"no validation chose a best checkpoint; the last one: {last}",
        f"next: {evaluate}",
        "finished after update 6: 1 epoch done, as --max-epoch says",
    ]
    again = launch(files, folder, python=interpreter(), FRESH="1")
    assert again.returncode == 0, again.stdout[-3000:]
    moved = [path for path in tmp_path.iterdir() if re.fullmatch(r"run\.\d{8}-\d{6}", path.name)]
    assert (
        len(moved) == 1
        and (moved[0] / "checkpoint_last.pt").exists()
        and not (moved[0] / "run.lock").exists()
    )
    assert (folder / "checkpoint_last.pt").exists()


KILL_RANK_1 = """
import os, signal, sys, threading, time

def kill_when_trained(log):
    while not os.path.exists(log) or "train_inner" not in open(log).read():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)

if "fairseq_cli.train" in sys.orig_argv and os.environ.get("RANK") == "1":
    log = os.environ["SAVE_DIR"] + "/train.log"
    threading.Thread(target=kill_when_trained, args=[log], daemon=True).start()
"""


def test_a_killed_rank_of_a_launched_run_is_one_line_with_signal_and_log(files, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(KILL_RANK_1)
    done = launch(
        files,
        tmp_path / "run",
        "--max-epoch=1000",
        "--log-interval=1",
        python=interpreter(),
        NPROC="2",
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("error: rank ")]
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, (
        done.stdout[-3000:] + done.stderr
    )
    assert len(said) == 1 and re.match(
        rf"error: rank 1 \(process \d+ on {socket.gethostname()}\) was ended by signal 9"
        r" \(SIGKILL\)",
        said[0],
    )
    assert (
        f"above and in {tmp_path}/run/train.log" in said[0]
        and not (tmp_path / "run/run.lock").exists()
    )


def test_the_first_node_alone_owns_and_logs_a_run_of_several(files, tmp_path):
    """Another node of a run that is refused has nothing to touch then, and two hosts never
    append to one file."""
    nodes = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    nodes["python"] = interpreter()
    with start(files, tmp_path / "run", NODE_RANK="1", FRESH="1", **nodes) as other:
        first = launch(files, tmp_path / "run", NODE_RANK="0", **nodes)
        output, errors = other.communicate()
    assert (first.returncode, other.returncode) == (0, 0), (
        first.stdout[-3000:] + output[-3000:] + errors
    )
    assert "as rank 0" in first.stdout and "as rank 1" in output
    assert "as rank 1" not in (tmp_path / "run/train.log").read_text() and not list(
        tmp_path.glob("run.2*")
    )
    assert (tmp_path / "run/checkpoint_last.pt").exists() and not (
        tmp_path / "run/run.lock"
    ).exists()


@pytest.mark.parametrize("script", ["quickstart.sh", "pretraining/demo.sh"])
def test_a_second_call_of_a_script_in_stages_removes_nothing_of_the_first(tmp_path, script):
    (tmp_path / "settings").write_text("of the first call")
    (tmp_path / "world").mkdir()
    environment = os.environ | {
        "QUICKSTART_DIR": str(tmp_path),
        "DEMO_DIR": str(tmp_path),
        "OFA_VENV": sys.prefix,
    }
    with lock_folder(tmp_path):
        before = state_of(tmp_path)
        done = subprocess.run(
            ["bash", str(ROOT / "run_scripts" / script), "--fresh"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert state_of(tmp_path) == before
    assert (
        done.returncode == 2
        and f"{Path(script).stem}: error: {tmp_path}: expected a folder that no other"
        in done.stderr
    )


@pytest.mark.parametrize(
    "fault, found",
    [
        (
            InUpdate(2, lose_memory),
            "memory: expected enough for this command, found none left. Lower --batch-size",
        ),
        (
            InUpdate(2, lose_gpu_memory),
            "found CUDA out of memory. Tried to allocate 20.00 MiB. Lower --batch-size",
        ),
        (InUpdate(2, lose_folder), "run: File exists"),
        (
            KilledWorker(),
            (
                r"data worker \(process \d+\): expected batches of it, found that it (was killed by"
                r" signal: Killed|exited unexpectedly)"
            ),
        ),
    ],
)
def test_what_the_machine_does_to_a_run_is_told_in_one_line(files, tmp_path, fault, found):
    workers = ("--num-workers=1",) if isinstance(fault, KilledWorker) else ()
    error = the_error(train(flags(files, tmp_path / "run", *RECIPE, *workers), prepare=fault))
    assert re.search(found, error) and "run the same command again" in error, error


def test_a_run_whose_checkpoints_cannot_fit_does_not_begin(files, tmp_path, finished):
    size = (finished / "checkpoint_last.pt").stat().st_size
    error = the_error(
        train(flags(files, tmp_path / "small", *RECIPE), prepare=LittleSpace(int(0.9 * size)))
    )
    assert "free space for a checkpoint, found" in error and not list(
        (tmp_path / "small").glob("*.pt")
    )
    assert train(flags(files, tmp_path / "large", *RECIPE), prepare=LittleSpace(size)).code == 0
