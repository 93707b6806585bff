"""One model trained on several tasks at once: ``--task joint FILE.json``, each validated by its own
metric, and ``--task unify_task``, the up to eight tasks of a pretraining.

Files and weights are read by ``ofa.task.mixture_file`` and ``ofa.task.pretraining_tasks``;
``ofa.data.fairseq_mixture`` decides the order of the rows. A batch may hold samples of all tasks.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import TASK_REGISTRY, register_task, setup_task
from omegaconf import II, OmegaConf

from ofa.criterions.fairseq_criterion import TOKEN_NLL
from ofa.data.bad_rows import BadRows
from ofa.data.fairseq_mixture import PAIRS as PAIR_ROWS
from ofa.data.fairseq_mixture import JointDataset, PretrainingDataset
from ofa.data.negatives import NegativeSampler
from ofa.data.pretraining import PretrainingBuilder
from ofa.data.rows import NamedRows, open_rows
from ofa.data.sample import TASK
from ofa.data.tsv import data_files
from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.stored_options import MEMBERS
from ofa.io.terminal import with_noun
from ofa.task.mixture_file import TEMPLATE, given, parse_members, read_members
from ofa.task.pretraining_tasks import PAIR_TASKS, TASKS, PretrainingOptions, parse_weights
from ofa.task.scoring import Metric
from ofa.task.task_spec import TaskOptions, mixture_spec
from ofa.tasks.fairseq_task import CRITERION_METRICS, OFATask, log_metric
from ofa.tasks.pretraining import EXTRAS, MATCHING, PAIRS
from ofa.tokens.image_codes import CODE_SIDE
from ofa.trainer.fairseq_distributed import of_all_ranks

logger = logging.getLogger(__name__)


@dataclass
class JointConfig(TaskOptions, FairseqDataclass):
    """The options that every task has; those of one task are in the file."""

    data: Optional[str] = option(None, "JSON file: task -> its data, weight and options")
    mixture: Optional[str] = option(None, "without a file: 'NAME=FILES*WEIGHT, ...'")


@register_task("joint", dataclass=JointConfig)
class JointTask(OFATask):
    """Several tasks with one vocabulary, one model and one criterion."""

    spec = mixture_spec("joint", JointConfig)
    tasks: dict[str, OFATask]  # by name, in the order of the file
    weights: dict[str, float]  # how often the rows of each are shown in an epoch

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
        joint.weights, joint.tasks = {}, {}
        specs = [task.spec for task in TASK_REGISTRY.values() if hasattr(task, "spec")]
        known = {spec.name: spec for spec in specs if spec.columns or spec.name == TEMPLATE}
        for member in read(cfg.mixture or cfg.data, known):
            # the options of the command line, replaced by those of the file
            options = {**given(cfg), **member.options, "_name": member.task}
            joint.tasks[member.name] = task = setup_task(OmegaConf.create(options))
            joint.weights[member.name] = member.weight
            task.validation_samples.name = f"{member.name} sample"
        return joint

    def state_dict(self) -> dict[str, Any]:
        """The options of every task as plain values, for an evaluation of one of them."""
        members: Any = {name: OmegaConf.to_container(task.cfg) for name, task in self.tasks.items()}
        for options in members.values():
            options.pop("_name", None)
        return {MEMBERS: members}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A training that continues takes the options of its file, as those of its command line."""

    # --- data

    def training_files(self) -> dict[str, list[str]]:
        return {name: task.training_files()["train"] for name, task in self.tasks.items()}

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Open the files of all tasks."""
        for task in self.tasks.values():
            task.load_dataset(split, epoch, combine, **kwargs)
        members = {name: task.datasets[split] for name, task in self.tasks.items()}
        weights, cfg = self.weights if split == "train" else None, self.cfg
        joint = JointDataset(members, weights, cfg.shuffle, cfg.shuffle_buffer)
        self.datasets[split] = joint
        for name, count in joint.counts().items():
            share = 100 * count / len(joint)
            samples = with_noun(count, "sample")
            logger.info("%s: %s, %s an epoch (%.1f %%)", split, name, samples, share)

    # --- model, training and validation

    def make_generators(self, model) -> None:
        for task in self.tasks.values():
            task.make_generators(model)

    def valid_step(self, sample, model, criterion, ema_model=None):
        """As the task of the batch does it. Every batch reports the counts of all tasks, those
        of others as zero."""
        batch_task = sample.get(TASK)
        if batch_task is None:  # a filler, mixed as in training: nothing of it counts
            step = super().valid_step(sample, model, criterion, ema_model)
        else:
            plain = {key: value for key, value in sample.items() if key != TASK}
            step = self.tasks[batch_task].valid_step(plain, model, criterion, ema_model)
        loss, sample_size, logging_output = step
        figures = [metric for task in self.tasks.values() for metric in task.spec.metrics.figures]
        own = {count for metric in figures for count in metric.counts}
        log = {key: value for key, value in logging_output.items() if key not in own}
        for task, _, metric in self.metrics():
            found = logging_output if task == batch_task else {}
            # ``_refcoco_score_sum``: the counts of two tasks never meet
            log |= {f"_{task}{count}": found.get(count, 0.0) for count in metric.counts}
        return loss, sample_size, log

    def post_validate(self, model, stats: Mapping[str, Any], aggregator) -> None:
        for task in self.tasks.values():
            task.post_validate(model, stats, aggregator)

    def metrics(self) -> list[tuple[str, str, Metric]]:
        """The metrics that the tasks validate with: task, name (``TASK_NAME`` where two tasks use
        the same), metric."""
        members = self.tasks.items()
        enabled = [(name, metric) for name, task in members for metric in task.enabled_metrics()]
        uses = Counter(metric.name for _, metric in enabled)
        return [
            (name, f"{name}_{metric.name}" if uses[metric.name] > 1 else metric.name, metric)
            for name, metric in enabled
        ]

    def metric_names(self) -> list[str]:
        return [*CRITERION_METRICS, *(name for _, name, _ in self.metrics())]

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        """Log the criterion's values, and in a validation the metrics of all tasks."""
        super().reduce_metrics(logging_outputs, criterion)
        for task, name, metric in self.metrics():
            log_metric(name, metric, logging_outputs, f"_{task}")


@dataclass
class UnifyConfig(PretrainingOptions, FairseqDataclass):
    """``disable_validation``: then every file of DATA is for training, as upstream."""

    disable_validation: bool = II("dataset.disable_validation")


@register_task("unify_task", dataclass=UnifyConfig)
class UnifyTask(OFATask):
    """One vocabulary, one model, one criterion for all tasks."""

    spec = mixture_spec("unify_task", PretrainingOptions)
    parts = TASKS  # in the order of a batch's numbers; the criterion reports each of them
    weights: dict[str, float]  # how often each task is trained; without a file 0

    @classmethod
    def setup_task(cls, cfg, **kwargs) -> "UnifyTask":
        """Raises: UserError if options do not fit one another, or nothing is left to train."""
        if cfg.decode_on_device:
            raise UserError(
                "--decode-on-device: expects a task that shows whole images, found unify_task,"
                " whose data workers crop them; leave it out"
            )
        task = super().setup_task(cfg, **kwargs)
        wanted = parse_weights(cfg.task_weights).items()
        task.weights = {name: weight if task.files(name) else 0.0 for name, weight in wanted}
        if not task.trained():
            flags = ", ".join(f"--{kind.name}-data" for kind in EXTRAS.values())
            raise UserError(
                "task 'unify_task' expects files of at least one task whose weight is not 0, found"
                f" none; give DATA, {flags}"
            )
        check_sizes(task.options(), task.weights)
        task.bad_rows = BadRows(cfg.skip_bad_rows)
        task.negatives = NegativeSampler(cfg.neg_sample_dir) if task.weights[MATCHING] else None
        trained = ", ".join(f"{name} {task.weights[name]:g}" for name in task.trained())
        without = ", ".join(name for name in TASKS if not task.weights[name]) or "none"
        logger.info("tasks and their weights: %s; without: %s", trained, without)
        return task

    def files(self, name: str) -> Optional[str]:
        """The files of a task, as its option names them."""
        if name in PAIR_TASKS:
            return None if self.cfg.data == "none" else self.cfg.data
        return getattr(self.cfg, f"{EXTRAS[name].name}_data")

    # --- data

    def paths_of(self, split: str) -> dict[str, list[str]]:
        """Pairs, and auxiliary rows by task, of the tasks that are trained -> their files."""
        found = {}
        for name in self.trained():
            files, is_pair = self.files(name), name in PAIR_TASKS
            # a single auxiliary file is for training alone
            if is_pair or split == "train" or len(data_files(files, "train", True)) > 1:
                paths = data_files(files, split, self.cfg.disable_validation)
                found[PAIR_ROWS if is_pair else name] = paths
        return {name: paths for name, paths in found.items() if paths}

    def training_files(self) -> dict[str, list[str]]:
        return self.paths_of("train")

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Open the files of a split: of several training files the one whose turn it is in
        ``epoch``."""
        rows = {}
        for name, paths in self.paths_of(split).items():
            kind = EXTRAS.get(name, PAIRS)
            columns = getattr(self.cfg, kind.flag.removeprefix("--").replace("-", "_"))
            file = open_rows(paths[(epoch - 1) % len(paths)], columns or kind.default_cols)
            rows[name] = NamedRows(file, kind)
            logger.info("%s: %s: %s, %s", split, name, file.path, with_noun(len(file), "row"))
        if not rows:
            raise UserError(
                f"{split}: task 'unify_task' expects a file to evaluate, found none; give it as the"
                " last of DATA or of --text-data, --image-data, --detection-data, or train with"
                " --disable-validation"
            )
        builder = PretrainingBuilder(
            self.spec, self.options(), self.vocabulary, self.bpe, split, self.negatives
        )
        self.datasets[split] = PretrainingDataset(
            rows, builder, self.weights, self.cfg.shuffle, self.bad_rows, self.cfg.shuffle_buffer
        )

    def run_state(self) -> dict:
        return {"bad_rows": self.bad_rows.names()}

    def load_run_state(self, state: Mapping[str, Any]) -> None:
        self.bad_rows.restore(state.get("bad_rows", []))

    def begin_epoch(self, epoch: int, model) -> None:
        """Called by fairseq before each epoch. Raises: UserError if all processes together met
        too many broken rows."""
        super().begin_epoch(epoch, model)
        if self.bad_rows.limit:
            self.bad_rows.add(chain.from_iterable(of_all_ranks(self.bad_rows.names())))

    # --- training and validation

    def train_step(self, sample, *args, **kwargs):
        """Every batch is a step of pretraining, also one of pairs alone: it counts as much as
        the others."""
        return super().train_step(as_groups(sample), *args, **kwargs)

    def valid_step(self, sample, model, criterion, ema_model=None):
        return super().valid_step(as_groups(sample), model, criterion, ema_model)

    def trained(self) -> list[str]:
        return [name for name in TASKS if self.weights[name]]

    def metric_names(self) -> list[str]:
        own = (f"{name}_{figure}" for name in self.trained() for figure in ("loss", "acc"))
        return [*CRITERION_METRICS, *own]

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        """Log the criterion's values, and each task's mean loss and per cent of right tokens."""
        super().reduce_metrics(logging_outputs, criterion)
        for name in self.trained():
            nll, correct, tokens = (
                float(sum(log.get(f"_{name}_{count}", 0) for log in logging_outputs))
                for count in ("nll", "correct", "tokens")
            )
            if tokens:
                metrics.log_scalar(TOKEN_NLL, nll / tokens, tokens)
                metrics.log_scalar(f"{name}_loss", nll / tokens, tokens, round=3)
                metrics.log_scalar(f"{name}_acc", 100 * correct / tokens, tokens, round=2)


def as_groups(sample):
    """Batches of a step: (pairs,) or (pairs, auxiliary rows)."""
    return (sample,) if isinstance(sample, dict) else sample


def check_sizes(options: PretrainingOptions, weights: dict[str, float]) -> None:
    """Raises: UserError if sizes of images do not fit one another."""
    side, largest = options.code_image_size, options.enlargement[0]
    if side % (2 * CODE_SIDE):
        raise UserError(f"--code-image-size {side}: expects a multiple of {2 * CODE_SIDE} pixels")
    seen = max(options.patch_image_size, 2 * side * bool(weights["detection"]))
    if seen > options.max_image_size:
        raise UserError(
            f"--patch-image-size {options.patch_image_size} --code-image-size {side}: images of"
            f" {seen} pixels are larger than --max-image-size {options.max_image_size}, the place"
            " of the last location bin; raise it"
        )
    if largest < options.patch_image_size:
        least = options.patch_image_size
        raise UserError(f"--max-resize {largest}: expects at least --patch-image-size {least}")
    codes = (side // CODE_SIDE) ** 2
    mixed = weights["image_infilling"] and (weights["detection"] or weights["text_infilling"])
    if mixed and codes + 1 > options.max_target_positions:
        raise UserError(
            f"--code-image-size {side}: {codes} codes and the end do not fit beside texts of up to"
            f" --max-target-positions {options.max_target_positions}; make images smaller, or"
            " train image infilling without texts and detection"
        )
