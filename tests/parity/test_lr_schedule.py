"""Polynomial decay with a warm-up ratio equals upstream's schedule, and a real training
follows it."""

from argparse import Namespace

import pytest
from golden import load_json

pytest.importorskip("fairseq")
from fairseq.optim import FairseqOptimizer  # noqa: E402

import ofa  # noqa: E402
from ofa.errors import UserError  # noqa: E402
from ofa.trainer.fairseq_optim import WarmupRatioSchedule, count_updates, last_epoch  # noqa: E402

CASES = load_json("lr_schedule")["cases"]


class Optimizer(FairseqOptimizer):
    """Remembers the learning rate only."""

    def __init__(self):
        self.lr = None

    def set_lr(self, lr):
        self.lr = lr

    def get_lr(self):
        return self.lr


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"ratio{case['args']['warmup_ratio']}-{case['reinit']}"
)
def test_learning_rates_equal_upstream(case):
    optimizer = Optimizer()
    schedule = WarmupRatioSchedule(Namespace(**case["args"]), optimizer)
    assert optimizer.lr == pytest.approx(case["lr_after_init"])
    schedule.step_begin_epoch(1)
    assert optimizer.lr == pytest.approx(case["lr_after_step_begin_epoch_1"])
    schedule.reinit(*case["reinit"])
    assert optimizer.lr == pytest.approx(case["lr_after_reinit"])
    rates = [
        schedule.step_update(k)
        for k in range(case["first_update"], case["first_update"] + len(case["step_update"]))
    ]
    assert rates == pytest.approx(case["step_update"], abs=1e-12)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"max_epoch": 3}, 3 * 11),
        ({"max_epoch": 3, "update_freq": [4]}, 3 * 3),
        ({"max_epoch": 3, "update_freq": [4], "skip_remainder_batch": True}, 3 * 2),
        ({"max_epoch": 5, "update_freq": [1, 4]}, 11 + 4 * 3),
        ({"max_epoch": 1, "update_freq": [1, 4]}, 11),
        ({"max_epoch": 3, "max_update": 20}, 20),
        ({"max_update": 20}, 20),
        ({}, float("inf")),
    ],
)
def test_updates_of_a_training_are_counted(changes, expected):
    options = {"max_epoch": 0, "max_update": 0, "update_freq": [1], "skip_remainder_batch": False}
    assert count_updates(11, Namespace(**{**options, **changes})) == expected


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"max_epoch": 3}, 3),
        ({"max_epoch": 3, "max_update": 20}, 2),
        ({"max_epoch": 9, "update_freq": [4], "skip_remainder_batch": True, "max_update": 5}, 3),
        ({"max_epoch": 100, "update_freq": [1, 4], "max_update": 20}, 100),
        ({"max_update": 20}, 2),
        ({}, None),
    ],
)
def test_the_last_epoch_follows_from_the_updates(changes, expected):
    options = {"max_epoch": 0, "max_update": 0, "update_freq": [1], "skip_remainder_batch": False}
    assert last_epoch(11, Namespace(**{**options, **changes})) == expected


@pytest.mark.parametrize(
    "change, flag",
    [({"warmup_ratio": 1.5}, "--warmup-ratio"), ({"total_num_update": 0}, "--total-num-update")],
)
def test_impossible_values_are_named(change, flag):
    with pytest.raises(UserError, match=flag):
        WarmupRatioSchedule(Namespace(**{**CASES[0]["args"], **change}), Optimizer())


class Interrupted(Exception):
    pass


def train(folder, *flags, interrupt_at=None):
    """Trains fairseq's dummy language model (10 batches an epoch); returns the learning rate of
    each update."""
    import fairseq.benchmark.dummy_lm  # noqa: F401
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq_cli.train import main

    ofa.register_fairseq_plugin()
    rates, step_update = {}, WarmupRatioSchedule.step_update

    def recorded(self, num_updates):
        if num_updates == interrupt_at:
            raise Interrupted
        rates[num_updates] = step_update(self, num_updates)
        return rates[num_updates]

    parser = options.get_training_parser()
    args = options.parse_args_and_arch(
        parser,
        input_args=[
            "--task",
            "dummy_lm",
            "--dict-size",
            "12",
            "--dataset-size",
            "40",
            "--tokens-per-sample",
            "5",
            "--batch-size",
            "4",
            "--arch",
            "transformer_lm",
            "--decoder-embed-dim",
            "8",
            "--decoder-ffn-embed-dim",
            "8",
            "--decoder-layers",
            "1",
            "--decoder-attention-heads",
            "1",
            "--optimizer",
            "sgd",
            "--lr",
            "0.5",
            "--lr-scheduler",
            "polynomial_decay",
            "--cpu",
            "--disable-validation",
            "--no-progress-bar",
            "--save-dir",
            str(folder),
            *flags,
        ],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WarmupRatioSchedule, "step_update", recorded)
        main(convert_namespace_to_omegaconf(args))
    return rates


def test_a_training_follows_the_warm_up_also_when_it_resumes_in_mid_epoch(tmp_path):
    # 20 updates, 6 of them warm-up
    flags = ["--warmup-ratio", "0.3", "--max-epoch", "4", "--update-freq", "2"]
    expected = [0.5 * k / 6 for k in range(7)] + [0.5 * (20 - k) / 14 for k in range(7, 21)]
    rates = train(tmp_path / "whole", *flags)
    assert [rates[k] for k in range(1, 21)] == pytest.approx(expected[1:])
    flags += ["--save-interval-updates", "7"]
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", *flags, interrupt_at=9)
    rates = train(tmp_path / "parts", *flags)
    assert min(rates.keys() - {0}) == 7
    assert [rates[k] for k in range(7, 21)] == pytest.approx(expected[7:])
