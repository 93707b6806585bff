"""A pretraining on all tasks: killed in mid-epoch it continues as if nothing had happened, and two
ranks train what one does."""

import re
import signal

import pytest
import torch
from pretraining_files import make_files, pretraining_flags
from training_runs import ROOT, SMALL, curve, log_lines, train

from ofa.io.safe_load import load_checkpoint
from ofa.task.pretraining_tasks import TASKS

UPDATES = 12  # two epochs of 24 rows of pairs in batches of 4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("pretraining"))


def command(files, name: str, *more: str) -> list[str]:
    return pretraining_flags(
        files,
        f"--user-dir={ROOT / 'ofa'}",
        "--cpu",
        "--max-epoch=2",
        "--save-interval-updates=2",
        "--keep-interval-updates=1",
        "--no-epoch-checkpoints",
        "--best-checkpoint-metric=loss",
        f"--save-dir={files.folder / name}",
        *SMALL,
        *more,
    )


@pytest.fixture(scope="module")
def undisturbed(files):
    record = files.folder / "undisturbed.txt"
    done = train(
        command(files, "undisturbed", f"--tensorboard-logdir={files.folder / 'tensorboard'}"),
        record=record,
    )
    assert done.code == 0, done.log[-3000:]
    found = curve(record)
    assert len(found) == UPDATES
    return found, done.log


def weights(files, name: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(files.folder / name / "checkpoint_last.pt")["model"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_in_mid_epoch_goes_on_bit_for_bit(files, undisturbed, workers):
    name = f"killed{workers}"
    record, words = (
        files.folder / f"{name}.txt",
        command(files, f"killed{workers}", f"--num-workers={workers}"),
    )
    runs = [train(words, kill_in, record=record) for kill_in in (4, 10, None)]
    assert [run.code for run in runs] == [-signal.SIGKILL, -signal.SIGKILL, 0], runs[-1].log[-3000:]
    assert curve(record) == undisturbed[0]
    found, expected = weights(files, name), weights(files, "undisturbed")
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    for tag in ("train", "valid"):
        assert (
            {line for run in runs for line in log_lines(run.log, tag)}
            == set(log_lines(undisturbed[1], tag))
            != set()
        )


def test_every_task_has_its_figures_in_the_log_and_in_tensorboard(files, undisturbed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    names = {f"{name}_{figure}" for name in TASKS for figure in ("loss", "acc")}
    for tag in ("train", "valid"):
        line, *_ = log_lines(undisturbed[1], tag)
        assert names <= set(re.findall(r"(\w+) [\d.]+", line))
        folder = next(path for path in (files.folder / "tensorboard").iterdir() if path.name == tag)
        assert names <= set(EventAccumulator(str(folder)).Reload().Tags()["scalars"])
    assert "best_loss" in undisturbed[1]


def test_a_pretrained_model_is_asked_as_pretraining_asked(files, undisturbed, caplog):
    """Its decoder was never given a question before it answered; what pretraining taught warns
    of nothing."""
    from PIL import Image

    from ofa import OFA

    model = OFA.load(files.folder / "undisturbed" / "checkpoint_last.pt", device="cpu")
    caplog.clear()
    task, builder = model.task_and_builder("vqa_gen")
    sample = builder(
        {
            **dict.fromkeys(task.spec.column_names, ""),
            "id": "1",
            "image": "given",
            "question": "what is it?",
        },
        0,
        open_image=lambda _: Image.new("RGB", (8, 8)),
    )
    assert list(sample["decoder_prompt"]) == [model.checkpoint.vocabulary.bos]
    assert all(
        map(model.was_trained_on, ("caption", "vqa_gen", "refcoco", "snli_ve", "instruction"))
    ) and not model.was_trained_on("image_gen")
    assert "may not know what to say" not in caplog.text


def test_two_ranks_train_what_one_trains(files):
    """Two batches are one update: of one process that takes both, or of two that take one each."""
    logs = []
    for ranks in (1, 2):
        words = command(
            files,
            f"ranks{ranks}",
            "--dropout=0",
            "--encoder-drop-path-rate=0",
            "--decoder-drop-path-rate=0",
            "--freeze-resnet",
            "--sample-patch-num=0",
            f"--update-freq={3 - ranks}",
            "--log-interval=1",
            "--max-update=3",
            "--find-unused-parameters",
        )
        done = train(words, ranks=ranks)
        assert done.code == 0, done.log[-3000:]
        logs.append([dict(re.findall(r"(\w+)=([\d.]+)", line)) for line in log_lines(done.log)])
    assert [len(log) for log in logs] == [3, 3]
    for one, two in zip(*logs):
        names = [
            name
            for name in one
            if name.endswith(("loss", "_acc", "gnorm"))
            or name.startswith(("loss_v", "sample_size", "ntokens"))
        ]
        assert len(names) > 8
        assert {name: float(one[name]) for name in names} == pytest.approx(
            {name: float(two[name]) for name in names}, rel=2e-3, abs=2e-3
        )


def test_a_broken_row_ends_the_run_with_one_message_from_a_data_worker(files):
    lines = (files.folder / "pairs.tsv").read_text().splitlines()
    wrong = files.folder / "wrong.tsv"
    wrong.write_text(
        "\n".join([*lines[:9], lines[9].replace("\tcaption", "\tspeech"), *lines[10:]]) + "\n"
    )
    words = command(files, "broken", "--num-workers=2")
    failed = train([f"{wrong},{files.pairs.split(',')[1]}", *words[1:]])
    errors = [line for line in failed.log.splitlines() if line.startswith("error: ")]
    assert failed.code == 2 and len(errors) == 1 and "Traceback" not in failed.log, failed.log[
        -3000:
    ]
    assert "wrong.tsv:10: task 'unify_task' expects a type of row" in errors[0]
    passed = train([f"{wrong},{files.pairs.split(',')[1]}", *words[1:], "--skip-bad-rows=1"])
    assert passed.code == 0 and "skipped broken row 1 of at most 1: " in passed.log
