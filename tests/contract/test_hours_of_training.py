"""``--stop-time-hours`` counts the hours of this run."""

from types import SimpleNamespace

import pytest
from fairseq.trainer import Trainer

from ofa.trainer.fairseq_resume import end_of_run
from ofa.trainer.fairseq_trainer import OFATrainer


@pytest.mark.parametrize("finetuning, hours", [(True, 0), (False, 7)])
def test_hours_count_when_a_run_goes_on_and_not_when_another_takes_its_weights(
    monkeypatch, finetuning, hours
):
    def load(trainer, *arguments, reset_meters):
        trainer._previous_training_time = 7
        return {}

    monkeypatch.setattr(Trainer, "load_checkpoint", load)
    trainer = OFATrainer.__new__(OFATrainer)
    trainer.cfg = SimpleNamespace(ema=SimpleNamespace(store_ema=False))
    trainer.load_checkpoint("checkpoint.pt", reset_optimizer=True, reset_meters=finetuning)
    assert trainer._previous_training_time == hours


def test_the_end_by_time_names_the_time():
    limits = SimpleNamespace(max_update=0, max_epoch=0, stop_time_hours=0.1)
    cfg = SimpleNamespace(optimization=limits, checkpoint=SimpleNamespace(patience=-1))
    trainer = SimpleNamespace(cfg=cfg, get_num_updates=lambda: 3)
    epoch = SimpleNamespace(next_epoch_idx=2)
    assert end_of_run(trainer, epoch, seconds=359) is None
    assert end_of_run(trainer, epoch, seconds=361) == "the 6 min of --stop-time-hours are over"
