"""Every --lr-scheduler of fairseq gives a resumed run the learning rates of a run that nothing
happened to.

A network of one weight is trained by fairseq's own loop, in this process; a kill is an exception
right after a save.
"""

import argparse
import copy
import functools
import signal

import pytest
import torch
from fairseq import options
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.data import FairseqDataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from fairseq.optim.composite import CompositeLRScheduler
from fairseq.optim.lr_scheduler import LR_SCHEDULER_REGISTRY
from fairseq.optim.lr_scheduler.pass_through import PassThroughScheduleSchedule
from fairseq.tasks import LegacyFairseqTask, register_task
from fairseq.trainer import Trainer
from fairseq_cli import train as fairseq_train
from omegaconf import DictConfig, open_dict

import ofa

pytestmark = pytest.mark.slow  # trains and resumes with every scheduler

ofa.register_fairseq_plugin()

ROWS, BATCH, EPOCHS = 6, 2, 6
UPDATES = ROWS // BATCH * EPOCHS
# at the ends of epochs, by update
VALID_LOSSES = {3: 5.0, 6: 5.5, 9: 5.6, 12: 5.7, 15: 5.8, 18: 5.9}
SCHEDULERS = {
    "cosine": ["--warmup-updates=2", "--lr-period-updates=5", "--t-mult=2", "--lr-shrink=0.5"],
    "fixed": ["--lr=0.4,0.3,0.2", "--force-anneal=4", "--lr-shrink=0.5", "--warmup-updates=4"],
    "inverse_sqrt": ["--warmup-updates=4"],
    "manual": ["--epoch2lr={'1-2':0.5,'4':0.1}", "--update2lr={'8':0.3,'11':0.2}"],
    "polynomial_decay": ["--warmup-ratio=0.2"],
    "polynomial_decay annealed": [
        "--warmup-updates=2",
        "--total-num-update=40",
        "--force-anneal=3",
        "--lr=0.5,0.4,0.3",
    ],
    "reduce_lr_on_plateau": ["--lr-shrink=0.5"],
    "reduce_lr_on_plateau patient": ["--lr-patience=1", "--lr-shrink=0.5", "--warmup-updates=4"],
    "step": ["--lr-deacy-period=4", "--lr-decay=0.5", "--warmup-updates=2"],
    "tri_stage": ["--warmup-steps=3", "--hold-steps=4", "--decay-steps=6"],
    "triangular": ["--max-lr=0.9", "--lr-period-updates=6"],
}


class Rows(FairseqDataset):
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> int:
        return index

    def collater(self, samples: list[int]) -> dict:
        return {
            "net_input": {"x": torch.tensor(samples).float()},
            "ntokens": len(samples),
            "nsentences": len(samples),
        }

    def num_tokens(self, index: int) -> int:
        return 1

    size = num_tokens


@register_task("one_weight")
class OneWeightTask(LegacyFairseqTask):
    source_dictionary = target_dictionary = None

    @staticmethod
    def add_args(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", default="")

    def load_dataset(self, split: str, **kwargs) -> None:
        self.datasets[split] = Rows()

    def max_positions(self) -> None:
        return None


@register_model("one_weight")
class OneWeight(BaseFairseqModel):
    updates = 0

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    @classmethod
    def build_model(cls, args, task) -> "OneWeight":
        return cls()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weight * 1e-3).sum()

    def set_num_updates(self, num_updates: int) -> None:
        self.updates = num_updates


register_model_architecture("one_weight", "one_weight")(lambda args: None)


@register_criterion("one_weight")
class OneWeightLoss(FairseqCriterion):
    def forward(self, model, sample, reduce: bool = True):
        loss = model(**sample["net_input"])
        logged = (
            float(loss)
            if model.training
            else VALID_LOSSES.get(model.updates, 1.0) * sample["nsentences"]
        )
        return loss, sample["nsentences"], {"loss": logged, "sample_size": sample["nsentences"]}

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        size = sum(log["sample_size"] for log in logging_outputs)
        metrics.log_scalar(
            "loss", sum(log["loss"] for log in logging_outputs) / size, size, round=6
        )

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


class Killed(BaseException):
    pass


@functools.cache
def parsed(scheduler: str) -> DictConfig:
    """The configuration of a run, which takes fairseq half a second."""
    words = [
        "--task=one_weight",
        "--arch=one_weight",
        "--criterion=one_weight",
        "--optimizer=sgd",
        "--lr=0.5",
        f"--lr-scheduler={scheduler.split()[0]}",
        *SCHEDULERS[scheduler],
        f"--batch-size={BATCH}",
        f"--max-epoch={EPOCHS}",
        "--cpu",
        "--required-batch-size-multiple=1",
        "--save-interval-updates=1",
        "--keep-interval-updates=1",
        "--no-epoch-checkpoints",
        "--num-workers=0",
        "--log-format=none",
        "--stop-min-lr=-1",
    ]
    return convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), words)
    )


def configuration(scheduler: str) -> DictConfig:
    return copy.deepcopy(parsed(scheduler))


@pytest.fixture
def rates(tmp_path, monkeypatch):
    """Function (scheduler, name of the run, update after whose save it is killed, run whose
    checkpoint it restores)

    -> update -> learning rate of it.
    """
    stock_step, stock_save = Trainer.train_step, fairseq_train.validate_and_save

    def run(
        scheduler: str, name: str, killed_after: int | None = None, restored: str | None = None
    ) -> dict[int, float]:
        seen: dict[int, float] = {}

        def train_step(trainer, *args, **kwargs):
            seen[trainer.get_num_updates() + 1] = trainer.get_lr()
            return stock_step(trainer, *args, **kwargs)

        def validate_and_save(cfg, trainer, *args):
            result = stock_save(cfg, trainer, *args)
            if trainer.get_num_updates() == killed_after:
                raise Killed
            return result

        monkeypatch.setattr(Trainer, "train_step", train_step)
        monkeypatch.setattr(fairseq_train, "validate_and_save", validate_and_save)
        cfg = configuration(scheduler)
        with open_dict(cfg):
            cfg.checkpoint.save_dir = str(tmp_path / name)
            if restored:
                cfg.checkpoint.restore_file = str(tmp_path / restored / "checkpoint_last.pt")
        try:
            distributed_utils.call_main(cfg, fairseq_train.main)
        except Killed:
            pass
        except SystemExit as ended:
            assert ended.code == 128 + signal.SIGTERM
        return seen

    return run


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_resumed_run_has_the_learning_rates_of_an_undisturbed_one(scheduler, rates):
    expected = rates(scheduler, "undisturbed")
    assert len(expected) == UPDATES and len(set(expected.values())) > 2
    found: dict[int, float] = {}
    for killed_after in (6, 9, 11, None):  # two ends of epochs, the middle of one
        found |= rates(scheduler, "killed", killed_after)
    assert found == expected


@pytest.mark.parametrize("scheduler", ["reduce_lr_on_plateau", "fixed"])
def test_a_run_restored_in_another_folder_has_them_too(scheduler, rates):
    expected = rates(scheduler, "undisturbed")
    found = rates(scheduler, "killed", killed_after=9)  # at the end of an epoch
    assert found | rates(scheduler, "elsewhere", restored="killed") == expected


def test_a_run_that_is_stopped_at_the_end_of_an_epoch_that_is_not_saved_has_them_too(
    rates, monkeypatch
):
    """The signal comes while the epoch is validated; the save that it asks for gets no loss."""
    scheduler = "reduce_lr_on_plateau"
    with open_dict(parsed(scheduler)):
        monkeypatch.setitem(parsed(scheduler).checkpoint, "save_interval", 4)
        monkeypatch.setitem(parsed(scheduler).checkpoint, "save_interval_updates", 0)
    expected = rates(scheduler, "undisturbed")
    monkeypatch.setattr(OneWeightTask, "post_validate", ask_to_stop_after(6), raising=False)
    found = rates(scheduler, "stopped")
    assert max(found) == 6
    monkeypatch.undo()
    assert found | rates(scheduler, "stopped") == expected


def ask_to_stop_after(update: int):
    def post_validate(task, model, stats, aggregator) -> None:
        if stats["num_updates"] == update:
            signal.raise_signal(signal.SIGTERM)

    return post_validate


def test_the_schedulers_of_a_composite_optimizer_keep_their_state():
    class Inner:
        def __init__(self, value: float):
            self.value = value

        def state_dict(self) -> dict:
            return {"value": self.value}

        def load_state_dict(self, state: dict) -> None:
            self.value = state["value"]

    def scheduler(value: float) -> PassThroughScheduleSchedule:
        made = PassThroughScheduleSchedule.__new__(PassThroughScheduleSchedule)
        made.optimizer = argparse.Namespace(
            lr_scheduler=CompositeLRScheduler({"a": Inner(value), "b": Inner(value + 1)})
        )
        return made

    resumed = scheduler(0.0)
    resumed.load_state_dict(scheduler(5.0).state_dict())
    assert resumed.state_dict() == {"a": {"value": 5.0}, "b": {"value": 6.0}}


def test_no_scheduler_of_fairseq_is_left_out():
    assert {name.split()[0] for name in SCHEDULERS} | {"pass_through"} == set(LR_SCHEDULER_REGISTRY)
