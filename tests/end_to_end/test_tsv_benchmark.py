"""The benchmarks of data files run and their figures have the promised names."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def figures_of(program: str, folder: Path, *arguments: str) -> dict:
    """What a benchmark writes with ``--json``, and nothing else."""
    out = folder / "figures.json"
    command = [sys.executable, ROOT / "benchmarks" / program, *arguments]
    subprocess.run(
        [*command, "--folder", folder, "--json", out],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert [*folder.iterdir()] == [out]
    return json.loads(out.read_text())


def test_tsv_benchmark_runs_and_writes_its_figures(tmp_path):
    sizes = "--rows 1000 --megabytes 1 --samples 2".split()
    figures = figures_of("tsv.py", tmp_path, *sizes)
    assert {"first_index_mb_per_s", "opening_ms", "sample_ratio"} <= set(figures)
    assert figures["opening_ms"] < 50


def test_startup_benchmark_runs_and_writes_its_figures(tmp_path):
    sizes = "--rows 1000 --shards 3 --ranks 2".split()
    figures = figures_of("startup.py", tmp_path, *sizes)
    assert {"batches_private_mb", "shards_first_s", "shards_again_s"} <= set(figures)
