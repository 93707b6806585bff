"""The SLURM script, run without SLURM: its commands are what every node would start."""

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from dry_runs import after

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "run_scripts/slurm/train.sbatch"


@pytest.fixture
def slurm(tmp_path):
    """Environment of a job on two nodes with four GPUs each, with stand-ins for SLURM's
    commands."""
    commands = {
        "scontrol": (
            'case $1 in show) printf "%s\\n" node7 node8 ;; *) echo "$@" >> "$SLURM_TEST/asked" ;;'
            " esac"
        ),
        # as srun does: one task for each node, here one after the other
        "srun": (
            'while [[ $1 == --* ]]; do shift; done; for node in 0 1; do SLURM_NODEID=$node "$@";'
            " done"
        ),
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod((tmp_path / name).stat().st_mode | stat.S_IXUSR)
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("SLURM", "MASTER", "NNODES", "NPROC", "NODE_RANK"))
    }
    return kept | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_TEST": str(tmp_path),
        "SLURM_JOB_ID": "4711",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "OFA_VENV": sys.prefix,
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
        "SIZE": "base",
    }


def run(environment: dict, *words: str, **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", SCRIPT, *words],
        env=environment | settings,
        capture_output=True,
        text=True,
        cwd="/",
    )


def test_srun_starts_the_script_once_on_every_node(slurm):
    done = run(slurm, "caption/train_stage1.sh", "--lr=3e-5", DRY_RUN="1")
    words = shlex.split(done.stdout)
    assert (
        done.returncode == 0
        and words[0] == "srun"
        and {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1"} <= set(words)
    )
    assert words[-2:] == [str(ROOT / "run_scripts/caption/train_stage1.sh"), "--lr=3e-5"]


def test_every_node_joins_the_same_run(slurm, parse_training):
    """The commands inside of srun, by the dry run of the script that it starts."""
    task = shlex.split(run(slurm, "caption/train_stage1.sh", "--lr=3e-5", DRY_RUN="1").stdout)
    environment = slurm | {
        "DRY_RUN": "1",
        "NNODES": "2",
        "NPROC": "4",
        "MASTER_ADDR": "node7",
        "MASTER_PORT": "14711",
    }
    lines = subprocess.run(
        task, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(lines) == 2
    for rank, line in enumerate(lines):
        words = shlex.split(line)
        torchrun = " ".join(after(words, "ofa.trainer.processes")[:10])
        assert (
            torchrun
            == f"--nnodes 2 --node_rank {rank} --nproc_per_node 4 --master_addr node7 --master_port"
            " 14711"
        )
        args = parse_training(after(words, "fairseq_cli.train"))
        assert (
            args.distributed_world_size == 8
            and args.batch_size * 8 * args.update_freq[0] == 128
            and args.lr == [3e-5]
        )


def test_a_job_whose_time_is_up_is_asked_to_save_and_queued_again(slurm, tmp_path):
    (tmp_path / "srun").write_text(
        "#!/usr/bin/env bash\ntrap 'touch \"$SLURM_TEST/saved\"; exit 0' TERM\nkill -USR1"
        " $PPID\nwhile true; do sleep 0.1; done\n"
    )
    done = run(slurm, "caption/train_stage1.sh")
    assert done.returncode == 0 and (tmp_path / "saved").exists(), done.stderr
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"


def test_without_slurm_one_line_says_so(slurm):
    done = run({**slurm, "SLURM_JOB_NODELIST": ""}, "caption/train_stage1.sh")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "found no SLURM here" in done.stderr and not done.stdout


def test_a_wrong_name_is_refused(slurm):
    done = run(slurm, "caption/train.sh")
    assert done.returncode == 2 and "caption/train_stage1.sh" in done.stderr


def test_the_job_asks_for_one_task_a_node_and_a_warning_before_its_end():
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", SCRIPT.read_text(), re.M))
    assert (
        options["ntasks-per-node"] == "1"
        and options["signal"] == "B:USR1@300"
        and "requeue" in options
    )
