"""The files of a pretraining as one fairseq dataset: pairs of image and text, and groups of
auxiliary rows among them."""

import math
import os
from collections.abc import Mapping

import numpy as np
import torch

from ofa.data.bad_rows import BadRows
from ofa.data.collate import IMAGE_ROWS, collate, rows_of_images
from ofa.data.fairseq_dataset import RowsDataset, let_parent_decide_when_to_stop
from ofa.data.permutation import shuffled
from ofa.data.pretraining import Draws, PretrainingBuilder
from ofa.data.rows import Rows
from ofa.data.sample import TASK, Sample, without_task
from ofa.data.shard_order import cached_order, row_order, uses_shuffle_buffer
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
TRIES = 10_000  # rows that are looked at for one of a task that is trained
BROKEN_TRIES = 100  # rows in turn that may be broken
MOST_GROUPS = 12  # of a row: a batch has to fit into memory
Samples = tuple[list[Sample], list[Sample]]  # of pairs, of auxiliary rows


class KindRows:
    """Rows of one file of a kind. Raises: UserError if the columns do not fit."""

    def __init__(self, file: Rows, kind: RowKind, flag: str):
        if len(file.selected_cols) != len(kind.columns):
            raise UserError(
                f"{file.path}: {flag}: task 'unify_task' expects {len(kind.columns)} columns"
                f" ({', '.join(kind.column_names)}), found {len(file.selected_cols)}; the usual"
                f" choice is {flag}={kind.default_cols}"
            )
        self.file, self.kind = file, kind

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> dict[str, str]:
        return dict(zip(self.kind.column_names, self.file[int(index)], strict=True))

    def tasks(self, index: int) -> tuple[str, ...]:
        """Tasks that a row has samples for, without reading its image. Raises: UserError if it
        does not tell."""
        columns = {
            name: column
            for name, column in zip(self.kind.column_names, self.file.selected_cols)
            if name != "image"
        }
        row = dict(zip(columns, self.file.texts(int(index), list(columns.values()))))
        return self.kind.tasks(row, self.file.where(int(index)))


class PretrainingDataset(RowsDataset):
    """Training: ``dataset[i]`` is row i of the pairs; every eighth row in the order of the epoch
    brings an auxiliary batch.

    Auxiliary rows come in turn, in a new order each time their file has been gone through, and
    continue in the next epoch where they stopped. Without pairs an index is the number of a group.
    Evaluation: rows of the tasks that are trained, file after file, each once.

    Args:
        pairs: rows with image and text. extras: task -> rows of its file.
        weights: how often each task is trained; 0 is not at all.
        shuffle_buffer: as ``ofa.data.shard_order.row_order`` takes it.
    """

    def __init__(
        self,
        pairs: KindRows | None,
        extras: Mapping[str, KindRows],
        builder: PretrainingBuilder,
        weights: Mapping[str, float],
        shuffle: bool,
        bad_rows: BadRows,
        shuffle_buffer: int | None = None,
    ):
        super().__init__()
        self.shuffle_buffer = shuffle_buffer
        self.pairs, self.extras, self.builder, self.weights = (
            pairs,
            dict(extras),
            builder,
            dict(weights),
        )
        self.training = builder.split == "train"
        self.shuffle, self.bad_rows = shuffle and self.training, bad_rows
        self.files = ([pairs] if pairs else []) + list(self.extras.values())
        # samples per group
        self.rates = {task: GROUP[task] * weights[task] for task in self.extras}
        if self.training:
            self.length = (
                len(pairs)
                if pairs
                else max(
                    math.ceil(len(rows) / self.rates[task]) for task, rows in self.extras.items()
                )
            )
        else:
            self.ends = np.cumsum([len(file) for file in self.files])
            self.length = int(self.ends[-1])
        self.kept_positions: tuple = (None, None)
        self.kept_rows: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.length

    def row_files(self) -> dict[str, Rows]:
        pairs = {} if self.pairs is None else {"pairs": self.pairs}
        return {name: rows.file for name, rows in {**pairs, **self.extras}.items()}

    def __getitem__(self, index: int) -> Samples:
        """Raises: UserError naming file and row if a row is broken and may not be skipped."""
        let_parent_decide_when_to_stop(os.getpid())
        if not self.training:
            return self.evaluated(int(index))
        if self.pairs is None:
            return [], self.group((self.epoch - 1) * self.length + int(index))
        return self.pair(int(index))

    def pair(self, index: int) -> Samples:
        """A row of pairs, or of the rows in place of it the first of a task that is trained."""
        draws, position = self.builder.draws(self.epoch, index, "pair"), self.position(index)
        extras = (
            self.numbered_group(position)
            if position % PAIRS_PER_GROUP == PAIRS_PER_GROUP - 1
            else []
        )
        row, left_out, groups = index, 0, 0
        while left_out < TRIES:
            found = self.samples(0, row, draws)
            if found:
                return found, extras
            left_out += not self.is_trained(0, row)
            row = draws.rng.randrange(self.length)
            if (
                draws.rng.random() < 1 / PAIRS_PER_GROUP and groups < MOST_GROUPS
            ):  # as for every row that is read
                extras += self.group(draws.rng.getrandbits(40))
                groups += 1
        raise UserError(
            f"{self.files[0].file.path}: expects rows of the tasks that --task-weights trains,"
            f" found none among {TRIES}; leave out tasks that the file has no rows of, or give a"
            " file without the others"
        )

    def evaluated(self, index: int) -> Samples:
        number = int(np.searchsorted(self.ends, index, side="right"))
        row = index - (int(self.ends[number - 1]) if number else 0)
        found = self.samples(number, row, self.builder.draws(1, index, "evaluation"))
        return (found, []) if self.files[number] is self.pairs else ([], found)

    def samples(self, number: int, row: int, draws: Draws) -> list[Sample]:
        """Samples of a row, or of another one where it is broken and may be skipped. Args:
        number: of the file."""
        rows = self.files[number]
        for _ in range(BROKEN_TRIES):
            try:
                return self.samples_of(rows, row, draws)
            except UserError as error:
                self.bad_rows.pass_over(rows.file.where(row), error)
                last = error
            others = range(len(rows)) if self.training else self.trained_rows(number)
            row = int(draws.rng.choice(others)) if len(others) else row
        raise UserError(
            f"{last}; {BROKEN_TRIES} rows in turn were broken, few can be whole: fix the file (ofa"
            " doctor names every row)"
        )

    def samples_of(self, rows: KindRows, row: int, draws: Draws) -> list[Sample]:
        content, where = rows[row], rows.file.where(row)
        times = [
            self.times(task, rows is self.pairs, draws) for task in rows.kind.tasks(content, where)
        ]
        found = []
        for repeat in range(max(times)):
            made = self.builder(rows.kind.read, content, draws, where, row)
            found += [sample for sample, count in zip(made, times) if repeat < count]
        return found

    def times(self, task: str, pair: bool, draws: Draws) -> int:
        if self.training and pair:
            return whole_times(self.weights[task], draws.rng)
        return int(self.weights[task] > 0)

    def is_trained(self, number: int, row: int) -> bool:
        """Whether a row of a file has a task that is trained; a row that does not tell will say
        so when it is read."""
        try:
            return any(self.weights[task] for task in self.files[number].tasks(row))
        except UserError:
            return True

    def trained_rows(self, number: int) -> np.ndarray:
        """The rows of a file that have a task that is trained."""
        if number not in self.kept_rows:
            rows = self.files[number]
            all_trained = rows is not self.pairs or all(self.weights[task] for task in PAIR_TASKS)
            found = (
                range(len(rows))
                if all_trained
                else [row for row in range(len(rows)) if self.is_trained(number, row)]
            )
            self.kept_rows[number] = np.array(found, dtype=np.int64)
        return self.kept_rows[number]

    def numbered_group(self, position: int) -> list[Sample]:
        """The group that belongs to a place in the order of the epoch."""
        return self.group(
            (self.epoch - 1) * (self.length // PAIRS_PER_GROUP) + position // PAIRS_PER_GROUP
        )

    def group(self, number: int) -> list[Sample]:
        """Extra samples: two texts, an image without its middle, an image with objects, as
        often as their weights say."""
        found = []
        for task, rows in self.extras.items():
            rate = self.rates[task]
            for count in range(math.floor(number * rate), math.floor((number + 1) * rate)):
                time, place = divmod(count, len(rows))
                found += self.samples(
                    self.files.index(rows),
                    self.row_at(task, time, place),
                    self.builder.draws(0, count, task),
                )
        return found

    def row_at(self, task: str, time: int, place: int) -> int:
        """The row of an extra task that comes at a place when its file is gone through for the
        given time."""
        rows = self.extras[task]
        if not self.shuffle:
            return place
        if uses_shuffle_buffer(rows.file, self.shuffle_buffer):
            return int(
                cached_order(
                    rows.file, (self.builder.seed, TASKS.index(task)), time, self.shuffle_buffer
                )[place]
            )
        return shuffled(place, len(rows), f"{self.builder.seed}-{task}-{time}")

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
        plain = list(map(without_task, samples))
        tasks = torch.tensor([TASKS.index(sample[TASK]) for sample in samples])
        together = collate(plain, self.builder.encoder.vocabulary.pad)
        return {**together, TASK_IDS: tasks, IMAGE_ROWS: rows_of_images(plain)}

    # --- order
    # ----------------------------------------------------------------------------------------------

    def set_seed(self, seed: int) -> None:
        self.builder.seed = seed

    def ordered_indices(self) -> np.ndarray:
        """Indices in the order of this epoch. Raises: UserError if nothing is left to evaluate."""
        if not self.training:
            return self.evaluated_indices()
        if not self.shuffle:
            return np.arange(len(self), dtype=np.int64)
        self.positions()  # here, so that data workers find them made
        return self.order()

    def evaluated_indices(self) -> np.ndarray:
        starts = np.append(0, self.ends[:-1])
        found = np.concatenate(
            [start + self.trained_rows(number) for number, start in enumerate(starts)]
        )
        if not len(found):
            raise UserError(
                f"{self.files[0].file.path}: expects rows of the tasks that --task-weights trains,"
                " found none to evaluate; give another file, or train with --disable-validation"
            )
        return found

    def order(self) -> np.ndarray:
        if self.pairs is None and any(
            uses_shuffle_buffer(rows.file, self.shuffle_buffer) for rows in self.extras.values()
        ):
            return np.arange(len(self))  # groups; their rows are shuffled
        rows = range(len(self)) if self.pairs is None else self.pairs.file
        return row_order(
            rows,
            (self.builder.seed, self.builder.options.pretrain_seed),
            self.epoch,
            self.shuffle_buffer,
        )

    def positions(self) -> np.ndarray:
        """Place of every index in the order of this epoch."""
        key = self.builder.seed, self.epoch
        if self.kept_positions[0] != key:
            places = np.empty(len(self), dtype=np.uint32 if len(self) < 2**32 else np.int64)
            places[self.order()] = np.arange(len(self))
            self.kept_positions = key, places
        return self.kept_positions[1]

    def position(self, index: int) -> int:
        return int(self.positions()[index]) if self.shuffle else index

    def num_tokens(self, index: int) -> int:
        """An upper bound, as for other tasks."""
        options = self.builder.options
        return max(options.max_src_length, options.max_tgt_length) + 2

    def batch_by_size(
        self, indices, max_tokens=None, max_sentences=None, required_batch_size_multiple=1
    ):
        """As for other tasks; batches for evaluation end where a file ends."""
        parts = (
            [indices]
            if self.training
            else np.split(indices, np.searchsorted(indices, self.ends[:-1]))
        )
        cut = super().batch_by_size
        return [
            batch for part in parts if len(part) for batch in cut(part, max_tokens, max_sentences)
        ]
