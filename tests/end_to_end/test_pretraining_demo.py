"""The demo of pretraining once, on a toy scale: world, tokenizer, eight tasks, scores, drawings,
page; then what finetuning gains."""

import html
import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from programs import interpreter

ROOT = Path(__file__).resolve().parents[2]
# This interpreter's environment may be another than .venv: the script is told where it is and asked
# not to make one.
TOY = {
    "DEMO_SCENES": "40",
    "DEMO_VAL_SCENES": "6",
    "DEMO_TEST_SCENES": "6",
    "DEMO_CODES": "16",
    "DEMO_TOKENIZER_MINUTES": "0",
    "DEMO_TOKENIZER_UPDATES": "3",
    "DEMO_UPDATES": "3",
    "DEMO_BATCH": "4",
    "DEMO_DRAWINGS": "8",
    "DEMO_DRAW_UPDATES": "2",
    "DEMO_DRAW_BATCH": "4",
    "DEMO_GAIN_UPDATES": "0",
    "OFA_VENV": sys.prefix,
    "OMP_NUM_THREADS": "1",
}
TASKS = (
    "caption",
    "qa",
    "visual_grounding",
    "grounded_captioning",
    "image_text_matching",
    "detection",
    "image_infilling",
    "text_infilling",
)


def demo(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess:
    """By its script."""
    return subprocess.run(
        ["bash", str(ROOT / "run_scripts/pretraining/demo.sh"), *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, **TOY, "DEMO_DIR": str(folder), **settings},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "run"
    done = demo(folder, OFA_EXECUTABLE=interpreter())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


def test_every_task_stands_beside_its_best_constant_answer(run):
    found = json.loads((run / "results/pretraining_scores.json").read_text())
    assert set(found) == set(TASKS)
    assert all(
        entry["rows"] > 0 and entry["model"] >= 0 and entry["constant"] >= 0
        for entry in found.values()
    )
    printed = (run / "stdout.txt").read_text()
    assert (
        all(re.search(rf"^{task} .* constant baseline", printed, re.M) for task in TASKS)
        and "together" in printed
    )


def test_filled_images_are_scored_by_their_pixels(run):
    found = json.loads((run / "results/pretraining_scores.json").read_text())["image_infilling"][
        "further"
    ]
    assert [one["measure"] for one in found] == ["mean pixel error", "RMS pixel error"] and all(
        one["lower_is_better"] for one in found
    )
    assert all(
        0 < one["model"] < 256 and 0 < one["constant"] < 256 and 0 < one["reachable"] < 256
        for one in found
    )


def test_the_training_reports_every_task(run):
    log = (run / "pretrained/train.log").read_text()
    assert all(f"{task}_loss" in log and f"{task}_acc" in log for task in TASKS)


def test_captions_are_drawn_and_checked(run):
    captions = [
        line.split("\t")[2] for line in (run / "world/image_gen_test.tsv").read_text().splitlines()
    ]
    for samples in (1, 8):
        entries = json.loads((run / f"results/drawings_{samples}/draw_predict.json").read_text())
        assert [entry["caption"] for entry in entries] == captions and all(
            len(entry["files"]) == samples for entry in entries
        )
        figures = json.loads((run / f"results/drawings_{samples}.json").read_text())
        assert (
            figures["drawings"] == 6
            and 0 <= figures["exact"] <= figures["all_things_there"] <= figures["things_right"] <= 1
        )


def test_one_page_shows_a_summary_tasks_and_drawings(run):
    summary, tasks, drawings = map(
        html.unescape, re.findall(r'srcdoc="([^"]*)"', (run / "report.html").read_text())
    )
    for page in (summary, tasks):
        assert (
            all(f"<td>{task.replace('_', ' ')}</td>" in page for task in TASKS)
            and "constant baseline" in page
        )
    assert (
        "things right" in summary
        and "6 pretrain ofa_nano on eight tasks" in summary
        and "together" in summary
    )
    assert summary.count('<article class="card"') == 6 and "finetuning" not in summary
    assert (
        all(f'<i class="{kind}">' in tasks for kind in ("true", "asked"))
        and "seen, filled, true" in tasks
    )
    assert drawings.count('<article class="card"') == 6


def test_a_second_call_finishes_at_once_and_other_words_are_refused(run):
    stamps = {
        path: path.stat().st_mtime_ns
        for path in (run / "tokenizer/tokenizer.pt", run / "drawing/checkpoint_last.pt")
    }
    again = demo(run)
    assert again.returncode == 0 and "image_infilling" in again.stdout
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert demo(run, "--quick").returncode == 2


def test_the_checker_refuses_what_are_no_drawings(run, capsys):
    from ofa.cli.main import main

    assert main(["synthetic-shapes", "check", str(run / "results/pretraining_scores.json")]) == 2
    assert "expected a JSON list of predictions, found an object" in capsys.readouterr().err


def test_finetuning_starts_from_the_pretrained_model_or_from_nothing(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "executable", interpreter())
    import pretraining_gain

    args = Namespace(demo=run, folder=tmp_path, updates=1, batch=2, lr="1e-3", codes=16)
    for way in ("scratch", "pretrained"):
        assert 0 <= pretraining_gain.finetune(args, "boxes", way, seed=1)["score"] <= 1
    log = (tmp_path / "boxes_pretrained_seed1/train.log").read_text()
    assert "checkpoint_last.pt" in log and not list(tmp_path.rglob("*.pt"))
