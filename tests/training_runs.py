"""Real trainings of seconds for tests: ``fairseq_cli.train`` in processes of its own, which may be
killed on the way."""

import hashlib
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import forks
from caption_files import caption, make_vocabulary, write_tsv

from ofa.trainer.processes import free_port

ROOT = Path(__file__).resolve().parents[1]
TESTS = Path(__file__).resolve().parent
SMALL = (
    "--encoder-layers=1",
    "--decoder-layers=1",
    "--encoder-embed-dim=32",
    "--decoder-embed-dim=32",
    "--encoder-ffn-embed-dim=32",
    "--decoder-ffn-embed-dim=32",
    "--encoder-attention-heads=2",
    "--decoder-attention-heads=2",
    "--max-source-positions=64",
    "--max-target-positions=64",
)


def make_files(folder: Path, rows: int = 21) -> SimpleNamespace:
    """Training and validation file and a vocabulary."""
    return SimpleNamespace(
        folder=folder,
        vocabulary=make_vocabulary(folder / "vocabulary"),
        train=write_tsv(folder / "train.tsv", [caption(number) for number in range(rows)]),
        valid=write_tsv(
            folder / "valid.tsv", [caption(number) for number in range(7)], joined=True
        ),
    )


def flags(files: SimpleNamespace, save_dir: Path, *more: str) -> list[str]:
    """A recipe with dropout, stochastic depth, clipping and a schedule; a smaller network than
    ``ofa_nano``."""
    return [
        f"{files.train},{files.valid}",
        f"--user-dir={ROOT / 'ofa'}",
        f"--bpe-dir={files.vocabulary}",
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
        "--encoder-drop-path-rate=0.1",
        "--decoder-drop-path-rate=0.1",
        "--dropout=0.1",
        "--optimizer=adam",
        "--adam-betas=(0.9,0.999)",
        "--clip-norm=1.0",
        "--lr-scheduler=polynomial_decay",
        "--lr=1e-3",
        "--warmup-ratio=0.1",
        "--log-format=simple",
        "--log-interval=5",
        "--fixed-validation-seed=7",
        "--no-epoch-checkpoints",
        "--max-src-length=20",
        "--max-tgt-length=20",
        "--find-unused-parameters",
        "--add-type-embedding",
        "--scale-attn",
        "--scale-fc",
        "--scale-heads",
        "--disable-entangle",
        "--num-bins=20",
        "--code-dict-size=16",
        "--code-image-size=64",
        "--image-bucket-size=8",
        "--token-bucket-size=32",
        "--patch-image-size=32",
        "--cpu",
        "--num-workers=0",
        "--batch-size=4",
        f"--save-dir={save_dir}",
        *SMALL,
        *more,
    ]


def train(
    arguments: list[str],
    stop_in: int | None = None,
    number: int = signal.SIGKILL,
    record: Path | None = None,
    largest_file: int | None = None,
    prepare: Callable[[], None] | None = None,
    ranks: int = 1,
):
    """One training from start to end.

    Args:
        stop_in: the process sends itself the signal ``number`` in the middle of this update (the
            first is 1).
        record: file that gets a line for every update: see ``Recorder``.
        largest_file: bytes; writing more to one file fails, as on a full disk.
        prepare: called in the process before it trains; has to be picklable.
        ranks: processes that train together, each with the settings that torchrun would give it.
    Returns: namespace with code (exit status, negative: killed by that signal; of several ranks the
    first that is not 0) and log (what the run printed).
    """
    save_dir = next(
        Path(word.split("=", 1)[1]) for word in arguments if word.startswith("--save-dir=")
    )
    how = (arguments, stop_in, number, record and str(record), largest_file, prepare)
    return fork(run, how, save_dir.parent / f"{save_dir.name}.log", ranks)


def fork(work: Callable, arguments: tuple, log: Path, ranks: int = 1) -> SimpleNamespace:
    """``work(*arguments)`` in a process of its own, or in several. Args: log: file to which they
    print. Returns: as ``train``."""
    before = log.stat().st_size if log.exists() else 0
    port = free_port() if ranks > 1 else 0
    with open(log, "ab") as output:
        processes = [
            forks.start(work, arguments, output, **settings_of_rank(rank, ranks, port))
            for rank in range(ranks)
        ]
    codes = [process.wait() for process in processes]
    return SimpleNamespace(
        code=next(filter(None, codes), 0), log=log.read_bytes()[before:].decode()
    )


def settings_of_rank(rank: int, ranks: int, port: int) -> dict[str, str]:
    """The environment of one of several processes on this machine; a process alone needs none."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, rank, ranks, "127.0.0.1", port)
    return dict(zip(names, map(str, values))) if ranks > 1 else {}


def run(
    arguments: list[str],
    stop_in: int | None,
    number: int,
    record: str | None,
    largest_file: int | None,
    prepare: Callable[[], None] | None,
) -> None:
    """A training in a process of its own."""
    from fairseq_cli.train import cli_main

    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    if prepare is not None:
        prepare()
    Recorder(stop_in, number, record).install()
    sys.argv = ["fairseq-train", *arguments]
    cli_main()


class Recorder:
    """Writes the number of every update, what its batches were and their exact losses."""

    def __init__(self, stop_in: int | None, number: int, path: str | None):
        self.stop_in, self.number, self.path = stop_in, number, path

    def install(self) -> None:
        from ofa.tasks.fairseq_task import OFATask

        stock = OFATask.train_step

        def train_step(task, sample, model, criterion, optimizer, update_num, *args, **kwargs):
            result = stock(task, sample, model, criterion, optimizer, update_num, *args, **kwargs)
            if self.path:
                parts = [
                    part for part in (sample if isinstance(sample, tuple) else (sample,)) if part
                ]
                content = [
                    part["net_input"]["patch_images"].float().cpu().numpy().tobytes()
                    + part["target"].cpu().numpy().tobytes()
                    for part in parts
                ]
                digest, names = (
                    hashlib.sha256(b"".join(content)),
                    [str(name) for part in parts for name in part["id"]],
                )
                line = [
                    [os.getpid(), update_num + 1],
                    names,
                    digest.hexdigest()[:16],
                    float(result[0]).hex(),
                ]
                with open(self.path, "a") as file:
                    file.write(json.dumps(line) + "\n")
            if update_num + 1 == self.stop_in:
                # as a terminal or a batch system does: data workers get it as well
                os.killpg(0, self.number)
            return result

        OFATask.train_step = train_step


def curve(record: Path) -> dict[int, list]:
    """Update -> its batches. An update that was made again after a kill has to be the same; it
    is kept once."""
    updates: dict[int, list] = {}
    before = None
    for line in record.read_text().splitlines():
        made, *batch = json.loads(line)  # made: the process, and the number of the update
        if made != before:
            updates[made[1]], before = [], made
        updates[made[1]].append(batch)
    return updates


def log_lines(log: str, tag: str = "train_inner") -> list[str]:
    """Figures that a run logged under a tag, without those that tell of time and memory."""
    lines = [line.split(f"| {tag} | ")[1] for line in log.splitlines() if f"| {tag} | " in line]
    return [
        re.sub(r"(,| \|) (wps|ups|train_wall|wall|memory)[ =][^ ,]*", "", line) for line in lines
    ]
