"""Start-up with very many rows and very many shards: how long files take to open the first time and
at every later start, and the memory that a process keeps for the order of an epoch.

A process of a training holds its row order and what the index of the rows needs; forked data
workers share it. Targets: 150 MB of private memory per process for 20 million rows, 2 s for opening
10 000 shards again.
"""

import io
import json
import multiprocessing
import shutil
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from frame import Args, print_figures, program, seconds

BLOCK = 100_000  # rows written at a time
SAMPLES = 5  # of a shard
RANDOM_ROWS = 2000
BUILDER = SimpleNamespace(options=SimpleNamespace(max_src_length=80, max_tgt_length=30))


def memory_mb(field: str) -> float:
    """A field of this process's memory, such as ``Private_Dirty``: what no other process shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def measure_rows(folder: Path, count: int, ranks: int, batch: int) -> dict[str, float]:
    """A TSV of short rows: index, order, and the batches of one process among ``ranks``."""
    from ofa.data.fairseq_dataset import RowsDataset
    from ofa.data.rows import row_order
    from ofa.data.tsv import TsvFile
    from ofa.trainer.fairseq_resume import RowIterator

    path = folder / "rows.tsv"
    block = b"".join(b"%d\tx\ta b\n" % (row % 10) for row in range(BLOCK))
    with open(path, "wb") as file:
        for start in range(0, count, BLOCK):
            file.write(block if count - start >= BLOCK else b"0\tx\ta b\n" * (count - start))
    figures: dict[str, float] = {"index_first_s": seconds(TsvFile, path)}
    figures["index_again_s"] = seconds(TsvFile, path)

    class Rows(RowsDataset):
        def __getitem__(self, index: int) -> int:
            return int(index)

        def collater(self, samples: list[int]) -> list[int]:
            return samples

    rows, dataset, made = TsvFile(path), Rows([BUILDER]), []
    private = memory_mb("Private_Dirty")

    def iterate() -> None:
        batches = dataset.batch_by_size(row_order(rows, 1, 1), max_sentences=batch)
        iterator = RowIterator(dataset, batches, num_shards=ranks, shard_id=ranks - 1)
        passing = iterator.next_epoch_itr()
        next(passing)
        iterator.state_dict()
        made.append((iterator, passing))

    figures["batches_s"] = seconds(iterate)
    figures["batches_private_mb"] = memory_mb("Private_Dirty") - private
    return figures


def write_shards(folder: Path, count: int) -> None:
    """Shards of the same few samples."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in range(SAMPLES):
            cells = json.dumps([str(sample), "a cat", None]).encode()
            for suffix, data in (("json", cells), ("jpg", b"x" * 100)):
                member = tarfile.TarInfo(f"{sample:09d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    for number in range(count):
        (folder / f"rows-{number:06d}.tar").write_bytes(content.getvalue())


def measure_shards(folder: Path, count: int) -> dict[str, float]:
    """Opening a folder of shards, the first time and again, and reading rows of them."""
    from ofa.data.shards import ShardFile

    write_shards(folder, count)
    figures: dict[str, float] = {"shards_first_s": seconds(ShardFile, folder)}
    figures["shards_again_s"] = seconds(ShardFile, folder)
    rows = ShardFile(folder)
    chosen = np.random.default_rng(0).integers(0, len(rows), RANDOM_ROWS).tolist()
    figures["random_row_ms"] = 1000 * seconds(lambda: [rows[row] for row in chosen]) / RANDOM_ROWS
    ordered = range(min(RANDOM_ROWS, len(rows)))
    figures["row_in_order_ms"] = 1000 * seconds(lambda: [rows[row] for row in ordered])
    figures["row_in_order_ms"] /= len(ordered)
    return figures


def in_own_process(measure: Any, *arguments: Any) -> dict[str, float]:
    """Its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


@program(
    rows=(20_000_000, "rows of the TSV"),
    shards=(10_000, "number of shards"),
    ranks=(64, "processes of the training"),
    batch=(8, "rows of a batch"),
    folder=(str, "where to write the files, removed afterwards"),
)
def main(args: Args) -> dict:
    if args.folder:
        Path(args.folder).mkdir(parents=True, exist_ok=True)
    place = tempfile.mkdtemp(prefix="ofa-startup-", dir=args.folder)
    try:
        figures = in_own_process(measure_rows, Path(place), args.rows, args.ranks, args.batch)
        (Path(place) / "shards").mkdir()
        figures |= in_own_process(measure_shards, Path(place) / "shards", args.shards)
    finally:
        shutil.rmtree(place)
    return print_figures(figures, digits=3)
