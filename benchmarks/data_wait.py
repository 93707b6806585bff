"""How long a training step waits for its data: pretraining of ofa_tiny on all eight tasks, with two
workers.

    python benchmarks/data_wait.py [--updates 15] [--workers 2] [--batch 4] [--arch ofa_tiny]
    [--pixels 256]

Images are 640 x 480 JPEG of about 75 KB. Rows come from TSV files, and from WebDataset shards of
the same rows in the order of a shuffle buffer. The share of the time between the first update and
the last that passed in waiting for the next batch is given. Target: below 5 %.
"""

import argparse
import base64
import io
import logging
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from tsv import photo_fields

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
SIZES = {
    "--code-image-size": 128,
    "--code-dict-size": 8192,
    "--num-bins": 1000,
    "--max-image-size": 512,
    "--max-src-length": 80,
    "--max-tgt-length": 30,
    "--sample-patch-num": 87,
    "--image-bucket-size": 42,
    "--token-bucket-size": 256,
}


def write_files(folder: Path, rows: int):
    """The four files with real-sized images, and each as shards of 16 rows: (names of TSV
    files, names of shards)."""
    from pretraining_files import make_files, objects, pair, text, write_rows

    from ofa.data.shard_writer import pack

    photos = photo_fields(32)
    files = make_files(folder)
    square = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(photos[0]))).resize((256, 256)).save(
        square, "JPEG", quality=90
    )
    small = base64.b64encode(square.getvalue()).decode()
    made = {
        "pairs": [
            [cell if column != 1 else photos[row % 32] for column, cell in enumerate(pair(row))]
            for row in range(rows)
        ],
        "texts": [text(row) for row in range(rows)],
        "images": [
            [f"i{row}", small, " ".join(str((row + place) % 8192) for place in range(256))]
            for row in range(rows // 4)
        ],
        "objects": [[f"d{row}", photos[row % 32], objects(row)[2]] for row in range(rows // 4)],
    }
    for name, content in made.items():
        path = write_rows(folder / f"{name}.tsv", content)
        pack(str(path), str(folder / "shards"), name, most_rows=16)
        setattr(files, name, str(path))
    shards = type(files)(
        **{**vars(files), **{name: str(folder / "shards" / f"{name}-*.tar") for name in made}}
    )
    return files, shards


def build(files, arguments, folder: Path):
    """fairseq's trainer on some files."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from pretraining_files import pretraining_flags

    from ofa.trainer.fairseq_trainer import OFATrainer

    words = pretraining_flags(
        files,
        *(f"{flag}={value}" for flag, value in SIZES.items()),
        f"--arch={arguments.arch}",
        f"--patch-image-size={arguments.pixels}",
        f"--batch-size={arguments.batch}",
        f"--num-workers={arguments.workers}",
        "--cpu",
        "--disable-validation",
        f"--save-dir={folder / 'run'}",
        "--max-epoch=1",
    )
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), words)
    )
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    trainer = OFATrainer(cfg, task, model, criterion)
    task.load_dataset("train")
    return trainer


def waited(trainer, updates: int, warm_up: int) -> tuple[float, float]:
    """Seconds of waiting for batches, seconds in all, after the warm-up."""
    from fairseq.logging import metrics

    batches = iter(trainer.get_train_iterator(epoch=1).next_epoch_itr())
    trainer.begin_epoch(1)
    waiting, start = 0.0, 0.0
    for number in range(updates + warm_up):
        if number == warm_up:
            waiting, start = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - asked
        with metrics.aggregate("train"):
            trainer.train_step([batch])
    return waiting, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=15, help="that are measured")
    parser.add_argument("--warm-up", type=int, default=3, help="updates before the clock starts")
    parser.add_argument("--workers", type=int, default=2, help="processes that read data")
    parser.add_argument("--batch", type=int, default=4, help="rows of pairs of an update")
    parser.add_argument("--arch", default="ofa_tiny")
    parser.add_argument("--pixels", type=int, default=256, help="side of the images of pairs")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    import ofa

    ofa.register_fairseq_plugin()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        tsv, shards = write_files(
            folder, arguments.batch * (arguments.updates + arguments.warm_up + 4)
        )
        for source, files in (("TSV", tsv), ("shards", shards)):
            waiting, total = waited(
                build(files, arguments, folder), arguments.updates, arguments.warm_up
            )
            print(
                f"{arguments.arch}, {arguments.batch} x {arguments.pixels} px, {arguments.workers}"
                f" workers, {torch.get_num_threads()} threads, {source}: waits"
                f" {waiting / total:.2%} of the time ({total / arguments.updates:.2f} s an update)",
                flush=True,
            )


if __name__ == "__main__":
    main()
