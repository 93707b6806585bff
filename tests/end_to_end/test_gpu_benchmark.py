"""The benchmark of a GPU runs on the CPU with tiny sizes, and writes both of its tables."""

import json
import os
import subprocess
import sys
from pathlib import Path

from programs import interpreter

ROOT = Path(__file__).resolve().parents[2]
WHAT = {
    "training",
    "beam-5 captions",
    "CIDEr optimization",
    "image codes",
    "reading images",
    "captions of random weights as in float32",
    "largest difference of a log-probability",
}


def test_the_script_writes_a_table_with_chip_and_date(tmp_path):
    arguments = ["bash", ROOT / "benchmarks/gpu.sh", tmp_path / "out", "--small", "--device", "cpu"]
    venv = str(Path(interpreter()).parents[1])
    environment = {"OFA_VENV": venv, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        arguments, env=os.environ | environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out/gpu.json").read_text())
    assert found["chip"] == "CPU" and len(found["date"]) == 10
    names = [figure["what"] for figure in found["figures"]]
    assert all(any(name.startswith(what) for name in names) for what in WHAT)
    failed = [figure for figure in found["figures"] if figure["value"] is None]
    assert not failed
    table = (tmp_path / "out/gpu.md").read_text().splitlines()
    assert table[0].startswith("CPU, ") and found["date"] in table[0]
    assert [line.split("|")[1].strip() for line in table[4:]] == names


def test_a_measurement_that_fails_is_a_line_of_the_table(monkeypatch):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import time

    import gpu
    import torch

    def broken(setting):
        yield gpu.Figure("one", 1.0, "images/s", bound=4.0, goal=2.0)
        raise RuntimeError("CUDA out of memory")

    setting = gpu.Setting(torch.device("cpu"), torch.float32, True, time.monotonic() + 60)
    first, second = gpu.run([broken], setting)
    assert first.row() == "| one | 1 | images/s | 4 | 25% | 2 |  |"
    assert second.value is None and second.note == "failed: CUDA out of memory"
    setting.ends = 0.0
    (late,) = gpu.run([broken], setting)
    assert late.note == "no time left"
