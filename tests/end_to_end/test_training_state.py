"""Averages, precisions and memory savers in real trainings of seconds."""

import io
import re

import pytest
import torch
from PIL import Image
from training_runs import flags, log_lines, make_files, train

from ofa.checkpoints.read import Checkpoint
from ofa.io.safe_load import load_checkpoint

SHORT = ("--max-update=4", "--log-interval=1")
EMA = ("--store-ema", "--ema-fp32", "--ema-decay=0.5")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def averaged(files):
    """A run with moving averages and its checkpoint."""
    done = train(flags(files, files.folder / "averaged", *SHORT, *EMA, "--eval-cider"))
    assert done.code == 0, done.log[-3000:]
    return load_checkpoint(files.folder / "averaged/checkpoint_last.pt")


def weights_after_start(files, name: str, *more: str) -> tuple[dict, dict]:
    """Weights and averages of a run from the averaged checkpoint that learns nothing (learning
    rate 0)."""
    done = train(
        flags(
            files,
            files.folder / name,
            "--max-update=1",
            "--disable-validation",
            "--lr=0",
            "--stop-min-lr=-1",
            f"--restore-file={files.folder / 'averaged/checkpoint_last.pt'}",
            "--reset-optimizer",
            "--reset-dataloader",
            "--reset-meters",
            "--reset-lr-scheduler",
            *more,
        )
    )
    assert done.code == 0, done.log[-3000:]
    checkpoint = load_checkpoint(files.folder / name / "checkpoint_last.pt")
    return checkpoint["model"], checkpoint["extra_state"].get("ema", {})


def test_validation_uses_the_averages_when_asked(files, averaged):
    plain = train(flags(files, files.folder / "plain", *SHORT, *EMA))
    using = train(flags(files, files.folder / "using", *SHORT, *EMA, "--uses-ema"))
    assert plain.code == using.code == 0, using.log[-3000:]
    assert log_lines(plain.log) == log_lines(using.log)  # training is the same,
    assert log_lines(plain.log, "valid") != log_lines(using.log, "valid")  # validation is not
    refused = train(flags(files, files.folder / "refused", *SHORT, "--uses-ema"))
    assert refused.code == 2 and re.search(r"^error: --uses-ema: .*--store-ema", refused.log, re.M)


def test_a_run_can_start_from_the_averages_of_a_checkpoint(files, averaged):
    key = "encoder.layers.0.fc1.weight"
    model, _ = weights_after_start(files, "from_averages", "--use-ema-weights-to-init-param")
    assert torch.equal(model[key], Checkpoint("averaged", averaged, ema=True).weights[key])
    model, averages = weights_after_start(files, "from_last", *EMA)
    assert torch.equal(model[key], averaged["model"][key]) and not torch.equal(
        averages[key], averaged["model"][key]
    )


def test_averages_can_start_anew_from_the_last_weights(files, averaged):
    key = "encoder.layers.0.fc1.weight"
    model, averages = weights_after_start(
        files,
        "renewed",
        *EMA,
        "--use-latest-weights-to-init-ema",
        "--use-ema-weights-to-init-param",
        "--ema-decay=1.0",
    )
    assert torch.equal(model[key], Checkpoint("averaged", averaged, ema=True).weights[key])
    assert torch.equal(averages[key], averaged["model"][key])


def test_a_checkpoint_without_averages_gets_some(files, averaged):
    content = dict(
        averaged,
        extra_state={k: v for k, v in averaged["extra_state"].items() if not k.startswith("ema")},
    )
    torch.save(content, files.folder / "without.pt")
    done = train(
        flags(
            files,
            files.folder / "begun",
            *SHORT,
            *EMA,
            f"--finetune-from-model={files.folder / 'without.pt'}",
        )
    )
    assert done.code == 0 and "averages start from the weights" in done.log, done.log[-3000:]
    assert load_checkpoint(files.folder / "begun/checkpoint_last.pt")["extra_state"]["ema"]


@pytest.mark.parametrize("precision", ["--fp16", "--bf16", "--amp", "--memory-efficient-fp16"])
def test_every_precision_trains_on_the_cpu(files, precision):
    """fp16 begins with overflows, which only lower the loss scale; --amp computes in bf16 on a
    CPU."""
    scale = () if precision in ("--bf16", "--amp") else ("--fp16-init-scale=65536",)
    done = train(
        flags(files, files.folder / precision, *SHORT, "--disable-validation", precision, *scale)
    )
    assert done.code == 0, done.log[-3000:]
    lines = log_lines(done.log)
    assert len(lines) == 4 and all(
        5 < float(re.search(r"loss=([\d.]+)", line)[1]) < 7 for line in lines
    )


def test_checkpointed_activations_change_no_figure(files):
    logs = [
        train(
            flags(files, files.folder / f"memory{len(more)}", *SHORT, "--disable-validation", *more)
        ).log
        for more in (
            (),
            ("--checkpoint-activations",),
            ("--checkpoint-activations", "--offload-activations"),
        )
    ]
    assert len(log_lines(logs[0])) == 4
    assert log_lines(logs[0]) == log_lines(logs[1]) == log_lines(logs[2])


def test_freeze_resnet_leaves_the_stem_as_it_was(files, averaged):
    model, _ = weights_after_start(files, "thawed", "--lr=1e-2")
    frozen, _ = weights_after_start(files, "frozen", "--lr=1e-2", "--freeze-resnet")
    stem = [key for key in model if ".embed_images." in key and model[key].is_floating_point()]
    assert any("running_mean" in key for key in stem)
    assert all(torch.equal(frozen[key], averaged["model"][key]) for key in stem if "running" in key)
    assert not any(
        torch.equal(model[key], averaged["model"][key]) for key in stem if "running_mean" in key
    )


def test_frozen_embeddings_stay(files, averaged):
    frozen, _ = weights_after_start(
        files, "embedding", "--lr=1e-2", "--freeze-encoder-embedding", "--freeze-decoder-embedding"
    )
    for key in ("encoder.embed_tokens.weight", "decoder.output_projection.weight"):
        assert torch.equal(frozen[key], averaged["model"][key])


def test_tensorboard_shows_figures_and_sample_captions_with_their_images(files):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board, log_file = files.folder / "board", files.folder / "shown.txt"
    done = train(
        flags(
            files,
            files.folder / "shown",
            "--max-update=8",
            "--log-interval=1",
            "--eval-cider",
            '--eval-args={"beam":2,"max_len_b":8}',
            f"--tensorboard-logdir={board}",
            f"--log-file={log_file}",
        )
    )
    assert done.code == 0, done.log[-3000:]
    events = {folder.name: EventAccumulator(str(folder)) for folder in board.iterdir()}
    for accumulator in events.values():
        accumulator.Reload()
    assert {"loss", "lr"} <= set(events["train_inner"].Tags()["scalars"])
    assert {"loss", "cider"} <= set(events["valid"].Tags()["scalars"])
    assert [value.step for value in events["train_inner"].Scalars("loss")] == list(range(1, 9))
    assert events["samples"].Tags()["images"] == [f"sample {number}" for number in (1, 2, 3, 4)]
    assert [image.step for image in events["samples"].Images("sample 2")] == [6, 8]
    image = events["samples"].Images("sample 2")[0]
    assert (image.width, image.height) == (32, 32)
    (green,) = {pixel for pixel in Image.open(io.BytesIO(image.encoded_image_string)).getdata()}
    assert green == (0, 128, 0)  # the second row's image
    texts = events["samples"].Tensors("sample 2/text_summary")
    assert "There is a green cube" in texts[0].tensor_proto.string_val[0].decode()
    for tag in ("train_inner", "train", "valid"):
        assert log_lines(log_file.read_text(), tag) == log_lines(done.log, tag) != []
