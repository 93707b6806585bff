"""Files of the language tasks made of our grammar, and the flags of upstream's scripts for a
small network."""

from pathlib import Path

from ofa.synthetic.sentences import TASKS, all_texts, row, rows
from ofa.tasks import spec_of
from ofa.tokens.train_tokenizer import build_vocabulary

METRICS = {"cola": "mcc", "gigaword": "rougeL_f1"}
SMALL = (
    "--encoder-layers=1",
    "--decoder-layers=1",
    "--encoder-embed-dim=64",
    "--decoder-embed-dim=64",
    "--encoder-ffn-embed-dim=64",
    "--decoder-ffn-embed-dim=64",
    "--encoder-attention-heads=4",
    "--decoder-attention-heads=4",
    "--max-source-positions=64",
    "--max-target-positions=64",
    "--token-bucket-size=32",
    "--image-bucket-size=8",
    "--code-image-size=64",
)


def make_vocabulary(folder: Path) -> Path:
    build_vocabulary(all_texts(1, 150), 500, folder)
    return folder


def write_file(path: Path, task: str, split: str, count: int, seed: int = 1) -> Path:
    return write_rows(path, rows(task, seed, split, count))


def write_rows(path: Path, found) -> Path:
    path.write_text("".join("\t".join(one) + "\n" for one in found), encoding="utf-8")
    return path


def unlabeled(task: str, number: int) -> tuple[str, ...]:
    """A test row, whose last column is empty."""
    return (*row(task, 1, "test", number)[:-1], "")


def flags(task: str, data: str, bpe_dir: Path, *more: str) -> list[str]:
    own = ["--prompt-type=src", "--label-smoothing=0.0", "--max-tgt-length=30"]
    if task == "gigaword":
        own = [
            "--noise-ratio=0.2",
            "--eval-rouge",
            "--label-smoothing=0.1",
            "--max-tgt-length=64",
            '--eval-args={"beam":3,"lenpen":0.7,"max_len_b":12,"no_repeat_ngram_size":3}',
        ]
    return [
        data,
        f"--task={task}",
        f"--bpe-dir={bpe_dir}",
        "--arch=ofa_nano",
        f"--selected-cols={spec_of(task).default_cols}",
        *own,
        "--criterion=adjust_label_smoothed_cross_entropy",
        f"--best-checkpoint-metric={METRICS.get(task, 'acc')}",
        "--maximize-best-checkpoint-metric",
        "--encoder-normalize-before",
        "--decoder-normalize-before",
        "--share-decoder-input-output-embed",
        "--share-all-embeddings",
        "--layernorm-embedding",
        "--patch-layernorm-embedding",
        "--code-layernorm-embedding",
        "--optimizer=adam",
        "--clip-norm=1.0",
        "--lr-scheduler=polynomial_decay",
        "--lr=3e-3",
        "--no-epoch-checkpoints",
        "--keep-best-checkpoints=1",
        "--fixed-validation-seed=7",
        "--max-src-length=512",
        "--find-unused-parameters",
        "--add-type-embedding",
        "--scale-attn",
        "--scale-fc",
        "--scale-heads",
        "--disable-entangle",
        "--num-bins=20",
        "--code-dict-size=16",
        "--patch-image-size=32",
        "--num-workers=0",
        "--batch-size=2",
        *SMALL,
        *more,
    ]


__all__ = ["TASKS", "flags", "make_vocabulary", "row", "unlabeled", "write_file", "write_rows"]
