"""What pretraining is worth: finetuning from a pretrained checkpoint and from random weights, at
equal updates.

    python benchmarks/pretraining_gain.py --demo runs/pretraining_demo [--seeds 1,2,3] [--updates
    150] [--folder runs/pretraining_gain]

Takes world, vocabulary and pretrained checkpoint of ``ofa quickstart --pretraining``, and
finetunes ``ofa_nano`` on captions, questions and boxes, each alone, with the same settings, rows
and order from both. A seed decides the order of the rows and the random weights. Scores are those
of unseen scenes. A finished run is not run again. Prints a table: mean and standard deviation over
the seeds; ``--out FILE`` writes it as JSON too.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from frame import ROOT, arguments, seconds, spread, write_figures

SCORES = {"captions": "CIDEr", "questions": "vqa_score", "boxes": "score"}
TASKS = {
    "captions": "--task=caption --selected-cols=0,4,2",
    "questions": "--task=vqa_gen --selected-cols=0,5,2,3,4 --prompt-type=none"
    " --ans2label-file={world}/ans2label.json",
    "boxes": "--task=refcoco --selected-cols=0,4,2,3 --max-image-size=64",
}
TRAIN = {
    "captions": "{world}/caption_stage1_train.tsv",
    "questions": "{world}/vqa_train.tsv",
    "boxes": "{world}/refcoco_train.tsv",
}
TEST = {
    "captions": "{world}/caption_test.tsv --beam 3 --max-len-b 30 --scores CIDEr",
    "questions": "{world}/vqa_test.tsv",
    "boxes": "{world}/refcoco_test.tsv --beam 3",
}
RECIPE = (
    "--bpe-dir={vocab} --arch=ofa_nano --cpu --criterion=adjust_label_smoothed_cross_entropy"
    " --label-smoothing=0.0 --dropout=0.0 --adam-betas=(0.9,0.98) --warmup-ratio=0.1"
    " --code-dict-size={codes} --num-bins=32 --image-bucket-size=8 --token-bucket-size=32"
    " --patch-image-size=64 --code-image-size=32 --max-src-length=40 --max-tgt-length=20"
    " --max-update={updates} --total-num-update={updates} --lr={lr} --seed={seed}"
    " --no-epoch-checkpoints --disable-validation"
)
EVALUATION = (
    "ofa evaluate --bpe-dir {vocab} --cpu --batch-size 50 --path {path} --results-path {out}"
)
FLAGS = {
    "demo": ROOT / "runs" / "pretraining_demo",
    "updates": 150,
    "batch": (32, "rows per process"),
    "lr": "1e-3",
    "codes": (1024, "of the demo's tokenizer"),
}


def words(args: Namespace, text: str, **more: object) -> list[str]:
    """As a shell splits them, with the demo's folders in it."""
    names = {"world": args.demo / "world", "vocab": args.demo / "vocab", **vars(args), **more}
    return [word.format(**names) for word in shlex.split(text)]


def pretrained(args: Namespace) -> str:
    return str(args.demo / "pretrained" / "checkpoint_last.pt")


def finetune(
    args: Namespace, name: str, start: str, seed: int, method: str = "", flags: str = ""
) -> dict[str, float]:
    """Score, trained parameters, bytes of the checkpoint and seconds of one finetuning.

    Args: name: of a task. start: a checkpoint, or ``none``. method: of the tuning, with its flags.
    """
    method = method or ("scratch" if start == "none" else "pretrained")
    folder = args.folder / f"{name}_{method}_seed{seed}"
    outcome, checkpoint = folder / "outcome.json", folder / "checkpoint_last.pt"
    if not outcome.is_file():
        recipe = words(args, f"{TRAIN[name]} {TASKS[name]} {RECIPE} {flags}", seed=seed)
        spent = seconds(train, recipe, folder, start, args.batch)
        trained = re.search(r"num\. trained: ([\d,]+)", (folder / "train.log").read_text())
        found = {
            "trained": int(trained[1].replace(",", "")) if trained else 0,
            "bytes": checkpoint.stat().st_size,
            "seconds": spent,
            "score": evaluate(args, name, str(checkpoint), folder / "results"),
        }
        outcome.write_text(json.dumps(found))
        for file in folder.glob("checkpoint*.pt"):  # some 20 MB each
            file.unlink()
    return json.loads(outcome.read_text())


def train(recipe: list[str], folder: Path, start: str, batch: int) -> None:
    environment = {
        "SAVE_DIR": str(folder),
        "RESTORE": start,
        "OMP_NUM_THREADS": "1",
        "NPROC": "1" if (os.cpu_count() or 1) < 2 else "2",
        "BATCH": str(batch),
        "EFFECTIVE_BATCH": str(2 * batch),
        "NUM_WORKERS": "0",
    }
    command = ["bash", str(ROOT / "run_scripts" / "launch.sh"), "train", *recipe]
    subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=sys.stderr)


def evaluate(args: Namespace, name: str, checkpoint: str, results: Path, flags: str = "") -> float:
    """The score of a checkpoint on unseen scenes."""
    text = f"{EVALUATION} {TEST[name]} {flags}"
    command = [sys.executable, "-m", *words(args, text, path=checkpoint, out=results)]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=ROOT)
    return json.loads((results / "test_scores.json").read_text())["scores"][SCORES[name]]


def main() -> None:
    folder = ROOT / "runs" / "pretraining_gain"
    args = arguments(__doc__, **FLAGS, folder=folder, seeds="1,2,3")
    args.demo, args.folder = args.demo.resolve(), args.folder.resolve()
    seeds, table = list(map(int, args.seeds.split(","))), {}
    print(
        f"after {args.updates} updates    from scratch         from the pretrained model   higher"
    )
    for name, score in SCORES.items():
        scratch, better = (
            [finetune(args, name, start, seed)["score"] for seed in seeds]
            for start in ("none", pretrained(args))
        )
        higher = f"{sum(b > a for a, b in zip(scratch, better))} of {len(seeds)} seeds"
        table[name] = {"measure": score, "scratch": scratch, "pretrained": better}
        print(f"{name:10} {score:9}  {spread(scratch):20} {spread(better):27} {higher}", flush=True)
    write_figures(args, {"updates": args.updates, "tasks": table})


if __name__ == "__main__":
    main()
