"""What parameter-efficient tuning is worth: accuracy, trained parameters and checkpoint size,
beside full finetuning.

    python benchmarks/light_tuning.py --demo runs/pretraining_demo [--updates 150] [--methods
    full,lora] [--folder runs/light_tuning]

Takes world, vocabulary and pretrained checkpoint of ``ofa quickstart --pretraining``, and tunes
``ofa_nano`` on captions, questions and boxes, each alone, by every method: the same rows, order and
number of updates, a learning rate for each method. Scores are those of unseen scenes; ``none`` is
the pretrained model as it is. A finished run is not run again. Prints a table; ``--out FILE``
writes it as JSON too.
"""

from argparse import Namespace

from frame import ROOT, arguments, write_figures
from pretraining_gain import FLAGS, SCORES, TASKS, evaluate, finetune, pretrained

PROMPTS = "--encoder-prompt --decoder-prompt --encoder-prompt-length=16 --decoder-prompt-length=16"
METHODS = {  # with their learning rates
    "none": "",
    "full": "--lr=1e-3",
    "prefix": f"--lr=3e-2 {PROMPTS}",
    "projection": f"--lr=3e-3 {PROMPTS} --encoder-prompt-projection --decoder-prompt-projection",
    "adapter": "--lr=3e-3 --adapter --adapter-dim=16",
    "bitfit": "--lr=1e-2 --bitfit",
    "lora": "--lr=3e-3 --lora-rank=8 --lora-alpha=16 --lora-targets=q,k,v,out,fc1,fc2",
}
# options that the pretrained checkpoint does not store for a task
UNTUNED = {**TASKS, "questions": f"{TASKS['questions']} --val-inference-type=allcand"}


def run(args: Namespace, method: str, name: str) -> dict[str, float]:
    """What one method gives on one task."""
    if method != "none":
        return finetune(args, name, pretrained(args), args.seed, method, METHODS[method])
    score = evaluate(args, name, pretrained(args), args.folder / f"{name}_none", UNTUNED[name])
    return {"trained": 0, "bytes": 0, "seconds": 0.0, "score": score}


def main() -> None:
    args = arguments(
        __doc__,
        **FLAGS | {"batch": (64, "rows per update")},
        folder=ROOT / "runs" / "light_tuning",
        methods=",".join(METHODS),
        tasks=",".join(TASKS),
        seed=(1, "of the order of rows and of what starts at random"),
    )
    args.demo, args.folder = args.demo.resolve(), args.folder.resolve()
    rows, args.batch = args.batch, args.batch // 2  # of two processes
    tasks, table = args.tasks.split(","), {}
    columns = "".join(f"{name + ' ' + SCORES[name]:>21}" for name in tasks)
    length = f"{args.updates} updates of {rows} rows"
    print(f"{length} {columns}   trained   checkpoint   training")
    for method in args.methods.split(","):
        found = table[method] = {name: run(args, method, name) for name in tasks}
        scores = "".join(f"{one['score']:21.4f}" for one in found.values())
        trained, size = (max(one[key] for one in found.values()) for key in ("trained", "bytes"))
        spent = sum(one["seconds"] for one in found.values()) / len(found)
        print(f"{method:25} {scores} {trained:9,} {size / 1e6:9.2f} MB {spent:8.0f} s", flush=True)
    settings = {"updates": args.updates, "batch": rows, "seed": args.seed}
    write_figures(args, {**settings, "methods": table})


if __name__ == "__main__":
    main()
