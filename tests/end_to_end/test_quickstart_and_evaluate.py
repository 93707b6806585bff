"""The whole way once, on a toy scale: world, vocabulary, training, evaluation, page; then what
``ofa evaluate`` promises."""

import base64
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import interpreter

ROOT = Path(__file__).resolve().parents[2]
NO_METEOR = ["--scores", "CIDEr,BLEU-1,BLEU-2,BLEU-3,BLEU-4,ROUGE-L"]


# This interpreter's environment may be another than .venv: the script is told where it is and asked
# not to make one.
TOY = {
    "QUICKSTART_SCENES": "40",
    "QUICKSTART_UPDATES": "4",
    "QUICKSTART_UPDATES2": "2",
    "QUICKSTART_UPDATES3": "4",
    "QUICKSTART_BATCH": "4",
    "QUICKSTART_VAL_SCENES": "10",
    "QUICKSTART_TEST_SCENES": "11",
    "OFA_VENV": sys.prefix,
    "OMP_NUM_THREADS": "1",
}


def quickstart(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess:
    """By its script."""
    return subprocess.run(
        ["bash", str(ROOT / "run_scripts/quickstart.sh"), *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, **TOY, "QUICKSTART_DIR": str(folder), **settings},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    done = quickstart(folder, OFA_EXECUTABLE=interpreter())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


def evaluate(run: Path, *options: str) -> int:
    """``ofa evaluate`` in this process."""
    from ofa.cli.main import main

    return main(["evaluate", "--path", str(run / "stage2/checkpoint_last.pt"), "--cpu", *options])


def test_quickstart_prints_a_table_and_writes_the_page(run):
    printed = (run / "stdout.txt").read_text()
    for words in (
        "CIDEr",
        "BLEU-4",
        "constant baseline",
        "3 train ofa_nano on captions",
        "stage 1",
        "vqa_score",
        "IoU",
        "together",
        str(run / "report.html"),
    ):
        assert words in printed
    page = (run / "report.html").read_text()
    captions, questions, boxes = map(html.unescape, re.findall(r'srcdoc="([^"]*)"', page))
    assert captions.count('<article class="card"') == 11 and "validation CIDEr-D" in captions
    assert (
        questions.count('<article class="card"') == 33
        and "?" in questions
        and "time per stage" in boxes
    )
    assert boxes.count('<article class="card"') == len(
        (run / "world/refcoco_test.tsv").read_text().splitlines()
    )
    assert boxes.count('class="predicted"') >= 11 and boxes.count('class="true"') >= 11


def test_one_model_answers_questions_and_points_with_the_options_it_was_trained_with(run):
    answers = json.loads((run / "results/questions_predict.json").read_text())
    known = json.loads((run / "world/ans2label.json").read_text())
    # of the set that training named
    assert len(answers) == 33 and all(entry["answer"] in known for entry in answers)
    boxes = json.loads((run / "results/boxes_predict.json").read_text())
    assert all(0 <= number <= 64 for entry in boxes for number in entry["box"])
    log = (run / "joint/train.log").read_text()
    assert all(
        re.search(rf"\| valid .*\| {name} [0-9.]+", log) for name in ("cider", "vqa_score", "score")
    )


def test_a_model_of_several_tasks_is_evaluated_on_one_that_is_named(run, capsys):
    from ofa.cli.main import main

    path = ["--path", str(run / "joint/checkpoint_last.pt"), "--cpu"]
    for task, found in (([], "no task is chosen"), (["--task", "snli_ve"], "not for 'snli_ve'")):
        assert main(["evaluate", str(run / "world/vqa_test.tsv"), *path, *task]) == 2
        assert re.search(
            f"one model for caption, vqa_gen, refcoco, and {found}; choose one by --task",
            capsys.readouterr().err,
        )


def test_a_second_call_of_quickstart_finishes_at_once(run):
    stamps = {
        path: path.stat().st_mtime_ns
        for path in (run / "report.html", run / "joint/checkpoint_last.pt")
    }
    again = quickstart(run)
    assert again.returncode == 0 and "CIDEr" in again.stdout
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_learning_curves_are_those_of_the_runs(run, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import learning_curves

    for name, value in TOY.items():
        monkeypatch.setenv(name, value)
    found = learning_curves.run(1, run, [])
    assert [update for update, _ in found["stage1"]] == [2, 4] and [
        update for update, _ in found["stage2"]
    ] == [2]
    scores = json.loads((run / "results/test_scores.json").read_text())["scores"]
    assert found["test_cider"] == scores["CIDEr"] and not found["diverged"]


def test_quickstart_refuses_unknown_words(run):
    done = quickstart(run, "--quick")
    assert done.returncode == 2 and "--quick" in done.stderr


def test_predictions_cover_every_row_in_the_order_of_the_file(run):
    entries = json.loads((run / "results/test_predict.json").read_text())
    rows = [line.split("\t") for line in (run / "world/caption_test.tsv").read_text().splitlines()]
    assert [entry["image_id"] for entry in entries] == [row[1] for row in rows]
    assert all(set(entry) == {"image_id", "caption"} for entry in entries)


def test_one_and_two_processes_write_the_same_file(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", interpreter())
    data = str(run / "world/caption_test.tsv")
    common = [data, "--batch-size=2", "--beam=2", "--max-len-b=8", *NO_METEOR]
    assert evaluate(run, *common, "--results-path", str(tmp_path / "one")) == 0
    two = ("--nproc=2", "--num-workers=1", "--results-path", str(tmp_path / "two"))
    assert evaluate(run, *common, *two) == 0
    assert (tmp_path / "one/test_predict.json").read_bytes() == (
        tmp_path / "two/test_predict.json"
    ).read_bytes()
    assert (tmp_path / "one/test_scores.json").read_bytes() == (
        tmp_path / "two/test_scores.json"
    ).read_bytes()


def test_upstream_flags_and_overrides_are_understood(run, tmp_path):
    data = str(run / "world/caption_test.tsv")
    overrides = str(
        {"data": data, "bpe_dir": str(run / "vocab"), "eval_cider": False, "selected_cols": "1,4,2"}
    )
    assert (
        evaluate(
            run,
            f"--model-overrides={overrides}",
            "--user-dir=ofa",
            "--task=caption",
            "--gen-subset=val",
            "--beam=2",
            "--max-len-a=0",
            "--max-len-b=6",
            "--min-len=1",
            "--lenpen=1",
            "--temperature=1.0",
            "--unnormalized",
            "--no-repeat-ngram-size=3",
            "--seed=7",
            "--num-workers=0",
            "--batch-size=16",
            "--log-format=simple",
            f"--results-path={tmp_path}",
            *NO_METEOR,
        )
        == 0
    )
    assert len(json.loads((tmp_path / "val_predict.json").read_text())) == 11


def test_a_folder_of_images_is_captioned(run, tmp_path):
    lines = (run / "world/caption_test.tsv").read_text().splitlines()[:3]
    images = tmp_path / "images"
    images.mkdir()
    for number, line in enumerate(lines):
        (images / f"{number}.jpg").write_bytes(base64.b64decode(line.split("\t")[4]))
    (images / "notes.txt").write_text("no image")
    assert (
        evaluate(
            run,
            "--images",
            str(images),
            "--max-len-b",
            "6",
            "--results-path",
            str(tmp_path / "results"),
            "--report",
            str(tmp_path / "page.html"),
        )
        == 0
    )
    entries = json.loads((tmp_path / "results/images_predict.json").read_text())
    assert [entry["image_id"] for entry in entries] == ["0.jpg", "1.jpg", "2.jpg"]
    assert (tmp_path / "page.html").read_text().count("<article") == 3


def test_bf16_predicts_every_row_too(run, tmp_path):
    assert (
        evaluate(
            run,
            str(run / "world/caption_test.tsv"),
            "--bf16",
            "--max-len-b",
            "6",
            "--results-path",
            str(tmp_path),
            *NO_METEOR,
        )
        == 0
    )
    assert len(json.loads((tmp_path / "test_predict.json").read_text())) == 11


def test_the_stem_weights_that_training_started_from_are_not_needed(run, tmp_path):
    assert (
        evaluate(
            run,
            str(run / "world/caption_test.tsv"),
            "--max-len-b",
            "6",
            "--results-path",
            str(tmp_path),
            *NO_METEOR,
            "--model-overrides",
            "{'resnet_model_path': '/nowhere/resnet18.pth'}",
        )
        == 0
    )
    assert len(json.loads((tmp_path / "test_predict.json").read_text())) == 11


def spoil_row(run: Path, folder: Path) -> str:
    lines = (run / "world/caption_test.tsv").read_text().splitlines()
    fields = lines[4].split("\t")
    lines[4] = "\t".join([*fields[:4], fields[4][:300]])
    (folder / "bad.tsv").write_text("\n".join(lines) + "\n")
    return str(folder / "bad.tsv")


@pytest.mark.parametrize(
    "options, words",
    [
        (lambda run, tmp: ["missing.tsv"], r"missing\.tsv.*TSV"),
        (
            lambda run, tmp: [str(run / "world/caption_test.tsv"), "--path", "missing.pt"],
            r"missing\.pt.*no such file; check the path",
        ),
        (
            lambda run, tmp: [str(run / "world/caption_test.tsv"), "--path", __file__],
            re.escape(__file__),
        ),
        (
            lambda run, tmp: [str(run / "world/caption_test.tsv"), "--selected-cols", "1,9,2"],
            "asks for column 9",
        ),
        (
            lambda run, tmp: [str(run / "world/caption_test.tsv"), "--bpe-dir", str(tmp)],
            "expected BPE files",
        ),
        (
            lambda run, tmp: [
                str(run / "world/caption_test.tsv"),
                "--bpe-dir",
                other_vocabulary(tmp),
            ],
            "vocabulary entries.*--bpe-dir",
        ),
        (
            lambda run, tmp: [
                str(run / "world/caption_test.tsv"),
                "--model-overrides",
                "{'encoder_embed_dim': 64, 'decoder_embed_dim': 64}",
            ],
            "does not fit the model: .*another shape",
        ),
        (
            lambda run, tmp: [str(run / "world/caption_test.tsv"), "--task", "captoin"],
            "captoin.*known: .*caption",
        ),
        (lambda run, tmp: [spoil_row(run, tmp)], r"bad\.tsv:5: .*image"),
        (lambda run, tmp: ["--images", str(tmp)], "expected image files"),
        (lambda run, tmp: [], r"expected a checkpoint and a TSV file .* found .*\.pt alone"),
    ],
    ids=[
        "tsv",
        "checkpoint",
        "no-checkpoint",
        "column",
        "vocabulary",
        "other-vocabulary",
        "other-size",
        "task",
        "image",
        "folder",
        "nothing",
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(run, tmp_path, capsys, options, words):
    results = tmp_path / "results"
    work = tmp_path / "work"
    work.mkdir()
    assert (
        evaluate(
            run,
            *options(run, work),
            "--results-path",
            str(results),
            "--report",
            str(results / "page.html"),
        )
        == 2
    )
    message = capsys.readouterr().err
    errors = [line for line in message.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(words, errors[0]), message
    assert "Traceback" not in message and not results.exists()


def other_vocabulary(folder: Path) -> str:
    from ofa.tokens.train_tokenizer import build_vocabulary

    build_vocabulary(["a red ball", "two dogs"], 340, folder / "other")
    return str(folder / "other")


@pytest.mark.parametrize(
    "option",
    [
        ["--model-overrides", "[1"],
        ["--model-overrides", "__import__('os')"],
        ["--beams", "5"],
        ["--compare", "old=missing.json"],
    ],
)
def test_a_wrong_option_is_refused_by_name(run, capsys, option):
    with pytest.raises(SystemExit) as error:
        evaluate(run, "x.tsv", *option)
    assert error.value.code == 2 and option[0] in capsys.readouterr().err


def test_a_damaged_row_in_a_data_worker_is_still_one_message(run, tmp_path, capsys):
    assert (
        evaluate(
            run,
            spoil_row(run, tmp_path),
            "--num-workers",
            "1",
            "--results-path",
            str(tmp_path / "results"),
        )
        == 2
    )
    message = capsys.readouterr().err
    assert re.search(r"^error: .*bad\.tsv:5: ", message, re.M) and "Traceback" not in message
