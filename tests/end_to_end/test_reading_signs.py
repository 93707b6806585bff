"""Text recognition learned from synthetic words, with two seeds: words that no training image
shows are read, clearly better than the constant baseline reads them. Then evaluation, pages and
predictions of the same model.
"""

import json
import re
from types import SimpleNamespace

import pytest
import training_runs
from PIL import Image

from ofa.cli.main import main
from ofa.synthetic.words import WordStyle, make_split, render
from ofa.task.prediction import Prediction
from ofa.tasks.ocr import ReadingMetrics
from ofa.tokens.train_tokenizer import build_vocabulary

WORLD = (
    "--letters=abdhkosx",
    "--shortest=3",
    "--longest=3",
    "--plain",
    "--width=48",
    "--train=600",
    "--val=24",
    "--test=80",
    "--jobs=1",
)
RECIPE = (
    "--task=ocr",
    "--selected-cols=0,1,2",
    "--patch-image-size=48",
    '--eval-args={"beam":1,"max_len_b":6}',
    "--dropout=0",
    "--encoder-drop-path-rate=0",
    "--decoder-drop-path-rate=0",
    "--label-smoothing=0",
    "--batch-size=16",
    "--batch-size-valid=24",
    "--lr=2e-3",
    "--warmup-ratio=0.05",
    "--adam-betas=(0.9,0.98)",
    "--max-epoch=8",
    "--validate-interval=4",
    "--save-interval=4",
    "--best-checkpoint-metric=acc",
    "--maximize-best-checkpoint-metric",
    "--eval-print-samples",
    "--resnet-width=16",
    "--encoder-embed-dim=64",
    "--decoder-embed-dim=64",
    "--encoder-ffn-embed-dim=128",
    "--decoder-ffn-embed-dim=128",
)


@pytest.fixture(scope="module", params=(1, 2))
def run(request, tmp_path_factory) -> SimpleNamespace:
    """Words, and a model after 300 updates on them; one seed for both."""
    folder = tmp_path_factory.mktemp("signs")
    assert (
        main(
            [
                "prepare",
                "synthetic-words",
                "--out",
                str(folder / "world"),
                "--seed",
                str(request.param),
                *WORLD,
            ]
        )
        == 0
    )
    texts = (folder / "world/texts.txt").read_text().splitlines()
    build_vocabulary(
        [*texts, *["what are the texts on the image?"] * len(texts)], 288, folder / "vocabulary"
    )
    files = SimpleNamespace(
        vocabulary=folder / "vocabulary",
        train=folder / "world/ocr_train.tsv",
        valid=folder / "world/ocr_val.tsv",
    )
    done = training_runs.train(
        training_runs.flags(files, folder / "run", *RECIPE, f"--seed={request.param}")
    )
    assert done.code == 0, done.log[-3000:]
    return SimpleNamespace(
        folder=folder,
        seed=request.param,
        log=done.log,
        texts=texts,
        test=folder / "world/ocr_test.tsv",
        checkpoint=str(folder / "run/checkpoint_best.pt"),
    )


def test_words_never_seen_are_read_better_than_any_constant_answer(run):
    results = run.folder / "results"
    assert (
        main(
            [
                "evaluate",
                str(run.test),
                "--path",
                run.checkpoint,
                "--cpu",
                "--results-path",
                str(results),
                "--constant-from",
                str(run.folder / "world/texts.txt"),
                "--report",
                str(results / "page.html"),
            ]
        )
        == 0
    )
    entries = json.loads((results / "test_predict.json").read_text())
    found = json.loads((results / "test_scores.json").read_text())
    unseen = [line.split("\t")[2] for line in run.test.read_text().splitlines()]
    assert not set(unseen) & set(run.texts)
    assert [[*entry] for entry in entries] == [["image_id", "ocr"]] * 80 and entries[3][
        "image_id"
    ] == "test_3"
    assert found["scores"]["acc"] == pytest.approx(
        sum(entry["ocr"] == text for entry, text in zip(entries, unseen)) / 80
    )
    expected = [[text] for text in unseen]
    nearest = max(
        ReadingMetrics().final_scores([Prediction(text)] * 80, expected).overall["ned"]
        for text in {*unseen, *run.texts}
    )
    assert found["best_constant"]["scores"]["acc"] < 0.1 and nearest < 0.4
    assert found["scores"]["acc"] > 0.3 and found["scores"]["ned"] > nearest + 0.3, found["scores"]
    assert "constant baseline" in (results / "page.html").read_text()


def test_validation_names_the_best_checkpoint_by_accuracy(run):
    validated = re.findall(r"\| acc ([\d.]+) .*\| ned ([\d.]+)", run.log) or re.findall(
        r"\| ned ([\d.]+) .*\| acc ([\d.]+)", run.log
    )
    assert len(validated) == 2 and "example hypothesis: " in run.log


def test_an_image_is_read_from_the_command_line(run, tmp_path):
    style = WordStyle(run.seed, letters="abdhkosx", shortest=3, longest=3, plain=True, width=48)
    for word in make_split(style, "test", 3):
        render(word, style).save(tmp_path / f"{word.image_id}.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "broken.png").read_bytes()[:50])
    assert (
        main(
            [
                "predict",
                run.checkpoint,
                str(tmp_path),
                "--task",
                "read",
                "--cpu",
                "--out",
                str(tmp_path / "out.jsonl"),
            ]
        )
        == 1
    ), "one image is broken"
    lines = {
        line["image"]: line
        for line in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    }
    entries = json.loads((run.folder / "results/test_predict.json").read_text())
    assert [lines[f"test_{row}.png"]["answer"] for row in range(3)] == [
        entry["ocr"] for entry in entries[:3]
    ]
    assert "broken.png" in lines["broken.png"]["error"] and lines["test_0.png"]["score"] < 0
    assert (
        main(
            [
                "evaluate",
                "--images",
                str(tmp_path),
                "--path",
                run.checkpoint,
                "--cpu",
                "--results-path",
                str(tmp_path / "results"),
            ]
        )
        == 1
    ), "the others are read"
    assert len(json.loads((tmp_path / "results/images_predict.json").read_text())) == 3
