"""The last line of a run over several processes names the one that died."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.trainer.processes import free_port

pytestmark = pytest.mark.slow  # runs of several processes

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(tmp_path: Path, code: str) -> subprocess.CompletedProcess:
    (tmp_path / "job.py").write_text(
        f"import os, signal, sys, time\nrank = int(os.environ['RANK'])\n{code}\n"
    )
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "ofa.trainer.processes",
            "--nproc_per_node=2",
            "--master_addr=127.0.0.1",
            "--master_port=0",
            str(tmp_path / "job.py"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OFA_RUN_LOG": f"{tmp_path}/train.log"},
    )


def test_a_killed_rank_is_named_with_its_signal_and_log(tmp_path):
    done = run_ranks(
        tmp_path, "os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(60)"
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    assert (
        "rank 1 (process " in errors[0]
        and "was ended by signal 9 (SIGKILL)" in errors[0]
        and f"{tmp_path}/train.log" in errors[0]
    )


def test_the_status_of_a_rank_that_gave_up_is_that_of_the_run(tmp_path):
    done = run_ranks(
        tmp_path,
        "rank == 0 or sys.exit('error: a.tsv:3: expected 5 columns') if rank else time.sleep(1)",
    )
    assert (
        done.returncode == 1
        and "error: rank 1 (process " in done.stderr
        and "ended with status 1" in done.stderr
    ), done.stderr
    done = run_ranks(tmp_path, "sys.exit(2 if rank else 0)")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_ranks_that_stop_as_asked_end_the_run_with_the_status_of_the_signal(tmp_path):
    """The signal comes before the first update, where each rank ends with a status of its own."""
    ask = "os.kill(int(os.environ['OFA_LAUNCHER_PID']), signal.SIGINT)"
    stop = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"
    done = run_ranks(tmp_path, f"{stop}\nrank or (time.sleep(1), {ask})\ntime.sleep(60)")
    assert done.returncode == 130 and "error: " not in done.stderr


def test_a_run_that_says_that_it_was_stopped_ends_with_the_status_of_the_signal(tmp_path):
    (tmp_path / "interrupted").write_text("SIGTERM: stopped as asked after update 3\n")
    assert run_ranks(tmp_path, "").returncode == 143


def test_a_run_that_ends_well_ends_silently(tmp_path):
    done = run_ranks(tmp_path, "")
    assert done.returncode == 0 and "error" not in done.stderr


@pytest.mark.parametrize("rank, found", [(0, "1/2 clients joined"), (1, "timed out after")])
def test_a_node_that_stays_alone_says_so_in_one_line(rank, found):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ofa.trainer.processes",
            "--nnodes=2",
            f"--node_rank={rank}",
            "--nproc_per_node=1",
            "--master_addr=127.0.0.1",
            f"--master_port={free_port()}",
            "--rdzv_conf=timeout=1",
            "-m",
            "this",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: nodes: expected the first one") and found in done.stderr
