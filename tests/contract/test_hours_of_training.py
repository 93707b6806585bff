"""``--stop-time-hours`` counts the hours of this run."""

from types import SimpleNamespace

import pytest
from fairseq.trainer import Trainer

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
