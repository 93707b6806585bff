"""The benchmark of the doctor runs and its figures have the promised names."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_doctor_benchmark_runs_and_writes_its_figures(tmp_path):
    command = [
        sys.executable,
        ROOT / "benchmarks" / "doctor.py",
        "--rows",
        "200",
        "--photos",
        "3",
        "--folder",
        tmp_path,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [*command, "--json", tmp_path / "figures.json"], check=True, env=environment, timeout=120
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"vqa_gen_rows_per_s", "image_gen_rows_per_cpu_s", "decoded_photos_per_s"} <= set(
        figures
    )
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
