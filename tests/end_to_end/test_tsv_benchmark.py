"""The TSV benchmark runs and its figures have the promised names."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_tsv_benchmark_runs_and_writes_its_figures(tmp_path):
    arguments = ["--rows", "1000", "--megabytes", "1", "--samples", "2", "--folder", tmp_path]
    subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks" / "tsv.py",
            *arguments,
            "--json",
            tmp_path / "figures.json",
        ],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"first_index_mb_per_s", "opening_ms", "sample_ratio"} <= set(figures)
    assert figures["opening_ms"] < 50
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_startup_benchmark_runs_and_writes_its_figures(tmp_path):
    arguments = ["--rows", "1000", "--shards", "3", "--ranks", "2", "--folder", tmp_path]
    subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks" / "startup.py",
            *arguments,
            "--json",
            tmp_path / "figures.json",
        ],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"batches_private_mb", "shards_first_s", "shards_again_s"} <= set(figures)
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
