"""The benchmark of waiting for data runs, from TSV files and from shards."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "data_wait.py", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    found = re.findall(r"(TSV|shards): waits [0-9.]+% of the time", done.stdout)
    assert found == ["TSV", "shards"]
