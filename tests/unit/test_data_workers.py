"""Data workers end with the program, although they outlive the first request to end."""

import subprocess
import sys

PROGRAM = """
import os, sys
from torch.utils.data import DataLoader, Dataset
from ofa.data.fairseq_dataset import let_parent_decide_when_to_stop
from ofa.trainer.fairseq_distributed import end_data_workers

class Rows(Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, index):
        let_parent_decide_when_to_stop(os.getpid())
        return index

batches = iter(DataLoader(Rows(), num_workers=1))
print(next(batches))
sys.kept = batches  # nothing else ends its worker
end_data_workers()
"""


def test_a_program_that_stops_in_mid_epoch_does_not_wait_for_its_data_workers():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "tensor([0])\n"
