"""A file of rows as a fairseq dataset: rows by number, shuffled per epoch, the same for any
number of workers."""

import functools
import logging
import os
import signal
from collections.abc import Sequence

import numpy as np
import torch
from fairseq.data import FairseqDataset

from ofa.data.collate import collate
from ofa.data.rows import NamedRows, RowBatches, Rows, row_order
from ofa.data.sample import Sample, SampleBuilder, blank_image, text_ids
from ofa.errors import UserError
from ofa.task.task_spec import Example

logger = logging.getLogger(__name__)


class RowsDataset(FairseqDataset):
    """What datasets of rows have in common: batches of a fixed number of rows, made anew in every
    epoch. Args: builders: what makes their samples. Attributes: row_files: the rows of this epoch,
    by the task's names for its files (``training_files``)."""

    # batches are made anew for every pass: workers see the new epoch, order and shard
    can_reuse_epoch_itr_across_epochs = False

    def __init__(self, builders: Sequence[SampleBuilder]):
        self.epoch, self.builders = 1, builders
        self.row_files: dict[str, Rows] = {}
        # the true length of a row is only known once it is read
        self.most_tokens = 2 + max(
            length
            for options in (builder.options for builder in builders)
            for length in (options.max_src_length, options.max_tgt_length)
        )

    def prepare_for_device(self) -> None:
        """From now on batches have images of uint8, where they can be, and ``facts``; they go to
        ``normalize_images``."""
        for builder in self.builders:
            builder.for_device = True

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def num_tokens(self, index: int) -> int:
        """An upper bound, the same for all rows."""
        return self.most_tokens

    size = num_tokens

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        return np.full(len(indices), self.most_tokens, dtype=np.int64)

    def batch_by_size(
        self, indices, max_tokens=None, max_sentences=None, required_batch_size_multiple=1
    ) -> RowBatches:
        """Batches of exactly ``max_sentences`` rows, the last one shorter. As upstream
        ``required_batch_size_multiple`` is not applied: 8, the default, would make 8 of 12."""
        limits = (max_sentences, max_tokens and max_tokens // self.most_tokens)
        size = min((limit for limit in limits if limit is not None), default=0)
        if size < 1:
            raise UserError(
                f"--batch-size {max_sentences}, --max-tokens {max_tokens}: expects at least one row"
                f" of up to {self.most_tokens} tokens per batch; raise --max-tokens or give"
                " --batch-size"
            )
        return RowBatches(indices, size, self.part_ends(indices))

    def part_ends(self, indices: np.ndarray) -> list[int]:
        """Places in the order where a batch ends even if it is shorter, the end of all last."""
        return [len(indices)]


class OFADataset(RowsDataset):
    """Rows of one file as samples.

    ``dataset[i]`` is row i of the file, in every split; shuffling only changes the order in which
    fairseq asks for rows. Batches are cut from that order before they are dealt out to the ranks,
    so every row is read once per epoch, by one rank.

    Args: file: rows with the selected columns, in the order of the task's ``columns``. shuffle: in
        a new order in every epoch; ``shuffle_buffer``: as ``ofa.data.rows`` takes it.
    """

    def __init__(
        self,
        file: Rows,
        builder: SampleBuilder,
        shuffle: bool = False,
        shuffle_buffer: int | None = None,
    ):
        super().__init__([builder])
        self.row_files = {"train": file}
        self.rows = NamedRows(file, builder.spec)
        self.file, self.builder = file, builder
        self.shuffle, self.shuffle_buffer = shuffle, shuffle_buffer

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> Sample:
        """Raises: UserError naming file and row if the row cannot become a sample."""
        let_parent_decide_when_to_stop(os.getpid())
        return self.builder(self.rows[index], int(index), self.epoch, self.rows.where(index))

    def example(self, index: int) -> Example:
        """What a row asks and expects, without reading its image."""
        row, where = self.rows.texts(index), self.rows.where(index)
        return self.builder.example(row, int(index), where=where, open_image=blank_image)

    def target(self, index: int) -> list[int]:
        """Target tokens of a row, without reading its image."""
        example, builder = self.example(index), self.builder
        tokens = text_ids(example.target, builder.vocabulary, builder.bpe)
        return tokens[: example.max_target_tokens]

    def collater(self, samples: list[Sample]) -> dict:
        """The batch of some samples, see ``ofa.data.collate``."""
        return collate(samples, self.builder.vocabulary.pad, self.builder.for_device)

    def set_seed(self, seed: int) -> None:
        self.builder.seed = seed

    def ordered_indices(self) -> np.ndarray:
        """Row numbers in the order of this epoch."""
        if not self.shuffle:
            return np.arange(len(self), dtype=np.int64)
        return row_order(self.file, self.builder.seed, self.epoch, self.shuffle_buffer)


@functools.lru_cache(maxsize=1)
def let_parent_decide_when_to_stop(process: int) -> None:
    """Data workers outlive Ctrl-C and the first SIGTERM, which often go to all processes of a run:
    the training still needs samples for the update that it saves after. A second SIGTERM is the
    parent's own."""
    if torch.utils.data.get_worker_info() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(
            signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL)
        )
