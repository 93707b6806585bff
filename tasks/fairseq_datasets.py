"""From the files of a split to batches, in fairseq's words: datasets, their order, their iterator;
and, before a training starts, whether every row can be learned with the answers that the run
allows. What ``OFATask`` inherits.
"""

import logging
from collections.abc import Sequence
from typing import Any

from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask
from torch import distributed

from ofa.data.fairseq_dataset import OFADataset
from ofa.data.rows import Rows, open_rows
from ofa.data.sample import SampleBuilder
from ofa.data.tsv import data_files
from ofa.errors import UserError
from ofa.task.answers import AnswerSet, MissingAnswers, source_of
from ofa.task.task_spec import TaskSpec
from ofa.tokens.vocabulary import Vocabulary
from ofa.trainer.fairseq_distributed import of_all_ranks
from ofa.trainer.fairseq_resume import RowIterator
from ofa.trainer.nonfinite import check_loss
from ofa.trainer.patch import specialize

logger = logging.getLogger(__name__)

LOOKED_AT = 1000  # rows of an evaluation file whose answers are looked at


class ReadingTask(FairseqTask):
    """A task that reads rows.

    Attributes:
        spec: the declaration of the task. vocabulary, dictionary, bpe: its tokens.
        answers: what may be answered; None: anything.
        checked: kinds of files that were found to be answerable.
    """

    spec: TaskSpec
    vocabulary: Vocabulary
    dictionary: Dictionary
    bpe: Any
    answers: AnswerSet | None = None
    checked: frozenset[str] = frozenset()

    def has_sharded_data(self, split: str) -> bool:
        """Whether a file of a split changes with the epoch."""
        return split == "train" and any(len(paths) > 1 for paths in self.training_files().values())

    def training_files(self) -> dict[str, list[str]]:
        """Name of a kind of rows -> the files with such rows that training takes in turn, one
        per epoch."""
        return {"train": data_files(self.cfg.data, "train")}

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Open the file of a split: of several training files the one whose turn it is in
        ``epoch``.

        Raises: UserError if the file is missing or its columns do not fit.
        """
        paths = data_files(self.cfg.data, split)
        if not paths:
            raise UserError(
                f"{self.cfg.data!r}: expected the path of a TSV file, found none; give"
                " train.tsv,valid.tsv"
            )
        dataset = self.open_file(paths[(epoch - 1) % len(paths)], split)
        logger.info("%s: %s, %d rows", split, dataset.file.path, len(dataset))
        kind = "training" if split == "train" else "evaluation"
        if self.answers is not None and kind not in self.checked:
            self.check_answers(dataset, self.answers)
            self.checked |= {kind}
        self.datasets[split] = dataset

    def open_file(self, path: str, split: str) -> OFADataset:
        """The rows of a file as those of a split."""
        return self.dataset_of(
            open_rows(path, self.cfg.selected_cols or self.spec.default_cols), split
        )

    def dataset_of(self, file: Rows, split: str) -> OFADataset:
        builder = SampleBuilder(
            self.spec, self.options(), self.vocabulary, self.bpe, split, answers=self.answers
        )
        shuffle = split == "train" and self.cfg.shuffle
        return OFADataset(file, builder, shuffle, self.cfg.shuffle_buffer)

    def check_answers(self, dataset: OFADataset, answers: AnswerSet) -> None:
        """Before the first epoch also the training files of later ones.

        Raises: UserError if the rows cannot be answered with this run's set of answers.
        """
        if dataset.builder.split == "train":
            paths = dict.fromkeys(self.training_files()["train"])
            datasets = [self.open_file(path, "train") for path in paths]
            check_training(datasets, answers, source_of(self.cfg))
        elif self.spec.closed:
            check_evaluation(dataset, answers, source_of(self.cfg))

    def options(self) -> Any:
        """The task's part of the configuration as plain values: small to send to workers."""
        return self.spec.options(
            **{name: getattr(self.cfg, name) for name in self.spec.options.__dataclass_fields__}
        )

    def get_batch_iterator(
        self, dataset, seed: int = 1, num_workers: int = 0, data_buffer_size: int = 0, **kwargs
    ):
        """fairseq's iterator over the dataset.

        The rows are in their order for the epoch before batches are cut from them; fairseq would
        shuffle the batches once more. Left as they are, an update sees the same rows whether a
        large batch is one process's, spread over ``--update-freq``, or over several processes.

        Every pass has its own workers, which end with it. Workers that outlive it would be stopped
        by the garbage collector, after the queues they listen to: each waits 5 seconds then. The
        thread that fills fairseq's buffer ends them in time, so workers always come with a buffer.
        """
        dataset.set_seed(seed)
        if num_workers > 0:
            data_buffer_size = max(data_buffer_size, 1)
        iterator = super().get_batch_iterator(
            dataset, seed=seed, num_workers=num_workers, data_buffer_size=data_buffer_size, **kwargs
        )
        iterator.disable_shuffling = True
        iterator.persistent_workers = False
        specialize(iterator, RowIterator)
        return iterator

    def valid_step(self, sample, model, criterion):
        """Loss of a batch; one that is not finite gets a warning from the trainer."""
        result = super().valid_step(sample, model, criterion)
        check_loss(result[0], sample, skips=True)
        return result

    def build_dataset_for_inference(self, src_tokens, src_lengths, **kwargs):
        """Asked by ``fairseq-interactive``, whose lines have no images. Raises: UserError."""
        raise UserError(
            "fairseq-interactive: asks about text alone, a task of OFA about images; use: ofa"
            " predict"
        )

    def eval_lm_dataloader(self, dataset, **kwargs):
        """Asked by ``fairseq-eval-lm``. Raises: UserError."""
        raise UserError(
            "fairseq-eval-lm: scores language models, found an encoder-decoder; use:"
            " fairseq-validate"
        )

    def filter_indices_by_size(
        self, indices, dataset, max_positions=None, ignore_invalid_inputs=False
    ):
        """All rows: the declaration cuts long texts, and lengths are unknown before a row is
        read."""
        return indices

    def max_positions(self) -> tuple[int, int]:
        return self.cfg.max_source_positions, self.cfg.max_target_positions

    @property
    def source_dictionary(self) -> Dictionary:
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        return self.dictionary


def check_training(datasets: Sequence[OFADataset], answers: AnswerSet, source: str) -> None:
    """Every row of all training files; several processes share the work.

    An answer outside the set would have an infinite loss.
    Args: source: where the answers come from, for the message.
    Raises: UserError with every kind of answer that is missing and where it first occurs.
    """
    is_many = distributed.is_initialized()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if is_many else (0, 1)
    found = MissingAnswers(answers.length_of)
    found.merge(
        look(dataset, answers, range(rank, len(dataset), world), learned=True)
        for dataset in datasets
    )
    found, *others = of_all_ranks(found)
    found.merge(others)
    paths = " ".join(dataset.file.path for dataset in datasets)
    if found:
        for line in found.lines():
            logger.error("missing answer %s", line)
        may_be_free = hasattr(datasets[0].builder.options, "unconstrained_training")
        raise UserError(found.message(paths, len(answers), source, may_be_free))
    known = "%s: the answers of all %d rows are among the %d of %s"
    logger.info(known, paths, found.rows, len(answers), source)


def check_evaluation(dataset: OFADataset, answers: AnswerSet, source: str) -> None:
    """The first rows of an evaluation file of a task whose rows all have answers of the set.

    Raises: UserError if one has not: then it is the file of another dataset.
    """
    found = look(dataset, answers, range(min(LOOKED_AT, len(dataset))), learned=False)
    if found:
        raise UserError(found.message(dataset.file.path, len(answers), source))


def look(dataset: OFADataset, answers: AnswerSet, rows: range, learned: bool) -> MissingAnswers:
    """What is missing in some rows; rows without an answer are skipped.

    Args: learned: an answer that is longer than targets may be is missing as well.
    """
    found = MissingAnswers(answers.length_of)
    for row in rows:
        example = dataset.example(row)
        answer = "".join(example.target).strip()
        if answer:
            found.look_at(
                answer, dataset.file.where(row), example.max_target_tokens if learned else None
            )
    return found
