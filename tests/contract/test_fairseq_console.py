"""What a training tells of itself: in its folder, at its end, and to Weights & Biases."""

import logging
import math
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.logging import progress_bar

import ofa
from ofa.trainer import fairseq_tensorboard
from ofa.trainer.fairseq_console import Outcome, log_best, next_command, precision_of, rows_of
from ofa.trainer.fairseq_tensorboard import ValidationSamples

ofa.register_fairseq_plugin()


def config(folder: Path, **task) -> Namespace:
    return Namespace(
        checkpoint=Namespace(
            save_dir=str(folder), checkpoint_suffix="", best_checkpoint_metric="cider"
        ),
        task=Namespace(**{"_name": "caption", "data": "a.tsv,b b.tsv", "uses_ema": False} | task),
        optimization=Namespace(stop_min_lr=1e-6),
        common=Namespace(tensorboard_logdir=None, wandb_project="photos", log_file=None),
    )


@pytest.fixture
def outcome():
    Outcome.reset()
    yield Outcome
    Outcome.reset()


def test_the_last_line_says_why_a_training_ended(outcome, tmp_path):
    cfg = config(tmp_path)
    outcome.updates, outcome.planned, outcome.reason = 30, 80, "no validation was better"
    assert outcome.last_line(cfg) == (
        "stopped early after update 30 of 80: no validation was better"
    )
    outcome.reason = None
    assert outcome.last_line(cfg).endswith("the learning rate is at most --stop-min-lr 1e-06")
    for planned in (30, math.inf):
        outcome.planned, outcome.reason = planned, "3 epochs done"
        assert outcome.last_line(cfg) == "finished after update 30: 3 epochs done"


def test_the_best_checkpoint_comes_with_its_score_and_the_next_command(
    outcome, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, "ofa.trainer.fairseq_console")
    log_best(config(tmp_path))
    assert caplog.messages == []  # nothing was saved
    best, outcome.best_update = tmp_path / "checkpoint_best.pt", 75
    best.touch()
    monkeypatch.setattr(checkpoint_utils.save_checkpoint, "best", 0.51234, raising=False)
    log_best(config(tmp_path))
    page = tmp_path / "report.html"
    assert caplog.messages == [
        f"best cider 0.5123 (update 75): {best}",
        f"next: ofa evaluate {best} 'b b.tsv' --report {page}",
    ]


def test_the_next_command_is_one_that_works_for_the_task():
    file, folder = Path("run/checkpoint_best.pt"), Path("run")
    assert next_command(config(folder, uses_ema=True), file)[-1] == "--ema"
    assert next_command(config(folder, _name="joint"), file) == ["ofa", "demo", str(file)]
    assert next_command(config(folder, _name="unify_task"), file)[:3] == [
        "ofa",
        "pretraining",
        "score",
    ]


def test_the_precision_is_the_flag_that_was_given():
    both = SimpleNamespace(fp16=True, memory_efficient_fp16=True)  # fairseq sets the other one
    assert precision_of(both) == "memory-efficient-fp16"
    assert precision_of(SimpleNamespace(fp16=False, bf16=True)) == "bf16"
    assert precision_of(SimpleNamespace(fp16=False)) == "fp32"


def test_rows_of_an_update_are_counted_over_batches_and_streams():
    batch = {"nsentences": 4, "net_input": {}}
    assert rows_of([batch, None, {}, (batch, {}), (batch, batch)]) == 16


class FakeWandb:
    """What fairseq and the samples use of the module ``wandb``."""

    def __init__(self):
        self.calls, self.config = [], SimpleNamespace(update=lambda config: None)

    def init(self, **options):
        self.calls.append(("init", options))

    def log(self, values, step):
        self.calls.append((step, values))

    def Image(self, pixels):
        return pixels

    def Table(self, columns, data):
        return columns, data


def test_weights_and_biases_gets_figures_and_samples_by_the_flag_of_fairseq(monkeypatch, tmp_path):
    wandb = FakeWandb()
    monkeypatch.setattr(progress_bar, "wandb", wandb)
    monkeypatch.setattr(ValidationSamples, "wandb_project", None)
    fairseq_tensorboard.begin_to_show(config(tmp_path), first_rank=True)
    bar = progress_bar.progress_bar([], log_format="none", wandb_project="photos")
    samples = ValidationSamples()
    images = torch.zeros(2, 3, 4, 4)  # mean and std are 0.5
    samples.add({"net_input": {"patch_images": images}}, ["a dog", "two"], [["dog"], ["a", "b"]])
    samples.show(40)
    bar.print({"loss": 1.5, "num_updates": 40}, tag="valid", step=40)
    begun, (step, shown), figures = wandb.calls
    assert begun[0] == "init" and begun[1]["project"] == "photos"
    columns, rows = shown["samples"]
    assert step == 40 and columns == ["image", "prediction", "references"]
    assert [row[1:] for row in rows] == [["a dog", "dog"], ["two", "a\nb"]]
    assert rows[0][0].shape == (4, 4, 3) and np.all(rows[0][0] == 128)
    assert figures == (40, {"valid/loss": 1.5})


def test_other_ranks_show_no_samples(monkeypatch, tmp_path):
    monkeypatch.setattr(ValidationSamples, "wandb_project", "photos")
    fairseq_tensorboard.begin_to_show(config(tmp_path), first_rank=False)
    samples = ValidationSamples()
    samples.add({"net_input": {}}, ["a dog"], [["dog"]])
    assert samples.rows == []
