"""``--task unify_task``: pretraining on up to eight tasks at once, see
``ofa.task.pretraining_tasks`` and ``tasks/pretraining.py``."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import register_task
from omegaconf import II

from ofa.criterions.fairseq_criterion import TOKEN_NLL
from ofa.data.bad_rows import BadRows
from ofa.data.fairseq_mixture import PAIRS as PAIR_ROWS
from ofa.data.fairseq_mixture import PretrainingDataset
from ofa.data.negatives import NegativeSampler
from ofa.data.pretraining import PretrainingBuilder
from ofa.data.rows import NamedRows, open_rows
from ofa.data.tsv import data_files
from ofa.errors import UserError
from ofa.task.pretraining_tasks import PAIR_TASKS, TASKS, PretrainingOptions, parse_weights
from ofa.task.task_spec import mixture_spec
from ofa.tasks.fairseq_datasets import ReadingTask
from ofa.tasks.fairseq_task import CRITERION_METRICS, OFATask
from ofa.tasks.pretraining import EXTRAS, MATCHING, PAIRS
from ofa.tokens.image_codes import CODE_SIDE
from ofa.trainer.fairseq_distributed import of_all_ranks

logger = logging.getLogger(__name__)


@dataclass
class UnifyConfig(PretrainingOptions, FairseqDataclass):
    """``disable_validation``: then every file of DATA is for training, as upstream."""

    disable_validation: bool = II("dataset.disable_validation")


@register_task("unify_task", dataclass=UnifyConfig)
class UnifyTask(OFATask):
    """One vocabulary, one model, one criterion for all tasks.

    Attributes:
        weights: how often each task is trained; those without a file have 0.
        parts: names of all tasks, in the order of a batch's numbers; the criterion reports each of
            them.
    """

    spec = mixture_spec("unify_task", PretrainingOptions)
    parts = TASKS
    weights: dict[str, float]

    @classmethod
    def setup_task(cls, cfg, **kwargs) -> "UnifyTask":
        """Raises: UserError if options do not fit one another, or nothing is left to train."""
        task = super().setup_task(cfg, **kwargs)
        wanted = parse_weights(cfg.task_weights)
        absent = [name for name in TASKS if not task.given(name)]
        task.weights = {name: 0.0 if name in absent else weight for name, weight in wanted.items()}
        if not any(task.weights.values()):
            flags = ", ".join(f"--{kind.name}-data" for kind in EXTRAS.values())
            raise UserError(
                "task 'unify_task' expects files of at least one task whose weight is not 0, found"
                f" none; give DATA, {flags}"
            )
        check_sizes(task.options(), task.weights)
        task.bad_rows = BadRows(cfg.skip_bad_rows)
        task.negatives = NegativeSampler(cfg.neg_sample_dir) if task.weights[MATCHING] else None
        trained = ", ".join(f"{name} {weight:g}" for name, weight in task.weights.items() if weight)
        logger.info(
            "tasks and their weights: %s; without: %s",
            trained,
            ", ".join(k for k, w in task.weights.items() if not w) or "none",
        )
        return task

    def given(self, name: str) -> Optional[str]:
        """The files of a task, as the option names them."""
        if name in PAIR_TASKS:
            return None if self.cfg.data == "none" else self.cfg.data
        return getattr(self.cfg, f"{EXTRAS[name].name}_data")

    # --- data

    def paths_of(self, split: str) -> dict[str, list[str]]:
        """Pairs, and auxiliary rows by task, of the tasks that are trained -> their files."""
        found = {}
        for name in filter(self.weights.get, TASKS):
            given, is_pair = self.given(name), name in PAIR_TASKS
            # a single auxiliary file is for training alone
            if is_pair or split == "train" or len(data_files(given, "train", True)) > 1:
                paths = data_files(given, split, self.cfg.disable_validation)
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
            path = paths[(epoch - 1) % len(paths)]
            file = open_rows(path, columns or kind.default_cols)
            rows[name] = NamedRows(file, kind)
            logger.info("%s: %s: %s, %d rows", split, name, file.path, len(file))
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
            self.bad_rows.add(
                name for names in of_all_ranks(self.bad_rows.names()) for name in names
            )

    # --- training and validation

    def train_step(self, sample, *args, **kwargs):
        """Every batch is a step of pretraining, also one of pairs alone: it counts as much as
        the others."""
        return super().train_step(as_groups(sample), *args, **kwargs)

    def valid_step(self, sample, model, criterion, ema_model=None):
        model = model if ema_model is None else ema_model.eval()
        return ReadingTask.valid_step(self, as_groups(sample), model, criterion)

    def post_validate(self, model, stats, aggregator) -> None:
        """No samples are shown: nothing is generated."""

    def trained(self) -> list[str]:
        return [name for name in TASKS if self.weights[name]]

    def metric_names(self) -> list[str]:
        return [
            *CRITERION_METRICS,
            *(f"{name}_{figure}" for name in self.trained() for figure in ("loss", "acc")),
        ]

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        """Log the criterion's values, and mean loss and share of right tokens (per cent) of each
        task."""
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
        raise UserError(
            f"--max-resize {largest}: expects at least --patch-image-size"
            f" {options.patch_image_size}"
        )
    codes = (side // CODE_SIDE) ** 2
    mixed = weights["image_infilling"] and (weights["detection"] or weights["text_infilling"])
    if mixed and codes + 1 > options.max_target_positions:
        raise UserError(
            f"--code-image-size {side}: {codes} codes and the end do not fit beside texts of up to"
            f" --max-target-positions {options.max_target_positions}; make images smaller, or"
            " train image infilling without texts and detection"
        )
