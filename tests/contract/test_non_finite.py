"""A loss that is not finite names update, rank and samples, and ends the run unless a loss
scaler skips the update."""

import json
from types import SimpleNamespace

import pytest
import torch

from ofa.errors import UserError
from ofa.trainer.nonfinite import (
    SHOWN,
    NonFiniteLoss,
    check_loss,
    look_at_losses,
    report_non_finite,
)


def batch(*ids) -> dict:
    return {"id": list(ids)}


def trainer(folder, updates: int = 6, rank: int = 1):
    """What the report asks of fairseq's trainer."""
    cfg = SimpleNamespace(checkpoint=SimpleNamespace(save_dir=str(folder)))
    return SimpleNamespace(get_num_updates=lambda: updates, data_parallel_rank=rank, cfg=cfg)


def step(losses, scaled=False):
    """A ``train_step`` of the trainer that sees one loss per batch. Args: scaled: there is a loss
    scaler."""

    def train_step(trainer, samples):
        with report_non_finite(trainer, samples):
            for loss, sample in zip(losses, samples):
                check_loss(torch.tensor(loss), sample, skips=scaled)
            return "done"

    return train_step


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_batch_with_such_a_loss_is_named_and_written_to_a_file(tmp_path, value):
    with pytest.raises(UserError) as error:
        step([1.0, value, 1.0])(trainer(tmp_path), [batch("a", "b"), batch("c", "d"), batch("e")])
    path = tmp_path / "nonfinite_update7_rank1.json"
    assert (
        f"update 7, rank 1: expected finite numbers, found the loss {value}, in samples c, d"
        in str(error.value)
    )
    assert str(path) in str(error.value) and "Lower --lr" in str(error.value)
    assert json.loads(path.read_text()) == {
        "update": 7,
        "rank": 1,
        "problem": f"found the loss {value}",
        "samples": ["c", "d"],
    }


def test_gradients_that_are_not_finite_name_all_batches_of_the_update(tmp_path):
    samples = [batch(torch.tensor(5)), (batch("pair"), batch("text"))]
    with pytest.raises(UserError, match="gradients are Nan/Inf, in samples 5, pair, text"):
        with report_non_finite(trainer(tmp_path), samples):
            raise FloatingPointError("gradients are Nan/Inf")


def test_a_loss_scaler_goes_on_and_the_report_is_a_warning(tmp_path, caplog):
    assert step([float("inf")], scaled=True)(trainer(tmp_path), [batch("a")]) == "done"
    assert (
        "update 7, rank 1" in caplog.text and (tmp_path / "nonfinite_update7_rank1.json").is_file()
    )
    caplog.clear()
    assert step([1.0], scaled=True)(trainer(tmp_path), [batch("a")]) == "done" and not caplog.text


@pytest.mark.parametrize("value, warned", [(float("inf"), True), (2.0, False)])
def test_a_validation_with_such_a_loss_goes_on_with_a_warning(tmp_path, caplog, value, warned):
    with report_non_finite(trainer(tmp_path)):
        check_loss(torch.tensor(value), batch("a", "b"), skips=True)
    assert (
        "update 6, rank 1: expected finite numbers, found the loss inf, in samples a, b"
        in caplog.text
    ) == warned
    assert (tmp_path / "nonfinite_validation_update6_rank1.json").is_file() == warned


def test_a_large_batch_is_shown_in_part_and_written_whole(tmp_path):
    names = [f"row{number}" for number in range(30)]
    with pytest.raises(UserError, match=f"row{SHOWN - 1} and {30 - SHOWN} more "):
        step([float("nan")])(trainer(tmp_path), [batch(*names)])
    assert json.loads(next(tmp_path.iterdir()).read_text())["samples"] == names


def test_a_folder_that_cannot_be_written_does_not_hide_the_report(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="in samples a .written to nowhere: "):
        step([float("nan")])(trainer(tmp_path / "file"), [batch("a")])


def test_losses_of_an_update_are_looked_at_together_before_the_weights_change(tmp_path):
    done = []
    with pytest.raises(UserError, match="found the loss nan, in samples b"):
        with report_non_finite(trainer(tmp_path), [batch("a"), batch("b")]):
            for loss, sample in ((1.0, batch("a")), (float("nan"), batch("b"))):
                check_loss(torch.tensor(loss), sample, skips=False)
                done.append("gradient")
            look_at_losses()
            done.append("weights")
    assert done == ["gradient", "gradient"]


def test_outside_of_an_update_each_loss_is_looked_at_at_once():
    check_loss(torch.tensor(1.0), batch("a"), skips=False)
    with pytest.raises(NonFiniteLoss, match="found the loss inf"):
        check_loss(torch.tensor(float("inf")), batch("a"), skips=False)


def test_a_failed_update_leaves_no_loss_to_the_next(tmp_path):
    with pytest.raises(RuntimeError):
        with report_non_finite(trainer(tmp_path), [batch("a")]):
            check_loss(torch.tensor(float("nan")), batch("a"), skips=False)
            raise RuntimeError("out of memory")
    assert step([1.0])(trainer(tmp_path), [batch("b")]) == "done"
