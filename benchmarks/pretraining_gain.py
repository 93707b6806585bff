"""What pretraining is worth: finetuning from a pretrained checkpoint and from random weights, at
equal updates.

    python benchmarks/pretraining_gain.py --demo runs/pretraining_demo [--seeds 1,2,3] [--updates
    150] [--folder runs/pretraining_gain]

Takes world, vocabulary and pretrained checkpoint of ``run_scripts/pretraining/demo.sh``, and
finetunes ``ofa_nano`` on captions, questions and boxes, each alone, with the same settings, rows
and order from both. A seed decides the order of the rows and the random weights. Scores are those
of unseen scenes. A finished run is not run again. Prints a table: mean and standard deviation over
the seeds; ``--out FILE`` writes it as JSON too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

SEARCH = ["--beam", "3", "--max-len-b", "30"]
# task -> training and test file, selected columns, further flags of the training, of the
# evaluation, and the score that counts
TASKS = {
    "captions": (
        "caption",
        "caption_stage1_train.tsv",
        "caption_test.tsv",
        "0,4,2",
        [],
        [*SEARCH, "--scores", "CIDEr"],
        "CIDEr",
    ),
    "questions": (
        "vqa_gen",
        "vqa_train.tsv",
        "vqa_test.tsv",
        "0,5,2,3,4",
        ["--ans2label-file={world}/ans2label.json", "--prompt-type=none"],
        [],
        "vqa_score",
    ),
    "boxes": (
        "refcoco",
        "refcoco_train.tsv",
        "refcoco_test.tsv",
        "0,4,2,3",
        ["--max-image-size=64"],
        ["--beam", "3"],
        "score",
    ),
}


def training(args: argparse.Namespace, name: str, seed: int, lr: str) -> list[str]:
    """What ``launch.sh train`` is told for finetuning on a task."""
    task, train, _, columns, flags, _, _ = TASKS[name]
    return [
        str(args.demo / "world" / train),
        f"--task={task}",
        "--disable-validation",
        f"--selected-cols={columns}",
        *(flag.format(world=args.demo / "world") for flag in flags),
        "--arch=ofa_nano",
        f"--bpe-dir={args.demo / 'vocab'}",
        "--cpu",
        "--criterion=adjust_label_smoothed_cross_entropy",
        "--label-smoothing=0.0",
        "--dropout=0.0",
        "--adam-betas=(0.9,0.98)",
        f"--lr={lr}",
        "--warmup-ratio=0.1",
        f"--max-update={args.updates}",
        f"--total-num-update={args.updates}",
        f"--code-dict-size={args.codes}",
        "--num-bins=32",
        "--image-bucket-size=8",
        "--token-bucket-size=32",
        "--patch-image-size=64",
        "--code-image-size=32",
        "--max-src-length=40",
        "--max-tgt-length=20",
        "--no-epoch-checkpoints",
        f"--seed={seed}",
    ]


def evaluation(args: argparse.Namespace, name: str, checkpoint: Path, results: Path) -> list[str]:
    """What ``ofa`` is told for scoring a checkpoint on unseen scenes."""
    _, _, test, _, _, asked, _ = TASKS[name]
    return [
        "evaluate",
        str(args.demo / "world" / test),
        "--path",
        str(checkpoint),
        "--bpe-dir",
        str(args.demo / "vocab"),
        "--cpu",
        "--batch-size",
        "50",
        "--results-path",
        str(results),
        *asked,
    ]


def score_of(name: str, results: Path) -> float:
    return json.loads((results / "test_scores.json").read_text())["scores"][TASKS[name][-1]]


def finetune(args: argparse.Namespace, name: str, start: str, seed: int) -> float:
    """The score of one finetuning. Args: start: a checkpoint, or ``none``."""
    folder = args.folder / f"{name}_{'scratch' if start == 'none' else 'pretrained'}_seed{seed}"
    results = folder / "results"
    if not (results / "test_scores.json").is_file():
        processes = 1 if (os.cpu_count() or 1) < 2 else 2
        environment = {
            **os.environ,
            "SAVE_DIR": str(folder),
            "RESTORE": start,
            "OMP_NUM_THREADS": "1",
            "NPROC": str(processes),
            "BATCH": str(args.batch),
            "EFFECTIVE_BATCH": str(2 * args.batch),
            "NUM_WORKERS": "0",
        }
        command = [
            "bash",
            str(ROOT / "run_scripts" / "launch.sh"),
            "train",
            *training(args, name, seed, args.lr),
        ]
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
        asked = evaluation(args, name, folder / "checkpoint_last.pt", results)
        subprocess.run(
            [sys.executable, "-m", "ofa", *asked], check=True, stdout=sys.stderr, cwd=ROOT
        )
        for file in folder.glob("checkpoint*.pt"):  # some 20 MB each
            file.unlink()
    return score_of(name, results)


def spread(values: list[float]) -> str:
    return (
        f"{statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}"
        if len(values) > 1
        else f"{values[0]:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "pretraining_demo")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "pretraining_gain")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--batch", type=int, default=32, help="rows per process")
    parser.add_argument("--lr", default="1e-3")
    parser.add_argument("--codes", type=int, default=1024, help="of the demo's tokenizer")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.demo, args.folder = args.demo.resolve(), args.folder.resolve()
    table = {}
    print(
        f"after {args.updates} updates    from scratch         from the pretrained model  "
        " higher in"
    )
    for name in TASKS:
        seeds = list(map(int, args.seeds.split(",")))
        scratch = [finetune(args, name, "none", seed) for seed in seeds]
        pretrained = [
            finetune(args, name, str(args.demo / "pretrained" / "checkpoint_last.pt"), seed)
            for seed in seeds
        ]
        higher = sum(b > a for a, b in zip(scratch, pretrained))
        table[name] = {"measure": TASKS[name][-1], "scratch": scratch, "pretrained": pretrained}
        print(
            f"{name:10} {TASKS[name][-1]:9}  {spread(scratch):20} {spread(pretrained):27} {higher}"
            f" of {len(seeds)} seeds",
            flush=True,
        )
    if args.out:
        args.out.write_text(json.dumps({"updates": args.updates, "tasks": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
