"""Chinese from training to upload: captions and boxes of unseen scenes, each better than the
best answer that looks at no image."""

import json
import re
from pathlib import Path

import pytest
import training_runs
from chinese_files import SIDE, UNSEEN, write_scenes
from PIL import Image
from training_runs import SMALL

from ofa.cli.main import main
from ofa.metrics.document_frequency import read_document_frequencies
from ofa.synthetic.shapes import make_scene, render
from ofa.task.text import is_chinese

UPDATES = {"caption": 200, "refcoco": 50}
OWN = {
    "caption": (
        "--task=caption",
        "--selected-cols=0,4,2",
        "--eval-cider",
        '--eval-args={"beam":2,"max_len_b":24}',
        "--validate-interval=99",
    ),
    "refcoco": (
        "--task=refcoco",
        "--selected-cols=0,3,1,2",
        f"--max-image-size={SIDE}",
        "--disable-validation",
    ),
}
WIDE = [f"--{part}-embed-dim=64" for part in ("encoder", "decoder", "encoder-ffn", "decoder-ffn")]
LEARNING = (
    "--batch-size=16",
    "--lr=4e-3",
    "--dropout=0",
    "--encoder-drop-path-rate=0",
    "--decoder-drop-path-rate=0",
    "--label-smoothing=0",
    "--adam-betas=(0.9,0.98)",
    "--warmup-ratio=0.05",
    "--num-bins=16",
    f"--patch-image-size={SIDE}",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("chinese"))


@pytest.fixture(scope="module")
def checkpoints(files) -> dict:
    """(task, seed) -> checkpoint, trained when it is first asked for."""
    made: dict = {}

    def checkpoint(task: str, seed: int) -> Path:
        if (task, seed) not in made:
            folder = files.folder / f"{task}_{seed}"
            files.train, files.valid = (
                files.folder / f"{'refcoco_cn' if task == 'refcoco' else task}_{split}.tsv"
                for split in ("train", "test")
            )
            done = training_runs.train(
                training_runs.flags(
                    files,
                    folder,
                    *SMALL,
                    *WIDE,
                    *LEARNING,
                    *OWN[task],
                    f"--seed={seed}",
                    f"--max-update={UPDATES[task]}",
                    f"--total-num-update={UPDATES[task]}",
                )
            )
            assert done.code == 0, done.log[-3000:]
            made[task, seed] = folder / "checkpoint_last.pt"
            made[task, seed, "log"] = done.log
        return made[task, seed]

    made["of"] = checkpoint
    return made


def evaluate(files, checkpoint: Path, task: str, *more: str) -> tuple[list[dict], dict, dict]:
    """Result file, scores, and those of the constant baseline."""
    results = checkpoint.parent / "results"
    name = "refcoco_cn" if task == "refcoco" else task
    assert (
        main(
            [
                "evaluate",
                str(files.folder / f"{name}_test.tsv"),
                "--path",
                str(checkpoint),
                "--results-path",
                str(results),
                "--cpu",
                "--batch-size",
                "30",
                "--constant-from",
                str(files.folder / f"{task}.txt"),
                *more,
            ]
        )
        == 0
    )
    found = json.loads((results / "test_scores.json").read_text())
    return (
        json.loads((results / "test_predict.json").read_text()),
        found["scores"],
        found["best_constant"]["scores"],
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_captions_of_unseen_scenes_beat_the_best_constant_one(files, checkpoints, seed, tmp_path):
    checkpoint = checkpoints["of"]("caption", seed)
    entries, scores, constant = evaluate(
        files,
        checkpoint,
        "caption",
        "--beam",
        "2",
        "--max-len-b",
        "24",
        "--report",
        str(tmp_path / "page.html"),
    )
    assert len(entries) == UNSEEN and all(
        re.fullmatch(r"只有一个\w+，\w+", entry["caption"]) for entry in entries
    ), entries[:3]
    assert scores["CIDEr"] > 1.3 * constant["CIDEr"] and scores["BLEU-4"] > constant["BLEU-4"], (
        scores,
        constant,
    )
    assert re.search(
        r"valid on 'valid' subset.*\| cider [1-9]\b", checkpoints["caption", seed, "log"]
    )
    assert entries[0]["caption"] in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", [1, 2])
def test_boxes_of_unseen_scenes_beat_the_best_constant_one(files, checkpoints, seed):
    entries, scores, constant = evaluate(
        files, checkpoints["of"]("refcoco", seed), "refcoco", "--beam", "1"
    )
    assert entries[0]["uniq_id"].startswith("test_") and len(entries[0]["bins"]) == 4
    assert scores["score"] > 1.5 * constant["score"] and scores["IoU"] > 1.3 * constant["IoU"], (
        scores,
        constant,
    )


def test_an_image_is_described_in_chinese_and_results_become_an_upload(
    files, checkpoints, tmp_path, capsys
):
    checkpoint = checkpoints["of"]("caption", 1)
    render(make_scene(1, "test", 5), SIDE).save(tmp_path / "one.png")
    assert main(["predict", str(checkpoint), str(tmp_path / "one.png"), "--cpu"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert is_chinese(output["answer"]) and " " not in output["answer"]
    evaluate(files, checkpoint, "caption", "--beam", "1", "--max-len-b", "24")
    upload = tmp_path / "upload.jsonl"
    assert (
        main(
            [
                "submit",
                "muge",
                str(checkpoint.parent / "results/test_predict.json"),
                "--out",
                str(upload),
            ]
        )
        == 0
    )
    assert set(json.loads(upload.read_text(encoding="utf-8").splitlines()[0])) == {
        "image_id",
        "text",
    }
    assert Image.open(tmp_path / "one.png").size == (SIDE, SIDE)


def test_cider_optimization_counts_characters(files, checkpoints, tmp_path, capsys):
    words = tmp_path / "words.p"
    data = files.folder / "caption_train.tsv"
    assert (
        main(["cider-df", "build", "--tsv", str(data), "--keep-punctuation", "--out", str(words)])
        == 0
    )
    assert main(["cider-df", "show", str(words)]) == 0
    assert (
        "只 有 一 个 (300)" in capsys.readouterr().out
        and read_document_frequencies(words)[1]["，",] == 300
    )
    files.train, files.valid = data, files.folder / "caption_test.tsv"
    recipe = [
        flag
        for flag in training_runs.flags(files, tmp_path / "run", *SMALL, *WIDE, *LEARNING)
        if not flag.startswith(("--label", "--criterion"))
    ]
    done = training_runs.train(
        [
            *recipe,
            "--task=caption",
            "--selected-cols=1,4,2",
            "--criterion=scst_reward_criterion",
            "--scst",
            "--keep-punctuation",
            '--scst-args={"beam":3,"max_len_b":24}',
            f"--scst-cider-cached-tokens={words}",
            "--freeze-resnet",
            "--batch-size=8",
            "--max-update=2",
            "--total-num-update=2",
            f"--finetune-from-model={checkpoints['of']('caption', 1)}",
            "--disable-validation",
            "--lr=1e-5",
            "--log-interval=1",
        ]
    )
    assert done.code == 0, done.log[-3000:]
    rewards = [float(value) for value in re.findall(r"train_inner .*?[ |]score=([\d.]+)", done.log)]
    assert len(rewards) == 2 and min(rewards) > 1, (
        "samples of a trained model share phrases with their references"
    )
    assert "does not see punctuation" not in done.log
