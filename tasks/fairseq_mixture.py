"""``--task joint FILE.json``: one model trained on several tasks at once, each validated by its own
metric.

The tasks are those of this folder, built as they are on their own; what they do together is in
``ofa.task.mixture_file`` (the file) and ``ofa.data.mixture`` (the order). A batch may hold samples
of all of them.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional, cast

from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import TASK_REGISTRY, FairseqTask, register_task, setup_task
from omegaconf import OmegaConf

from ofa.data.fairseq_mixture import JointDataset
from ofa.data.sample import TASK
from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.stored_options import MEMBERS
from ofa.task.mixture_file import Member, given, metric_names, read_members
from ofa.task.task_spec import Metric, TaskOptions, TaskSpec, mixture_spec
from ofa.tasks.fairseq_task import CRITERION_METRICS, MetricOfSums, OFATask

logger = logging.getLogger(__name__)


@dataclass
class JointConfig(TaskOptions, FairseqDataclass):
    """The options that every task has; those of one task are in the file."""

    data: Optional[str] = option(None, "JSON file: task -> its data, weight and options")


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
    def setup_task(cls, cfg, **kwargs) -> "JointTask":
        """Raises: UserError if the file or the options of one of its tasks are wrong."""
        joint = super().setup_task(cfg, **kwargs)
        members = read_members(cfg.data or "", declared())
        joint.weights = {member.name: member.weight for member in members}
        joint.tasks = {member.name: joint.make(member) for member in members}
        return joint

    def make(self, member: Member) -> OFATask:
        """A task with the options of the command line, replaced by those of the file."""
        task = setup_task(
            OmegaConf.create({**given(self.cfg), **member.options, "_name": member.name})
        )
        task.tensorboard_samples.name = f"{member.name} sample"
        return task

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints keep: the options of every task as plain values, for an evaluation of
        one of them."""
        return {
            MEMBERS: {
                name: {
                    key: value
                    for key, value in cast(dict, OmegaConf.to_container(task.cfg)).items()
                    if key != "_name"
                }
                for name, task in self.tasks.items()
            }
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A training that continues takes the options of its file, as it takes those of its
        command line."""

    # --- data
    # ----------------------------------------------------------------------------------------------

    def has_sharded_data(self, split: str) -> bool:
        return any(task.has_sharded_data(split) for task in self.tasks.values())

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
        for name, count in zip(members, joint.mixture.counts):
            logger.info(
                "%s: %s, %d samples an epoch (%.1f %%)",
                split,
                name,
                count,
                100 * count / len(joint),
            )

    # --- model, training and validation
    # ---------------------------------------------------------------------

    def make_generators(self, model) -> None:
        for task in self.tasks.values():
            task.make_generators(model)

    def valid_step(self, sample, model, criterion, ema_model=None):
        """As the task of the batch does it. Every batch reports the counts of all tasks, those
        of others as zero."""
        counts = {
            new: 0.0
            for name in self.tasks
            for metric in self.renamed(name)
            for new in metric.counts
        }
        name = sample.get(TASK)
        if name is None:  # a filler, mixed as in training: nothing of it counts
            loss, sample_size, logging_output = FairseqTask.valid_step(
                self, sample, model, criterion
            )
        else:
            task = self.tasks[name]
            plain = {key: value for key, value in sample.items() if key != TASK}
            loss, sample_size, logging_output = task.valid_step(plain, model, criterion, ema_model)
        own = {
            count
            for task in self.tasks.values()
            for metric in task.spec.metrics.figures
            for count in metric.counts
        }
        counts.update(
            {
                count_name(name, key): value
                for key, value in logging_output.items()
                if key in own and count_name(name, key) in counts
            }
        )
        return (
            loss,
            sample_size,
            {**{key: value for key, value in logging_output.items() if key not in own}, **counts},
        )

    def post_validate(self, model, stats: Mapping[str, Any], aggregator) -> None:
        for task in self.tasks.values():
            task.post_validate(model, stats, aggregator)

    def enabled(self) -> dict[str, list[Metric]]:
        """Task -> the metrics that it validates with."""
        return {name: task.enabled_metrics() for name, task in self.tasks.items()}

    def renamed(self, name: str) -> list[Metric]:
        """The metrics of a task with names and counts of their own among all tasks."""
        enabled = self.enabled()
        names = metric_names(
            {task: [metric.name for metric in found] for task, found in enabled.items()}
        )
        return [
            replace(
                metric,
                name=names[name, metric.name],
                value=OwnCounts(name, metric.value),
                counts=tuple(count_name(name, count) for count in metric.counts),
            )
            for metric in enabled[name]
        ]

    def metric_names(self) -> list[str]:
        return [
            *CRITERION_METRICS,
            *(metric.name for name in self.tasks for metric in self.renamed(name)),
        ]

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        """Log the criterion's values, and in a validation the metrics of all tasks."""
        super().reduce_metrics(logging_outputs, criterion)
        for metric in (metric for name in self.tasks for metric in self.renamed(name)):
            if any(metric.counts[-1] in log for log in logging_outputs):
                for count in metric.counts:
                    metrics.log_scalar(count, sum(log.get(count, 0) for log in logging_outputs))
                metrics.log_derived(metric.name, MetricOfSums(metric))


def declared() -> dict[str, TaskSpec]:
    """Every task that can be part of a joint training, by name."""
    specs = [task.spec for task in TASK_REGISTRY.values() if hasattr(task, "spec")]
    return {spec.name: spec for spec in specs if spec.columns}


def count_name(task: str | None, count: str) -> str:
    """``_score_sum`` of refcoco -> ``_refcoco_score_sum``: counts of two tasks never meet."""
    return f"_{task}{count}"


class OwnCounts:
    """A metric's value from counts under the names that they have among all tasks."""

    def __init__(self, task: str, value: Callable[[Mapping[str, float]], float]):
        self.task = task
        self.value = value

    def __call__(self, counts: Mapping[str, float]) -> float:
        prefix = count_name(self.task, "")
        return self.value({count.removeprefix(prefix): number for count, number in counts.items()})


def options_of(task: str | None, path: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The options with which a joint training trained one of its tasks, from its checkpoint.

    Raises: UserError if it did not train that task.
    """
    members = (state.get("task_state") or {}).get(MEMBERS, {})
    if task not in members:
        found = f"and not for '{task}'" if task else "and no task is chosen"
        raise UserError(
            f"{path}: one model for {', '.join(members) or 'several tasks'}, {found}; choose one by"
            " --task"
        )
    return dict(members[task])
