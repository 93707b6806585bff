"""``--task joint FILE.json``: one model trained on several tasks at once, each validated by its own
metric.

The tasks are those of this folder and tasks in one line, built as they are on their own; what they
do together is in ``ofa.task.mixture_file`` (what is given) and ``ofa.data.fairseq_mixture`` (the
order). A batch may hold samples of all of them.
"""

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import TASK_REGISTRY, FairseqTask, register_task, setup_task
from omegaconf import OmegaConf

from ofa.data.fairseq_mixture import JointDataset
from ofa.data.sample import TASK
from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.stored_options import MEMBERS
from ofa.task.mixture_file import TEMPLATE, Member, given, metric_names, parse_members, read_members
from ofa.task.task_spec import Metric, TaskOptions, TaskSpec, mixture_spec
from ofa.tasks.fairseq_task import CRITERION_METRICS, OFATask, log_metric

logger = logging.getLogger(__name__)


@dataclass
class JointConfig(TaskOptions, FairseqDataclass):
    """The options that every task has; those of one task are in the file."""

    data: Optional[str] = option(None, "JSON file: task -> its data, weight and options")
    mixture: Optional[str] = option(None, "without a file: 'NAME=FILES*WEIGHT, ...'")


@register_task("joint", dataclass=JointConfig)
class JointTask(OFATask):
    """Several tasks with one vocabulary, one model and one criterion.

    Attributes:
        tasks: the tasks by name, in the order of the file.
        weights: how often the rows of each are shown in an epoch.
    """

    spec = mixture_spec("joint", JointConfig)
    tasks: dict[str, OFATask]
    weights: dict[str, float]

    @classmethod
    def add_args(cls, parser: argparse.ArgumentParser) -> None:
        """As for one task; the file may be left out."""
        super().add_args(parser)
        for action in parser._actions:
            if action.dest == "data":
                action.nargs, action.required = "?", False

    @classmethod
    def setup_task(cls, cfg, **kwargs) -> "JointTask":
        """Raises: UserError if the file or the options of one of its tasks are wrong."""
        joint = super().setup_task(cfg, **kwargs)
        if bool(cfg.data) == bool(cfg.mixture):
            raise UserError(
                "task 'joint' expects a JSON file or --mixture, found"
                f" {'both' if cfg.data else 'neither'}; give one of them"
            )
        read = parse_members if cfg.mixture else read_members
        members = read(cfg.mixture or cfg.data, declared())
        joint.weights = {member.name: member.weight for member in members}
        joint.tasks = {member.name: joint.make(member) for member in members}
        return joint

    def make(self, member: Member) -> OFATask:
        """A task with the options of the command line, replaced by those of the file."""
        task = setup_task(
            OmegaConf.create({**given(self.cfg), **member.options, "_name": member.task})
        )
        task.tensorboard_samples.name = f"{member.name} sample"
        return task

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints keep: the options of every task as plain values, for an evaluation of
        one of them."""
        members: Any = {name: OmegaConf.to_container(task.cfg) for name, task in self.tasks.items()}
        for options in members.values():
            options.pop("_name", None)
        return {MEMBERS: members}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A training that continues takes the options of its file, as it takes those of its
        command line."""

    # --- data

    def training_files(self) -> dict[str, list[str]]:
        return {name: task.training_files()["train"] for name, task in self.tasks.items()}

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Open the files of all tasks."""
        for task in self.tasks.values():
            task.load_dataset(split, epoch, combine, **kwargs)
        members = {name: task.datasets[split] for name, task in self.tasks.items()}
        weights = self.weights if split == "train" else None
        joint = self.datasets[split] = JointDataset(
            members, weights, self.cfg.shuffle, self.cfg.shuffle_buffer
        )
        for name, count in joint.counts().items():
            share = 100 * count / len(joint)
            logger.info("%s: %s, %d samples an epoch (%.1f %%)", split, name, count, share)

    # --- model, training and validation

    def make_generators(self, model) -> None:
        for task in self.tasks.values():
            task.make_generators(model)

    def valid_step(self, sample, model, criterion, ema_model=None):
        """As the task of the batch does it. Every batch reports the counts of all tasks, those
        of others as zero."""
        batch_task = sample.get(TASK)
        if batch_task is None:  # a filler, mixed as in training: nothing of it counts
            step = FairseqTask.valid_step(self, sample, model, criterion)
        else:
            plain = {key: value for key, value in sample.items() if key != TASK}
            step = self.tasks[batch_task].valid_step(plain, model, criterion, ema_model)
        loss, sample_size, logging_output = step
        figures = [metric for task in self.tasks.values() for metric in task.spec.metrics.figures]
        own = {count for metric in figures for count in metric.counts}
        log = {key: value for key, value in logging_output.items() if key not in own}
        for task, _, metric in self.metrics():
            for count in metric.counts:
                value = logging_output.get(count, 0.0) if task == batch_task else 0.0
                log[prefix_of(task) + count] = value
        return loss, sample_size, log

    def post_validate(self, model, stats: Mapping[str, Any], aggregator) -> None:
        for task in self.tasks.values():
            task.post_validate(model, stats, aggregator)

    def metrics(self) -> list[tuple[str, str, Metric]]:
        """The metrics that the tasks validate with: task, name among all tasks, metric."""
        enabled = {name: task.enabled_metrics() for name, task in self.tasks.items()}
        names = metric_names(
            {task: [metric.name for metric in found] for task, found in enabled.items()}
        )
        return [
            (task, names[task, metric.name], metric)
            for task, found in enabled.items()
            for metric in found
        ]

    def metric_names(self) -> list[str]:
        return [*CRITERION_METRICS, *(name for _, name, _ in self.metrics())]

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        """Log the criterion's values, and in a validation the metrics of all tasks."""
        super().reduce_metrics(logging_outputs, criterion)
        for task, name, metric in self.metrics():
            log_metric(name, metric, logging_outputs, prefix_of(task))


def prefix_of(task: str) -> str:
    """``_refcoco``, before counts such as ``_score_sum``: those of two tasks never meet."""
    return f"_{task}"


def declared() -> dict[str, TaskSpec]:
    """Every task that can be part of a joint training, by name."""
    specs = [task.spec for task in TASK_REGISTRY.values() if hasattr(task, "spec")]
    return {spec.name: spec for spec in specs if spec.columns or spec.name == TEMPLATE}


def options_of(name: str | None, path: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The options with which a joint training trained one of its tasks, from its checkpoint.

    Args: name: of the task, or a task in one line. Raises: UserError if it did not train that task.
    """
    members = (state.get("task_state") or {}).get(MEMBERS, {})
    trained = {options.get(TEMPLATE) or member: options for member, options in members.items()}
    if name not in trained:
        found = f"and not for '{name}'" if name else "and no task is chosen"
        raise UserError(
            f"{path}: one model for {', '.join(trained) or 'several tasks'}, {found}; choose one by"
            " --task"
        )
    return dict(trained[name])
