"""Benchmarks of whole updates run: of waiting for data, from TSV files and from shards, and of the
trainer beside a bare loop."""

import os
import re
import subprocess
from pathlib import Path

from programs import interpreter

ROOT = Path(__file__).resolve().parents[2]


def what_prints(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [interpreter(), ROOT / "benchmarks" / program, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_data_wait_benchmark_runs_from_both_kinds_of_files():
    arguments = [
        "--updates",
        "1",
        "--warm-up",
        "1",
        "--arch",
        "ofa_nano",
        "--pixels",
        "64",
        "--batch",
        "1",
        "--workers",
        "1",
    ]
    printed = what_prints("data_wait.py", *arguments)
    found = re.findall(r"(TSV|shards): waits [0-9.]+% of the time", printed)
    assert found == ["TSV", "shards"]


def test_an_update_of_the_trainer_is_measured_beside_one_of_a_bare_loop():
    printed = what_prints("trainer_overhead.py", "--updates=1", "--batch=1", "--pixels=32")
    assert re.search(r"bare loop [0-9.]+ ms, trainer [0-9.]+ ms an update, overhead", printed)
