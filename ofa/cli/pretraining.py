"""``ofa pretraining``: how good a pretrained model is at each of its tasks, and one page of all
that came of a pretraining."""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from ofa.cli.merge_reports import named_file
from ofa.errors import UserError
from ofa.io.json_files import load_json
from ofa.io.text_files import read_text

EXTRAS = {
    "text_data": "text_infilling",
    "image_data": "image_infilling",
    "detection_data": "detection",
}


def add_parser(subparsers) -> None:
    """Add ``pretraining`` to the commands of ``ofa``."""
    parser = subparsers.add_parser(
        "pretraining", help="score a pretrained model at each of the eight tasks"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    score = actions.add_parser(
        "score",
        help="each task's figure beside that of the best constant answer",
        description=(
            "Asks a checkpoint of unify_task about rows that it was not trained on. Tasks without a"
            " file are left out. Constant answers are taken from training rows."
        ),
        epilog=(
            "example: ofa pretraining score runs/pretrain/checkpoint_last.pt --data"
            " vision_language_test.tsv --out scores.json"
        ),
    )
    score.add_argument("checkpoint", help="checkpoint of --task unify_task")
    score.add_argument(
        "--data", required=True, metavar="TSV", help="images and texts: captions, questions, boxes"
    )
    for flag, task in EXTRAS.items():
        score.add_argument(
            f"--{flag.replace('_', '-')}", metavar="TSV", help=f"rows of {task.replace('_', ' ')}"
        )
    score.add_argument(
        "--neg-sample-dir", metavar="DIR", help="what does not fit, for matching (the training's)"
    )
    score.add_argument(
        "--image-tokenizer",
        metavar="PATH",
        help="makes images of codes: image infilling is scored by its pixels as well, and shown",
    )
    score.add_argument("--out", required=True, metavar="FILE.json", help="figures to write")
    score.add_argument("--report", metavar="FILE.html", help="page with the figures and examples")
    score.add_argument(
        "--report-title", default="Eight tasks", metavar="TEXT", help="(%(default)s)"
    )
    score.add_argument(
        "--training-log", metavar="FILE", help="train.log of the run, for curves on the page"
    )
    score.add_argument(
        "--rows",
        type=int,
        default=300,
        metavar="N",
        help="rows of each task, at most (%(default)s)",
    )
    score.add_argument("--beam", type=int, default=3, metavar="N", help="(%(default)s)")
    score.add_argument("--batch-size", type=int, default=50, metavar="N", help="(%(default)s)")
    score.add_argument(
        "--bpe-dir", metavar="DIR", help="vocabulary folder, if it has moved since training"
    )
    score.add_argument("--cpu", action="store_true", help="do not use a GPU")
    score.set_defaults(run=run_score)
    add_summary(actions)


def add_summary(actions) -> None:
    summary = actions.add_parser(
        "summary",
        help="one page of the figures of a pretraining, as far as there are any",
        description="Every file is optional; what is given stands on the page.",
        epilog=(
            "example: ofa pretraining summary --scores scores.json --drawings 'one of each"
            " caption=drawings.json' --gain gain.json --timings timings.tsv --out summary.html"
        ),
    )
    summary.add_argument("--scores", metavar="FILE.json", help="of ofa pretraining score")
    summary.add_argument(
        "--drawings",
        nargs="+",
        default=[],
        type=named_file,
        metavar="NAME=FILE.json",
        help="of ofa synthetic-shapes check",
    )
    summary.add_argument(
        "--images", metavar="FILE.json", help="of ofa draw: the first drawings are shown"
    )
    summary.add_argument("--gain", metavar="FILE.json", help="of benchmarks/pretraining_gain.py")
    summary.add_argument("--timings", metavar="FILE", help="lines of 'stage TAB seconds'")
    summary.add_argument("--title", default="Pretraining", metavar="TEXT", help="(%(default)s)")
    summary.add_argument("--out", required=True, metavar="FILE.html", help="the page")
    summary.set_defaults(run=run_summary)


def run_summary(args: argparse.Namespace) -> int:
    """Read what is given, write the page. Raises: UserError if a file is missing or of another
    kind."""
    from ofa.report.pretraining_page import PretrainingSummary, write_summary

    def read(path: str | None):
        try:
            return load_json(Path(path).read_text(encoding="utf-8")) if path else None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: expected a JSON file of figures, found none ({error}); make it, or leave"
                " its flag out"
            ) from None

    if args.timings and not Path(args.timings).is_file():
        raise UserError(
            f"{args.timings}: expected lines of 'stage TAB seconds', found no file; check --timings"
        )
    drawings = {name: read(path) for name, path in args.drawings}
    found = PretrainingSummary(
        read(args.scores),
        drawings,
        read(args.gain),
        args.timings,
        read(args.images),
        args.images and Path(args.images).parent,
    )
    try:
        write_summary(args.out, args.title, found)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            "--scores, --drawings, --gain, --images: expected the files of the commands that"
            f" --help names, found others ({type(error).__name__}: {error}); check which file is"
            " which"
        ) from None
    print(f"summary: {args.out}")
    return 0


def run_score(args: argparse.Namespace) -> int:
    import torch

    from ofa import OFA
    from ofa.inference.pretraining_eval import PretrainingEvalSet
    from ofa.io.atomic import replacing
    from ofa.io.values import finite
    from ofa.metrics.pretraining import score
    from ofa.report.pretraining_page import write_tasks_page
    from ofa.task.pretraining_tasks import TASKS

    model = OFA.load(args.checkpoint, args.bpe_dir, device="cpu" if args.cpu else None)
    files = {name: getattr(args, name) for name in ("data", *EXTRAS)}
    test = PretrainingEvalSet(model, files, args.rows, args.neg_sample_dir)
    if args.image_tokenizer:
        test.take_tokenizer(args.image_tokenizer)
    training = test.of_training()
    found, replies = {}, {}
    for task in TASKS:
        if not test.samples[task]:
            continue
        with torch.inference_mode():
            replies[task] = test.ask(task, args.beam, args.batch_size)
        found[task] = score(task, replies[task], training.targets(task))
        if task == "image_infilling" and args.image_tokenizer:
            replies[task], pixels = test.fill(replies[task], training)
            found[task] = replace(found[task], further=pixels)
        for name, one in zip(
            (task, *("" for _ in found[task].further)), (found[task], *found[task].further)
        ):
            perfect = "" if one.reachable is None else f"; the true codes {one.reachable:.4f}"
            print(
                f"{name:22} {one.measure:15} {one.model:.4f}   best constant {one.constant:.4f}  "
                f" ({one.rows} rows{perfect})",
                flush=True,
            )
    figures = {task: asdict(one) for task, one in found.items()}
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as file:
        json.dump(finite(figures), file, indent=1)
        file.write("\n")
    if args.report:
        log = read_text(args.training_log) if args.training_log else ""
        write_tasks_page(args.report, args.report_title, figures, replies, test.task.options(), log)
    return 0
