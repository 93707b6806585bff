"""The rows of several tasks as one fairseq dataset: a joint training, and the eight tasks of
pretraining.

Every task goes through its own rows, in a new order each time, and continues in the next epoch
where it stopped in this one. With a rate of 0.5 an epoch shows half of its rows, and the next epoch
the other half. Which row of which task a sample is depends on (seed, epoch, index) alone.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ofa.data.bad_rows import BadRows
from ofa.data.collate import FACTS, IMAGE_ROWS, collate, rows_of_images
from ofa.data.fairseq_dataset import OFADataset, RowsDataset, let_parent_decide_when_to_stop
from ofa.data.pretraining import PretrainingBuilder, RandomStreams
from ofa.data.rows import (
    NamedRows,
    cached_order,
    number_type,
    permutation,
    shuffled,
    uses_shuffle_buffer,
)
from ofa.data.sample import TASK, Sample, SampleBuilder
from ofa.errors import UserError
from ofa.task.pretraining_tasks import (
    GROUP,
    PAIR_TASKS,
    PAIRS_PER_GROUP,
    TASKS,
    RowKind,
    whole_times,
)

# key of a batch: int64[B], the task of each sample as its number in TASKS
TASK_IDS = "tasks"
PAIRS = "pairs"  # the part of rows with image and text; others are called as their task
TRIES = 10_000  # rows that are looked at for one of a task that is trained
BROKEN_TRIES = 100  # rows in turn that may be broken
MOST_GROUPS = 12  # of a row: a batch has to fit into memory
Samples = tuple[list[Sample], list[Sample]]  # of pairs, of auxiliary rows


@dataclass(frozen=True)
class Part:
    """Rows of a mixture.

    Args: rate: how often each is shown in an epoch of training. seed: tells their order from those
        of other parts. first: number of the first pass. shuffle: in a new order in each pass.
    """

    rows: Any
    rate: float = 1.0
    seed: tuple[int, ...] = ()
    first: int = 0
    shuffle: bool = True

    @property
    def count(self) -> int:
        """Samples of an epoch."""
        return max(1, round(self.rate * len(self.rows)))


class MixtureDataset(RowsDataset):
    """Samples are numbered part by part: of three with 2, 3 and 1 samples an epoch, index 0 and 1
    belong to the first, 2 to 4 to the second. The order in which they are asked for mixes them.
    Evaluation: every row once, part after part, and each batch holds rows of one part.

    Args: shuffle: rows and parts in a new order in every epoch; otherwise rows as in their files,
        parts evenly spread. shuffle_buffer: as ``ofa.data.rows`` takes it.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        builders: Sequence[SampleBuilder],
        training: bool,
        shuffle: bool = True,
        shuffle_buffer: int | None = None,
    ):
        super().__init__(builders)
        self.parts, self.training, self.seed = dict(parts), training, 1
        self.shuffle, self.shuffle_buffer = shuffle and training, shuffle_buffer
        counts = [part.count if training else len(part.rows) for part in parts.values()]
        # index of each part's first sample, and the total
        self.starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        """Samples of an epoch."""
        return int(self.starts[-1])

    def set_seed(self, seed: int) -> None:
        self.seed = seed

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            cached_order.cache_clear()  # the orders of earlier epochs, which may be large
        super().set_epoch(epoch)

    def counts(self) -> dict[str, int]:
        """Samples of each part in an epoch."""
        return dict(zip(self.parts, np.diff(self.starts).tolist()))

    def locate(self, index: int) -> tuple[str, int]:
        """Part and row of a sample."""
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        (name, part), place = list(self.parts.items())[number], index - int(self.starts[number])
        if not self.training:
            return name, place
        shown = (self.epoch - 1) * part.count + place
        return name, self.row_at(part, *divmod(shown, len(part.rows)))

    def row_at(self, part: Part, time: int, place: int) -> int:
        """The row that comes at a place when a part is gone through for the given time."""
        if not (self.shuffle and part.shuffle):
            return place
        seed = (self.seed, *part.seed)
        return int(cached_order(part.rows, seed, time + part.first, self.shuffle_buffer)[place])

    def ordered_indices(self) -> np.ndarray:
        """[samples]: every index once, in the order of this epoch."""
        if not self.training or len(self.parts) == 1:
            self.locate(0)  # here, so that data workers find the order of the rows made
            return np.arange(len(self), dtype=number_type(len(self)))
        if not self.shuffle:
            counts = np.diff(self.starts)
            progress = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
            return np.argsort(progress, kind="stable")
        order = permutation(len(self), np.random.default_rng((self.seed, self.epoch)))
        for part, start, stop in zip(self.parts.values(), self.starts, self.starts[1:]):
            # rows that are read near one another stay so
            if uses_shuffle_buffer(part.rows, self.shuffle_buffer):
                order[(order >= start) & (order < stop)] = np.arange(start, stop)
        return order

    def part_ends(self, indices: np.ndarray) -> list[int]:
        """Batches for evaluation end where a part ends."""
        starts = self.starts[1:1] if self.training else self.starts[1:-1]
        return [*np.searchsorted(indices, starts).tolist(), len(indices)]


class JointDataset(MixtureDataset):
    """Samples of several tasks; a training batch may hold those of all of them. Args: rates: how
    often each task's rows are shown in an epoch; None: for evaluation."""

    def __init__(
        self,
        members: Mapping[str, OFADataset],
        rates: Mapping[str, float] | None = None,
        shuffle: bool = True,
        shuffle_buffer: int | None = None,
    ):
        self.members = dict(members)
        parts = {
            name: Part(member.file, rates[name] if rates else 1.0, (number,))
            for number, (name, member) in enumerate(members.items())
        }
        builders = [member.builder for member in members.values()]
        super().__init__(parts, builders, rates is not None, shuffle, shuffle_buffer)
        self.row_files = {name: member.file for name, member in members.items()}

    def __getitem__(self, index: int) -> Sample:
        name, row = self.locate(int(index))
        member = self.members[name]
        member.epoch, member.builder.seed = self.epoch, self.seed
        return {**member[row], TASK: name}

    def collater(self, samples: list[Sample]) -> dict:
        """The batch of samples of any tasks."""
        names = {sample[TASK] for sample in samples}
        first = next(iter(self.members.values()))
        batch = first.collater(samples)
        return {**batch, TASK: names.pop()} if len(names) == 1 else batch


class PretrainingDataset(MixtureDataset):
    """Training: an index is a row of pairs, and every eighth in the order of the epoch brings a
    group of auxiliary rows, which come in turn as the parts of a mixture do. Without pairs an index
    is the number of a group. Evaluation: rows of the tasks that are trained.

    Args: files: rows with image and text as ``PAIRS``, auxiliary rows by task. weights: how often
        each task is trained; 0 is not at all.
    """

    def __init__(
        self,
        files: Mapping[str, NamedRows[RowKind]],
        builder: PretrainingBuilder,
        weights: Mapping[str, float],
        shuffle: bool,
        bad_rows: BadRows,
        shuffle_buffer: int | None = None,
    ):
        self.files, self.builder, self.weights = dict(files), builder, dict(weights)
        self.pairs = self.files.get(PAIRS)
        self.extras = extras = {name: rows for name, rows in files.items() if name != PAIRS}
        self.bad_rows = bad_rows
        # samples per group
        self.rates = {task: GROUP[task] * weights[task] for task in extras}
        parts = {name: Part(rows.file) for name, rows in self.files.items()}
        seed, training = (builder.options.pretrain_seed,), builder.split == "train"
        if training and self.pairs:
            parts = {PAIRS: Part(self.pairs.file, seed=seed, first=1)}
        elif training:
            groups = max(math.ceil(len(extras[task]) / self.rates[task]) for task in extras)
            buffered = any(uses_shuffle_buffer(f.file, shuffle_buffer) for f in extras.values())
            parts = {"groups": Part(range(groups), seed=seed, first=1, shuffle=not buffered)}
        super().__init__(parts, [builder], training, shuffle, shuffle_buffer)
        self.row_files = {name: rows.file for name, rows in files.items()}
        self.kept_rows: dict[str, np.ndarray] = {}

    def set_seed(self, seed: int) -> None:
        self.seed = self.builder.seed = seed

    def __getitem__(self, index: int) -> Samples:
        """Raises: UserError naming file and row if a row is broken and may not be skipped."""
        let_parent_decide_when_to_stop(os.getpid())
        name, row = self.locate(int(index))
        if not self.training:
            found = self.samples(name, row, self.builder.streams(1, int(index), "evaluation"))
            return (found, []) if name == PAIRS else ([], found)
        if name == PAIRS:
            return self.pair(row, int(index))
        return [], self.group((self.epoch - 1) * len(self) + row)

    def pair(self, row: int, place: int) -> Samples:
        """A row of pairs, or of the rows in place of it the first of a task that is trained.
        Args: place: in the order of the epoch."""
        streams = self.builder.streams(self.epoch, row, "pair")
        number, rest = divmod(place, PAIRS_PER_GROUP)
        before = (self.epoch - 1) * (len(self) // PAIRS_PER_GROUP)
        extras = self.group(before + number) if rest == PAIRS_PER_GROUP - 1 else []
        left_out = groups = 0
        while left_out < TRIES:
            found = self.samples(PAIRS, row, streams)
            if found:
                return found, extras
            left_out += not self.is_trained(PAIRS, row)
            row = streams.rng.randrange(len(self))
            # as for every row that is read
            if streams.rng.random() < 1 / PAIRS_PER_GROUP and groups < MOST_GROUPS:
                extras += self.group(streams.rng.getrandbits(40))
                groups += 1
        raise UserError(
            f"{self.files[PAIRS].file.path}: expects rows of the tasks that --task-weights trains,"
            f" found none among {TRIES}; leave out tasks that the file has no rows of, or give a"
            " file without the others"
        )

    def group(self, number: int) -> list[Sample]:
        """Auxiliary samples: two texts, an image without its middle, an image with objects, as
        often as their weights say."""
        found = []
        for task, rows in self.extras.items():
            rate, part = self.rates[task], Part(rows.file, seed=(TASKS.index(task),))
            # without a list of the rows where no shuffle buffer needs one
            listed = not self.shuffle or uses_shuffle_buffer(rows.file, self.shuffle_buffer)
            for count in range(math.floor(number * rate), math.floor((number + 1) * rate)):
                time, place = divmod(count, len(rows))
                key = f"{self.seed}-{task}-{time}"
                row = self.row_at(part, time, place) if listed else shuffled(place, len(rows), key)
                found += self.samples(task, row, self.builder.streams(0, count, task))
        return found

    def samples(self, name: str, row: int, streams: RandomStreams) -> list[Sample]:
        """Samples of a row, or of another one where it is broken and may be skipped."""
        rows = self.files[name]
        for _ in range(BROKEN_TRIES):
            try:
                return self.samples_of(name, row, streams)
            except UserError as error:
                self.bad_rows.skip(rows.where(row), error)
                last = error
            others = range(len(rows)) if self.training else self.trained_rows(name)
            row = int(streams.rng.choice(others)) if len(others) else row
        raise UserError(
            f"{last}; {BROKEN_TRIES} rows in turn were broken, few can be whole: fix the file (ofa"
            " doctor names every row)"
        )

    def samples_of(self, name: str, row: int, streams: RandomStreams) -> list[Sample]:
        rows = self.files[name]
        content, where = rows[row], rows.where(row)
        varies = self.training and name == PAIRS
        times = [
            whole_times(self.weights[task], streams.rng) if varies else int(self.weights[task] > 0)
            for task in rows.schema.type_of(content, where).tasks
        ]
        found = []
        for repeat in range(max(times)):
            made = self.builder.samples(rows.schema.read, content, streams, where, row)
            found += [sample for sample, count in zip(made, times) if repeat < count]
        return found

    def is_trained(self, name: str, row: int) -> bool:
        """Whether a row has a task that is trained; a row that does not tell will say so when it
        is read."""
        rows = self.files[name]
        try:
            tasks = rows.schema.type_of(rows.texts(row), rows.where(row)).tasks
            return any(self.weights[task] for task in tasks)
        except UserError:
            return True

    def trained_rows(self, name: str) -> np.ndarray:
        """The rows of a file that have a task that is trained."""
        if name not in self.kept_rows:
            rows = range(len(self.files[name]))
            all_trained = name != PAIRS or all(self.weights[task] for task in PAIR_TASKS)
            found = rows if all_trained else [row for row in rows if self.is_trained(name, row)]
            self.kept_rows[name] = np.array(found, dtype=np.int64)
        return self.kept_rows[name]

    def ordered_indices(self) -> np.ndarray:
        """Indices in the order of this epoch. Raises: UserError if nothing is left to evaluate."""
        if self.training:
            return super().ordered_indices()
        found = np.concatenate(
            [start + self.trained_rows(name) for name, start in zip(self.files, self.starts)]
        )
        if not len(found):
            raise UserError(
                f"{next(iter(self.files.values())).file.path}: expects rows of the tasks that"
                " --task-weights trains, found none to evaluate; give another file, or train with"
                " --disable-validation"
            )
        return found

    def collater(self, samples: list[Samples]) -> dict | tuple[dict, dict]:
        """Batches of pairs and of auxiliary rows; of pairs alone where there are no others. An
        empty dict stands for no pairs.
        """
        pairs, extras = (
            self.batch([sample for both in samples for sample in both[part]]) for part in (0, 1)
        )
        return (pairs, extras) if extras else pairs

    def batch(self, samples: list[Sample]) -> dict:
        if not samples:
            return {}
        tasks = torch.tensor([TASKS.index(sample[TASK]) for sample in samples])
        together = collate(samples, self.builder.vocabulary.pad, self.builder.for_device)
        rows = rows_of_images(samples)
        if FACTS in together:
            together[FACTS]["num_images"] = len(rows.unique())
        return {**together, TASK_IDS: tasks, IMAGE_ROWS: rows}
