"""What pretraining and each way of tuning are worth: ``ofa_nano`` finetuned on captions, questions
and boxes, each alone, with the same rows, order and updates; scores of unseen scenes.

World, vocabulary and pretrained checkpoint are those of ``ofa quickstart --pretraining``. Prints
mean and standard deviation over the seeds. A finished run is not run again.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from frame import ROOT, Args, program, seconds, spread

PROMPTS = "--encoder-prompt --decoder-prompt --encoder-prompt-length=16 --decoder-prompt-length=16"
WAYS = {  # with their own learning rates
    "scratch": "",  # random weights
    "pretrained": "",  # all parameters
    "none": "",  # the pretrained model as it is
    "prefix": f"--lr=3e-2 {PROMPTS}",
    "projection": f"--lr=3e-3 {PROMPTS} --encoder-prompt-projection --decoder-prompt-projection",
    "adapter": "--lr=3e-3 --adapter --adapter-dim=16",
    "bitfit": "--lr=1e-2 --bitfit",
    "lora": "--lr=3e-3 --lora-rank=8 --lora-alpha=16 --lora-targets=q,k,v,out,fc1,fc2",
}
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


def words(args: Args, text: str, **more: object) -> list[str]:
    """As a shell splits them, with the demo's folders in it."""
    names = {"world": args.demo / "world", "vocab": args.demo / "vocab", **vars(args), **more}
    return [word.format(**names) for word in shlex.split(text)]


def finetune(args: Args, task: str, way: str, seed: int) -> dict[str, float]:
    """Score, trained parameters, bytes of the checkpoint and seconds of one finetuning."""
    folder = args.folder / f"{task}_{way}_seed{seed}"
    outcome, checkpoint = folder / "outcome.json", folder / "checkpoint_last.pt"
    pretrained = args.demo / "pretrained" / "checkpoint_last.pt"
    if way == "none":
        # options that the pretrained checkpoint does not store for a task
        flags = TASKS[task] + " --val-inference-type=allcand" * (task == "questions")
        score = evaluate(args, task, pretrained, folder, flags)
        return {"trained": 0, "bytes": 0, "seconds": 0.0, "score": score}
    if not outcome.is_file():
        recipe = words(args, f"{TRAIN[task]} {TASKS[task]} {RECIPE} {WAYS[way]}", seed=seed)
        start = "none" if way == "scratch" else str(pretrained)
        spent = seconds(train, recipe, folder, start, args.batch)
        trained = re.search(r"num\. trained: ([\d,]+)", (folder / "train.log").read_text())
        found = {
            "trained": int(trained[1].replace(",", "")) if trained else 0,
            "bytes": checkpoint.stat().st_size,
            "seconds": spent,
            "score": evaluate(args, task, checkpoint, folder / "results"),
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
    command = [sys.executable, "-m", "ofa", "train", *recipe]
    subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=sys.stderr)


def evaluate(args: Args, task: str, checkpoint: Path, results: Path, flags: str = "") -> float:
    """The score of a checkpoint on unseen scenes."""
    text = f"{EVALUATION} {TEST[task]} {flags}"
    command = [sys.executable, "-m", *words(args, text, path=checkpoint, out=results)]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=ROOT)
    return json.loads((results / "test_scores.json").read_text())["scores"][SCORES[task]]


@program(
    demo=ROOT / "runs" / "pretraining_demo",
    folder=ROOT / "runs" / "pretraining_gain",
    ways=("scratch,pretrained", f"some of {', '.join(WAYS)}"),
    seeds=("1,2,3", "of the order of the rows and of what starts at random"),
    updates=150,
    batch=(32, "rows per process"),
    lr="1e-3",
    codes=(1024, "of the demo's tokenizer"),
)
def main(args: Args) -> dict:
    args.demo, args.folder = args.demo.resolve(), args.folder.resolve()
    table: dict[str, dict] = {task: {"measure": score} for task, score in SCORES.items()}
    columns = "".join(f"{task + ' ' + score:>21}" for task, score in SCORES.items())
    print(f"{f'after {args.updates} updates':20}{columns}   trained  checkpoint  training")
    for way in args.ways.split(","):
        runs = {
            task: [finetune(args, task, way, int(seed)) for seed in args.seeds.split(",")]
            for task in TASKS
        }
        for task, outcomes in runs.items():
            table[task][way] = [outcome["score"] for outcome in outcomes]
        scores = "".join(f"{spread(table[task][way]):>21}" for task in TASKS)
        every = [outcome for outcomes in runs.values() for outcome in outcomes]
        trained, size = (max(outcome[key] for outcome in every) for key in ("trained", "bytes"))
        spent = sum(outcome["seconds"] for outcome in every) / len(every)
        print(f"{way:20}{scores} {trained:9,} {size / 1e6:8.2f} MB {spent:7.0f} s", flush=True)
    return {"updates": args.updates, "tasks": table}
