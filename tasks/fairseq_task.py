"""Every ``SPEC`` of this folder as a fairseq task, for ``--task NAME``: one class, which builds
model and generator and sums what validation counted. What differs between tasks is in their
declarations (``ofa.task.task_spec``) alone."""

import argparse
import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.tasks import TASK_REGISTRY, register_task

from ofa.data.sample import answer_set
from ofa.errors import UserError
from ofa.io.flags import add_flag
from ofa.io.terminal import with_noun
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.scoring import Metric, Scorer
from ofa.task.task_spec import Decoding, TaskSpec
from ofa.tasks import declared_specs, template
from ofa.tasks.fairseq_image_generation import ImageGenerationTask
from ofa.tokens.bpe import load_language
from ofa.tokens.vocabulary import Vocabulary
from ofa.trainer import fairseq_distributed
from ofa.trainer.fairseq_tensorboard import ValidationSamples
from ofa.trainer.nonfinite import check_loss

logger = logging.getLogger(__name__)

# what the criterions report while validating
CRITERION_METRICS = ("loss", "nll_loss", "ppl", "accuracy")
# what --amp computes in; a CPU has no fast fp16
AMP_TYPES = {"cuda": torch.float16, "cpu": torch.bfloat16}


class OFATask(ImageGenerationTask):
    """A task of OFA: one row of a TSV file in, one sentence out."""

    decoding = Decoding()  # how validation gets answers
    sequence_generator = scst_generator = None  # made by ``build_model`` if this run generates
    rows_validated = rows_without_reference = 0  # since the last validation ended

    def __init__(self, cfg, vocabulary: Vocabulary, bpe):
        super().__init__(cfg)
        self.spec = type(self).spec.bound(self.options())
        self.vocabulary, self.bpe = vocabulary, bpe
        self.dictionary = fairseq_dictionary(vocabulary)
        self.answers = answer_set(self.spec, self.options(), vocabulary, bpe)
        self.scorer: Scorer | None = None
        self.validation_samples = ValidationSamples(cfg.imagenet_default_mean_and_std)

    @classmethod
    def add_args(cls, parser: argparse.ArgumentParser) -> None:
        """The options of the task; ``--shuffle`` and ``--no-shuffle`` both exist."""
        shuffle = cls.spec.options.__dataclass_fields__["shuffle"]
        add_flag(parser, "shuffle", bool, shuffle.default, **shuffle.metadata)
        super().add_args(parser)
        # of a flag that the model has too the default is the task's
        for option in dataclasses.fields(cls.spec.options):
            unset = parser.get_default(option.name) in (None, argparse.SUPPRESS)
            if unset and option.default not in (None, dataclasses.MISSING):
                parser.set_defaults(**{option.name: option.default})

    @classmethod
    def setup_task(cls, cfg, **kwargs) -> "OFATask":
        """Raises: UserError if ``--bpe-dir`` is missing or not a vocabulary folder of the kind
        ``--bpe``."""
        if not cfg.bpe_dir:
            raise UserError(
                f"task '{cls.spec.name}': --bpe-dir expects a vocabulary folder (dict.txt, BPE"
                " files), found none; make one by 'ofa vocab build' or 'ofa vocab fetch gpt2'"
                " (Chinese: bert_cn)"
            )
        bpe, vocabulary = load_language(cfg.bpe_dir, cfg.bpe, cfg.code_dict_size, cfg.num_bins)
        logger.info("%s vocabulary with %d entries: %s", bpe.kind, len(vocabulary), cfg.bpe_dir)
        return cls(cfg, vocabulary, bpe)

    # --- model and generation

    def build_model(self, cfg, from_checkpoint: bool = False):
        """A model for this vocabulary, and what generates with it."""
        model = super().build_model(cfg, from_checkpoint)
        self.make_generators(model)
        return model

    def make_generators(self, model) -> None:
        """The generators that validation and CIDEr optimization need."""
        self.decoding = self.spec.decoding(self.options(), False)
        if self.enabled_metrics() or self.generates_images:
            args = self.arguments("eval_args")
            self.sequence_generator = self.generator_for([model], args, self.decoding)
        if getattr(self.cfg, "scst", False):
            args = self.arguments("scst_args")
            self.scst_generator = self.generator_for([model], args, self.decoding)

    def run_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the task for a run that continues."""
        return {}

    def load_run_state(self, state: Mapping[str, Any]) -> None:
        """Args: state: of the checkpoint that this run continues from."""

    # --- training and validation

    @property
    def uses_ema(self) -> bool:
        """Asked by fairseq, which then passes the model with averaged weights."""
        return self.cfg.uses_ema

    def train_step(
        self, sample, model, criterion, optimizer, update_num, ignore_grad=False, ema_model=None
    ):
        """Forward and backward; the criterion learns the number of updates
        (``--drop-worst-after``)."""
        sample, is_filler = fairseq_distributed.take_mark(sample)
        model.train()
        model.set_num_updates(update_num)
        device = next(model.parameters()).device.type
        mixed = torch.autocast(
            device, AMP_TYPES.get(device), enabled=isinstance(optimizer, AMPOptimizer)
        )
        with torch.autograd.profiler.record_function("forward"), mixed:
            loss, sample_size, logging_output = criterion(model, sample, update_num=update_num)
        check_loss(loss, sample, skips=getattr(optimizer, "scaler", None) is not None)
        if ignore_grad or is_filler:
            loss *= 0
        with torch.autograd.profiler.record_function("backward"):
            optimizer.backward(loss)
        if is_filler:
            return loss, sample_size * 0, {key: value * 0 for key, value in logging_output.items()}
        return loss, sample_size, logging_output

    def valid_step(self, sample, model, criterion, ema_model=None):
        """Loss of a batch, and the counts of the enabled metrics; by the averaged weights if there
        are any. Only sums go into the logging output: fairseq adds them up over the ranks (a rank
        without a batch of its own adds nothing), ``reduce_metrics`` divides at the end."""
        if ema_model is not None:
            model = ema_model.eval()
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if self.enabled_metrics():
            rows = self.rows(sample)
            predictions = self.predict(
                sample, [model], self.sequence_generator, self.decoding, self.decoding.best
            )
            texts = [prediction.text for prediction in predictions]
            references = list(map(self.spec.metrics.references, rows))
            if getattr(self.cfg, "eval_print_samples", False):
                first = " | ".join(references[0])
                logger.info("example hypothesis: %s | references: %s", texts[0], first)
            self.validation_samples.add(sample, texts, references)
            logging_output.update(self.counts(predictions, rows))
        return loss, sample_size, logging_output

    def post_validate(self, model, stats: Mapping[str, Any], aggregator) -> None:
        """Called by fairseq after a validation."""
        if self.rows_without_reference:
            what = f"{self.rows_without_reference} of {with_noun(self.rows_validated, 'row')}"
            logger.warning("validation: %s of this process without a reference, not scored", what)
        self.rows_validated = self.rows_without_reference = 0
        self.validation_samples.show(stats["num_updates"])

    def counts(self, predictions: list[Prediction], rows: list[BatchRow]) -> dict[str, float]:
        """What the enabled metrics are computed from, summed over a batch."""
        if self.scorer is None:
            of_batch = list(map(self.spec.metrics.references, rows))
            self.scorer = self.spec.metrics.make_scorer(
                self.cfg, lambda: self.all_references() or of_batch
            )
        known = [any(map(str.strip, self.spec.metrics.references(row))) for row in rows]
        self.rows_validated += len(rows)
        self.rows_without_reference += known.count(False)
        if not any(known):
            return {count: 0.0 for metric in self.enabled_metrics() for count in metric.counts}
        return self.scorer(list(compress(predictions, known)), list(compress(rows, known)))

    def all_references(self) -> list[list[str]]:
        """The references of every validation row, if its file is loaded. Reads no image."""
        evaluated = [dataset for split, dataset in self.datasets.items() if split != "train"]
        return [
            self.spec.metrics.references(BatchRow(target=self.target_text(dataset.target(row))))
            for dataset in evaluated[:1]
            for row in range(len(dataset))
        ]

    def rewards(
        self, answers: Sequence[torch.Tensor], rows: Sequence[int], sample: Mapping[str, Any]
    ) -> np.ndarray:
        """float64[answers]: what sampled answers earn by the task's own ``reward``. Args: answers:
        token ids of each. rows: of each, its row in the batch ``sample``."""
        every, reward = self.rows(sample), self.spec.metrics.reward
        assert reward is not None
        known, found = [every[row] for row in rows], map(self.hypothesis, answers)
        predictions = [self.spec.prediction(*pair, self.cfg) for pair in zip(found, known)]
        return np.array(reward(predictions, known), dtype=np.float64)

    def metric_names(self) -> list[str]:
        """What ``--best-checkpoint-metric`` may name in this run."""
        reward = ["score"] if getattr(self.cfg, "scst", False) else []
        return [*CRITERION_METRICS, *reward, *(metric.name for metric in self.enabled_metrics())]

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        """Log the criterion's values and those metrics whose counts are there."""
        super().reduce_metrics(logging_outputs, criterion)
        for metric in self.spec.metrics.figures:
            log_metric(metric.name, metric, logging_outputs)


def log_metric(name: str, metric: Metric, logging_outputs, prefix: str = "") -> None:
    """Log a metric if its counts are there. Args: prefix: of their names in the outputs."""
    counts = [prefix + count for count in metric.counts]
    if any(counts[-1] in log for log in logging_outputs):
        for count in counts:
            metrics.log_scalar(count, sum(log.get(count, 0) for log in logging_outputs))

        def value(meters) -> float:
            return metric.value({key: float(meters[prefix + key].sum) for key in metric.counts})

        metrics.log_derived(name, value)


def fairseq_dictionary(vocabulary: Vocabulary) -> Dictionary:
    """The vocabulary in fairseq's class, entry for entry."""
    dictionary = Dictionary()
    dictionary.symbols = list(vocabulary.symbols)
    dictionary.indices = {symbol: index for index, symbol in enumerate(vocabulary.symbols)}
    dictionary.count = [1] * len(vocabulary)
    return dictionary


def register_spec(spec: TaskSpec, aliases: Sequence[str] = ()) -> type[OFATask]:
    """Make ``--task NAME`` known to fairseq, under other names as well. Raises: UserError if there
    is a task of that name: fairseq would silently keep the first."""
    if spec.name in TASK_REGISTRY:
        raise UserError(
            f"task '{spec.name}': fairseq has a task of this name already; choose another name"
        )
    for name in (spec.name, *aliases):
        title, here = name.title().replace("_", ""), {"__module__": __name__}
        kinds = (spec.options, FairseqDataclass)
        config: Any = dataclass(type(f"{title}Config", kinds, here))
        task = type(f"{title}Task", (OFATask,), {**here, "spec": spec})
        # both are in this module under their own names, so that configurations can be pickled
        globals().update({config.__name__: config, task.__name__: task})
        register_task(name, dataclass=config)(task)
    return TASK_REGISTRY[spec.name]


def register_all(specs: Sequence[TaskSpec]) -> None:
    """Every task under its name, and under the aliases that no other task or fairseq has."""
    claimed = Counter(name for spec in specs for name in spec.names)
    for spec in specs:
        free = (alias for alias in spec.aliases if claimed[alias] == 1)
        register_spec(spec, [alias for alias in free if alias not in TASK_REGISTRY])


register_all([*declared_specs(), template.UNBOUND])
