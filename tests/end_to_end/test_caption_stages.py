"""Both stages of captioning through their run scripts, on six images: stage 2 starts where
stage 1 was best."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from caption_files import caption, make_vocabulary, write_tsv
from programs import interpreter

from ofa.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "--num-bins=20",
    "--code-dict-size=16",
    "--code-image-size=64",
    "--image-bucket-size=8",
    "--token-bucket-size=32",
    "--patch-image-size=32",
    "--max-update=3",
    "--max-epoch=3",
    "--save-interval-updates=0",
    "--validate-interval-updates=0",
    "--log-interval=1",
    "--lr=1e-3",
)


def train(stage: int, folder: Path, *more: str, **settings: str) -> str:
    """What a training script printed. Settings and flags make it small; everything else is the
    script's own."""
    environment = {
        **os.environ,
        "OFA_EXECUTABLE": interpreter(),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "SIZE": "nano",
    }
    environment |= {
        "BPE_DIR": str(folder / "vocabulary"),
        "SAVE_DIR": str(folder / f"stage{stage}"),
        "NUM_WORKERS": "0",
    }
    environment |= {
        "DATA": f"{folder}/stage{stage}.tsv,{folder}/stage2.tsv",
        "BATCH": "3",
        "EFFECTIVE_BATCH": "3",
        **settings,
    }
    script = ROOT / f"run_scripts/caption/train_stage{stage}.sh"
    done = subprocess.run(
        ["bash", script, *SMALL, *more], capture_output=True, text=True, cwd="/", env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A folder with the data and the finished stage 1."""
    folder = tmp_path_factory.mktemp("stages")
    captions = [caption(number) for number in range(6)]
    write_tsv(folder / "stage1.tsv", captions)
    write_tsv(folder / "stage2.tsv", captions, joined=True)
    make_vocabulary(folder / "vocabulary")
    assert (
        main(
            [
                "cider-df",
                "build",
                "--tsv",
                str(folder / "stage2.tsv"),
                "--out",
                str(folder / "words.p"),
            ]
        )
        == 0
    )
    train(1, folder, RESTORE="none")
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    from ofa.checkpoints.read import read

    return read(path).weights


def test_stage_2_continues_the_best_of_stage_1_and_moves_no_batch_norm(run):
    best = run / "stage1/checkpoint_best.pt"
    printed = train(2, run, RESTORE=str(best), CIDER_DF=str(run / "words.p"), PRECISION="fp32")
    assert f"stage 2 starts from {best}" in printed and "starting; the whole log is" in printed
    assert len(re.findall(r"^update \d.*: loss [-\d.]+, score [\d.]+, ", printed, re.M)) == 3
    log = (run / "stage2/train.log").read_text()
    assert "batch norm: no statistics move (--freeze-resnet)" in log
    assert len(re.findall(r"train_inner .*score=", log)) == 3
    assert re.search(r"valid .*\| score [\d.]+.*\| cider [\d.]+", log)
    before, after = weights(best), weights(run / "stage2/checkpoint_last.pt")
    norms = [name for name in after if "running_" in name]
    assert len(norms) > 5 and all(before[name].equal(after[name]) for name in norms)
    changed = [name for name in after if name in before and not before[name].equal(after[name])]
    assert any(name.startswith("decoder.layers") for name in changed)
    assert not any("embed_tokens" in name for name in changed), "frozen"
    assert "CIDEr optimization: baseline leave-one-out" in log


def test_the_benchmark_of_a_stage_2_update_runs(capsys, monkeypatch):
    import importlib.util

    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("benchmark_scst", ROOT / "benchmarks/scst.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(
        sys,
        "argv",
        "scst.py --threads 1 --repeats 0 --arch ofa_nano --images 2 --pixels 32".split(),
    )
    monkeypatch.setattr(module.torch, "set_num_threads", lambda number: None)
    module.main()
    assert re.search(r"ofa_nano, 2 images x 5 samples.*ratio \d", capsys.readouterr().out)
