"""What the trainer costs: a training through ``fairseq_cli.train`` against a bare loop on the same
model and batches.

    python benchmarks/trainer_overhead.py [--updates 100] [--batch 32] [--pixels 96] [--threads 1]

Both make the same updates - forward, label-smoothed loss, backward, clipping, Adam - on batches
that were read before; the trainer adds seeds, schedule, meters and log lines. They take turns,
update by update, in one process, and the median ratio of their processor times is given: other
programs on the machine hardly count.
Target: at most 10 % with ofa_nano.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_

WARM_UP = 5
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def build(folder: Path, batch: int, pixels: int):
    """fairseq's trainer for ``ofa_nano`` with the quickstart's sizes, its task, and some
    batches."""
    from caption_files import caption, make_vocabulary, write_tsv
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import ofa
    from ofa.trainer.fairseq_trainer import OFATrainer

    ofa.register_fairseq_plugin()
    rows = write_tsv(folder / "train.tsv", [caption(number) for number in range(4 * batch)])
    words = [
        f"{rows},{rows}",
        f"--bpe-dir={make_vocabulary(folder / 'vocabulary')}",
        "--task=caption",
        "--arch=ofa_nano",
        "--selected-cols=0,4,2",
        "--criterion=adjust_label_smoothed_cross_entropy",
        "--label-smoothing=0.1",
        "--encoder-normalize-before",
        "--decoder-normalize-before",
        "--share-decoder-input-output-embed",
        "--share-all-embeddings",
        "--layernorm-embedding",
        "--patch-layernorm-embedding",
        "--code-layernorm-embedding",
        "--add-type-embedding",
        "--scale-attn",
        "--scale-fc",
        "--scale-heads",
        "--disable-entangle",
        "--dropout=0.1",
        "--optimizer=adam",
        "--lr-scheduler=fixed",
        "--lr=1e-4",
        "--clip-norm=1.0",
        "--code-dict-size=64",
        "--num-bins=100",
        f"--patch-image-size={pixels}",
        f"--batch-size={batch}",
        "--cpu",
        "--max-epoch=1",
    ]
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), words)
    )
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    trainer = OFATrainer(cfg, task, model, criterion)
    batches = list(trainer.get_train_iterator(epoch=1).next_epoch_itr())
    return trainer, batches


class BareLoop:
    """The same update written out in plain PyTorch."""

    def __init__(self, model, criterion):
        self.model, self.criterion = model, criterion
        # the fastest there is
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def update(self, batch) -> None:
        self.model.train()
        loss, tokens, _ = self.criterion(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        (loss / tokens).backward()
        clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def measure(update, batch) -> float:
    """Seconds of processor time of an update."""
    start = time.process_time()
    update(batch)
    return time.process_time() - start


def trainer_update(trainer):
    """One turn of fairseq's loop: the update, and a log line's figures every tenth time."""
    from fairseq.logging import metrics

    def update(batch) -> None:
        with metrics.aggregate("train"), metrics.aggregate("train_inner"):
            trainer.train_step([batch])
        if trainer.get_num_updates() % 10 == 0:
            metrics.get_smoothed_values("train_inner")
            metrics.reset_meters("train_inner")

    return update


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=100, help="of each of the two")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pixels", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        trainer, batches = build(Path(folder), arguments.batch, arguments.pixels)
        bare, trained = (
            BareLoop(trainer.get_model(), trainer.get_criterion()).update,
            trainer_update(trainer),
        )
        pairs = [
            (
                measure(bare, batches[number % len(batches)]),
                measure(trained, batches[number % len(batches)]),
            )
            for number in range(arguments.updates + WARM_UP)
        ][WARM_UP:]
    loop, whole = (statistics.median(spent) * 1000 for spent in zip(*pairs))
    ratio = statistics.median(whole / loop for loop, whole in pairs)
    print(
        f"ofa_nano, {arguments.batch} x {arguments.pixels} px, {arguments.threads} thread(s): bare"
        f" loop {loop:.1f} ms, trainer {whole:.1f} ms an update, overhead {(ratio - 1) * 100:.1f} %"
    )


if __name__ == "__main__":
    main()
