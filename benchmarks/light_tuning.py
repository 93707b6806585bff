"""What parameter-efficient tuning is worth: accuracy, trained parameters and checkpoint size,
beside full finetuning.

    python benchmarks/light_tuning.py --demo runs/pretraining_demo [--updates 150] [--methods
    full,lora] [--folder runs/light_tuning]

Takes world, vocabulary and pretrained checkpoint of ``run_scripts/pretraining/demo.sh``, and tunes
``ofa_nano`` on captions, questions and boxes, each alone, by every method: the same rows, order and
number of updates, a learning rate for each method. Scores are those of unseen scenes; ``none`` is
the pretrained model as it is. A finished run is not run again. fairseq is imported once; every run
is a process of one thread. Prints a table; ``--out FILE`` writes it as JSON too.
"""

import argparse
import json
import multiprocessing
import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from pretraining_gain import TASKS, evaluation, score_of, training  # noqa: E402

PROMPTS = [
    "--encoder-prompt",
    "--decoder-prompt",
    "--encoder-prompt-length=16",
    "--decoder-prompt-length=16",
]
METHODS: dict[str, tuple[str, list[str]] | None] = {  # learning rate, and flags
    "none": None,
    "full": ("1e-3", []),
    "prefix": ("3e-2", PROMPTS),
    "projection": (
        "3e-3",
        [*PROMPTS, "--encoder-prompt-projection", "--decoder-prompt-projection"],
    ),
    "adapter": ("3e-3", ["--adapter", "--adapter-dim=16"]),
    "bitfit": ("1e-2", ["--bitfit"]),
    "lora": ("3e-3", ["--lora-rank=8", "--lora-alpha=16", "--lora-targets=q,k,v,out,fc1,fc2"]),
}
UNTUNED = {  # options that the pretrained checkpoint does not store for a task
    "captions": ["--selected-cols=0,4,2"],
    "questions": [
        "--selected-cols=0,5,2,3,4",
        "--prompt-type=none",
        "--val-inference-type=allcand",
    ],
    "boxes": ["--selected-cols=0,4,2,3"],
}


def run(args: argparse.Namespace, method: str, name: str) -> dict[str, float]:
    """score, trained parameters, bytes of the checkpoint and seconds of the training of one
    method on one task."""
    folder = args.folder / f"{name}_{method}_seed{args.seed}"
    if not (folder / "outcome.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        process = multiprocessing.get_context("fork").Process(
            target=tune_and_score, args=(args, method, name, folder)
        )
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"error: {name} by {method} failed, see {folder / 'train.log'}")
    return json.loads((folder / "outcome.json").read_text())


def tune_and_score(args: argparse.Namespace, method: str, name: str, folder: Path) -> None:
    """What the process of a run does."""
    import torch
    from fairseq_cli.train import cli_main

    from ofa.cli.main import main
    from ofa.trainer.fairseq_parse_command import command_of_script

    torch.set_num_threads(1)
    log = os.open(folder / "train.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    base, outcome = (
        args.demo / "pretrained" / "checkpoint_last.pt",
        {"trained": 0, "bytes": 0, "seconds": 0.0},
    )
    checkpoint, more = (
        base,
        [
            "--task",
            TASKS[name][0],
            *UNTUNED[name],
            f"--ans2label-file={args.demo / 'world' / 'ans2label.json'}",
        ],
    )
    if METHODS[method] is not None:
        lr, flags = METHODS[method]
        os.environ.update(
            SAVE_DIR=str(folder),
            RESTORE=str(base),
            NPROC="1",
            BATCH=str(args.batch),
            NUM_WORKERS="0",
            FRESH="",
        )
        command = [*training(args, name, args.seed, lr), *flags]
        sys.argv = [
            "fairseq-train",
            *command_of_script(ROOT / "run_scripts" / "launch.sh", ["train", *command]),
        ]
        started = time.monotonic()
        cli_main()
        checkpoint, more = folder / "checkpoint_last.pt", []
        trained = re.search(r"num\. trained: ([\d,]+)", (folder / "train.log").read_text())
        outcome = {
            "trained": int(trained[1].replace(",", "")),
            "bytes": checkpoint.stat().st_size,
            "seconds": time.monotonic() - started,
        }
    if main([*evaluation(args, name, checkpoint, folder / "results"), *more]):
        sys.exit(1)
    outcome["score"] = score_of(name, folder / "results")
    (folder / "outcome.json").write_text(json.dumps(outcome))
    for file in folder.glob("checkpoint*.pt"):
        file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "pretraining_demo")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "light_tuning")
    parser.add_argument("--methods", default=",".join(METHODS), help="some of %(default)s")
    parser.add_argument("--tasks", default=",".join(TASKS), help="some of %(default)s")
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--batch", type=int, default=64, help="rows per update")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the order of rows and of what starts at random"
    )
    parser.add_argument("--codes", type=int, default=1024, help="of the demo's tokenizer")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.demo, args.folder = args.demo.resolve(), args.folder.resolve()
    tasks = args.tasks.split(",")
    from fairseq_cli import train  # noqa: F401 - once, for all runs

    import ofa

    ofa.register_fairseq_plugin()
    table = {}
    columns = "".join(f"{name + ' ' + TASKS[name][-1]:>21}" for name in tasks)
    print(
        f"{args.updates} updates of {args.batch} rows {columns}   trained   checkpoint   training"
    )
    for method in args.methods.split(","):
        rows = table[method] = {name: run(args, method, name) for name in tasks}
        scores = "".join(f"{row['score']:21.4f}" for row in rows.values())
        trained, size = (max(row[key] for row in rows.values()) for key in ("trained", "bytes"))
        seconds = sum(row["seconds"] for row in rows.values()) / len(rows)
        print(
            f"{method:25} {scores} {trained:9,} {size / 1e6:9.2f} MB {seconds:8.0f} s", flush=True
        )
    if args.out:
        args.out.write_text(
            json.dumps(
                {"updates": args.updates, "batch": args.batch, "seed": args.seed, "methods": table},
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
