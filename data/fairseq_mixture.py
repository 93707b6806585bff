"""The rows of several tasks as one fairseq dataset, for training and validating one model on all
of them."""

from collections.abc import Mapping

import numpy as np

from ofa.data.fairseq_dataset import OFADataset, RowsDataset
from ofa.data.mixture import Mixture
from ofa.data.rows import Rows
from ofa.data.sample import TASK, Sample, without_task


class JointDataset(RowsDataset):
    """Samples of all tasks; what each contributes to an epoch is the mixture's business.

    Args:
        members: task name -> its rows.
        weights: how often each task's rows are shown in an epoch. None: for evaluation. Every row
            once, task after task, and each batch holds rows of one task, so that it can be scored
            by that task's metric.
    """

    def __init__(
        self,
        members: Mapping[str, OFADataset],
        weights: Mapping[str, float] | None = None,
        shuffle: bool = True,
        shuffle_buffer: int | None = None,
    ):
        super().__init__()
        self.members = dict(members)
        self.training = weights is not None
        shares = [weights[name] for name in self.members] if weights else [1.0] * len(self.members)
        files = [member.file for member in self.members.values()]
        self.mixture = Mixture(files, shares, shuffle and self.training, buffer=shuffle_buffer)

    def __len__(self) -> int:
        return len(self.mixture)

    def row_files(self) -> dict[str, Rows]:
        return {name: member.file for name, member in self.members.items()}

    def __getitem__(self, index: int) -> Sample:
        task, row = self.mixture.locate(index, self.epoch if self.training else 1)
        name = list(self.members)[task]
        return {**self.members[name][row], TASK: name}

    def collater(self, samples: list[Sample]) -> dict:
        """The batch of samples of any tasks."""
        names = {sample[TASK] for sample in samples}
        first = next(iter(self.members.values()))
        batch = first.collater(list(map(without_task, samples)))
        return {**batch, TASK: names.pop()} if len(names) == 1 else batch

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        for member in self.members.values():
            member.set_epoch(epoch)

    def set_seed(self, seed: int) -> None:
        self.mixture.seed = seed
        for member in self.members.values():
            member.set_seed(seed)

    def ordered_indices(self) -> np.ndarray:
        return (
            self.mixture.order(self.epoch)
            if self.training
            else np.arange(len(self), dtype=np.int64)
        )

    def num_tokens(self, index: int) -> int:
        return max(member.num_tokens(0) for member in self.members.values())

    def batch_by_size(
        self, indices, max_tokens=None, max_sentences=None, required_batch_size_multiple=1
    ):
        """As for one task; batches for evaluation end where a task ends."""
        parts = (
            [indices]
            if self.training
            else np.split(indices, np.searchsorted(indices, self.mixture.starts[1:-1]))
        )
        cut = super().batch_by_size
        return [batch for part in parts for batch in cut(part, max_tokens, max_sentences)]
