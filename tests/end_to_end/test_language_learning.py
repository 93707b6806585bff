"""Language tasks learned from our grammar in seconds: clearly better on unseen rows than the
constant baseline, for two seeds.

By upstream's flags, from random weights, without any image; then ``ofa evaluate``, whose test
rows the training never saw.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from language_files import METRICS, flags, make_vocabulary, write_file
from training_runs import train

from ofa.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
UPDATES = {"cola": 80, "mnli": 120, "gigaword": 180}
# on the page of an evaluation
ASKED = {"cola": "grammatically correct?", "mnli": "imply text2", "gigaword": " town ."}
LEARNING = (
    "--batch-size=32",
    "--adam-betas=(0.9,0.98)",
    "--label-smoothing=0.0",
    "--warmup-updates=20",
    "--dropout=0.0",
    "--cpu",
    "--disable-validation",
    "--no-save-optimizer-state",
    "--log-interval=1000",
)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    return make_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(
    scope="module", params=[(task, seed) for task in UPDATES for seed in (1, 2)], ids=str
)
def run(request, vocabulary, tmp_path_factory) -> SimpleNamespace:
    task, seed = request.param
    folder = tmp_path_factory.mktemp(task)
    rows = write_file(folder / "train.tsv", task, "train", 3000, seed)
    unseen = write_file(folder / "test.tsv", task, "test", 100, seed)
    words = flags(
        task,
        f"{rows},{unseen}",
        vocabulary,
        f"--user-dir={ROOT / 'ofa'}",
        f"--save-dir={folder / 'run'}",
        f"--seed={seed}",
        f"--max-update={UPDATES[task]}",
        f"--total-num-update={UPDATES[task]}",
        *LEARNING,
    )
    done = train(words)
    assert done.code == 0, done.log[-3000:]
    return SimpleNamespace(
        task=task,
        folder=folder,
        rows=rows,
        unseen=unseen,
        checkpoint=folder / "run/checkpoint_last.pt",
    )


def constants(run) -> Path:
    """The answers of the training rows, a line each."""
    from ofa.tasks import spec_of

    spec, path = spec_of(run.task), run.folder / "answers.txt"
    found = [
        dict(zip(spec.column_names, reversed(line.split("\t")[: -len(spec.columns) - 1 : -1])))
        for line in run.rows.read_text().splitlines()
    ]
    path.write_text("".join(f"{next(iter(spec.row_references(row)))}\n" for row in found))
    return path


def test_unseen_rows_are_answered_much_better_than_by_the_best_constant(run):
    results = run.folder / "results"
    command = [
        "evaluate",
        str(run.unseen),
        "--path",
        str(run.checkpoint),
        "--results-path",
        str(results),
        "--cpu",
        "--batch-size",
        "50",
        "--constant-from",
        str(constants(run)),
        "--report",
        str(results / "page.html"),
    ]
    assert main(command) == 0
    found = json.loads((results / "test_scores.json").read_text())
    name = METRICS.get(run.task, "acc")
    score, constant = found["scores"][name], found["best_constant"]["scores"][name]
    assert score > constant + 0.3, (score, constant)
    entries = json.loads((results / "test_predict.json").read_text())
    assert len(entries) == 100 and set(entries[0]) == (
        {"hyp", "ref"} if run.task == "gigaword" else {"uniq_id", "answer"}
    )
    page = (results / "page.html").read_text()
    assert ASKED[run.task] in page
