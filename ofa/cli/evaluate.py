"""``ofa evaluate``: a checkpoint and a file of rows (or a folder of images) -> predictions,
scores, a page."""

import argparse
import ast
import logging
import time
from pathlib import Path

from ofa.cli.draw import DRAWING_OPTIONS, add_drawing_flags
from ofa.cli.image_scores import add_quality_flags
from ofa.cli.report import add_cider_df, add_page_flags, check_files, print_table
from ofa.errors import UserError
from ofa.io.json_files import load_json
from ofa.io.text_files import read_lines

logger = logging.getLogger(__name__)

# Flags of upstream command lines that have no meaning here. They are accepted and named once.
WITHOUT_MEANING = (
    "--log-format",
    "--log-interval",
    "--ddp-backend",
    "--distributed-world-size",
    "--distributed-port",
    "--fp16-scale-window",
    "--valid-subset",
)
EXAMPLE = """\
example:
  ofa evaluate caption_test.tsv --path checkpoint_best.pt --bpe-dir vocab --beam 5 --max-len-b 16 \\
      --no-repeat-ngram-size 3 --results-path results --report results/test.html

Options that are left out come from the checkpoint; generation options from the --eval-args of its
training."""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="predict and score with a checkpoint",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to evaluate")
    what.add_argument(
        "data", nargs="?", help="TSV file; of a comma separated list the last one is evaluated"
    )
    what.add_argument(
        "--images",
        metavar="DIR",
        help=(
            "instead of a TSV: caption every image file of a folder (status 1 if some cannot be"
            " read)"
        ),
    )
    what.add_argument(
        "--path",
        required=True,
        metavar="FILE",
        help="checkpoint; several separated by : are an ensemble",
    )
    what.add_argument(
        "--base",
        metavar="FILE",
        help=(
            "of a checkpoint that holds tuned weights only: where its base is now, if it has moved"
        ),
    )
    what.add_argument("--task", help="default: the checkpoint's")
    what.add_argument(
        "--selected-cols", metavar="N,N,...", help="columns in the order the task names them"
    )
    what.add_argument(
        "--bpe-dir", metavar="DIR", help="vocabulary folder, if it has moved since training"
    )
    what.add_argument(
        "--bpe",
        choices=("gpt2", "bert", "sentencepiece"),
        help="recognized from the folder when left out",
    )
    what.add_argument(
        "--model-overrides",
        "--overrides",
        type=_dictionary,
        default={},
        metavar="DICT",
        dest="overrides",
        help="stored options to replace, e.g. \"{'patch_image_size': 384}\"",
    )
    what.add_argument(
        "--ema-eval", action="store_true", help="take the averaged weights (EMA) of the checkpoint"
    )
    what.add_argument(
        "--zero-shot",
        action="store_true",
        help=(
            "as a model answers that was never finetuned on the task: constraints act on"
            " probabilities, without renormalizing; questions are answered freely"
        ),
    )
    _add_task(parser)
    drawing = parser.add_argument_group("text to image")
    add_drawing_flags(drawing)
    add_quality_flags(drawing, "--real-images")
    _add_outputs(parser)
    _add_generation(parser)
    _add_machine(parser)
    for flag in WITHOUT_MEANING:
        parser.add_argument(flag, help=argparse.SUPPRESS)
    parser.add_argument("--user-dir", help=argparse.SUPPRESS)  # we are the plugin
    parser.set_defaults(run=run)


# Options of tasks that are often given anew for an evaluation.
TASK_OPTIONS = (
    "selected_cols",
    "bpe_dir",
    "bpe",
    "patch_image_size",
    "num_bins",
    "max_image_size",
    "max_src_length",
    "max_tgt_length",
    "prompt_type",
    "ans2label_file",
    "ans2label_dict",
    "valid_batch_size",
    "max_object_length",
    "val_inference_type",
    "add_object",
    "add_caption",
    "is_document",
    "unconstrained_training",
    "imagenet_default_mean_and_std",
    *DRAWING_OPTIONS,
)


def _add_task(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "the task, where the checkpoint's training does not say it",
        "(any other option of it: --model-overrides)",
    )
    for flag, kind, text in (
        ("--patch-image-size", int, "side of the square image, pixels"),
        ("--num-bins", int, "location bins per image side"),
        ("--max-image-size", int, "side of a square, pixels, whose far edge is the last bin"),
        ("--max-src-length", int, "longest source"),
        ("--max-tgt-length", int, "longest target"),
        ("--max-object-length", int, "most objects that --add-object names"),
        ("--valid-batch-size", int, "how many of all answers are scored together"),
    ):
        group.add_argument(flag, type=kind, help=text)
    group.add_argument(
        "--prompt-type", choices=("none", "src", "prev_output"), help="what the decoder is given"
    )
    group.add_argument(
        "--ans2label-file", metavar="FILE", help="the answers, {text: number} as pickle or JSON"
    )
    group.add_argument("--ans2label-dict", metavar="JSON", help="the answers as JSON")
    group.add_argument(
        "--val-inference-type",
        choices=("allcand", "beamsearch"),
        help="score all answers, or search along them",
    )
    group.add_argument(
        "--beam-search-vqa-eval",
        action="store_const",
        const="beamsearch",
        dest="val_inference_type",
        help="the same as --val-inference-type beamsearch",
    )
    for flag, text in (
        ("--add-object", "name the image's objects in the question"),
        ("--add-caption", "give the image's caption"),
        ("--is-document", "text recognition: images are long lines of a document"),
        ("--unconstrained-training", "the model was trained without a set of answers"),
        ("--imagenet-default-mean-and-std", "normalize images by ImageNet's mean and std"),
    ):
        group.add_argument(flag, action="store_true", default=None, help=text)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what comes out")
    group.add_argument(
        "--results-path",
        metavar="DIR",
        help="folder for SUBSET_predict.json and SUBSET_scores.json",
    )
    group.add_argument(
        "--gen-subset",
        default="test",
        metavar="SUBSET",
        help="name for the result files (%(default)s)",
    )
    group.add_argument(
        "--scores",
        metavar="NAME,...",
        help=(
            "captions: some of CIDEr, BLEU-1 to BLEU-4, ROUGE-L, METEOR, SPICE "
            "(the last two need Java; default: all but SPICE)"
        ),
    )
    add_cider_df(group)
    group.add_argument(
        "--n-best",
        type=_positive,
        metavar="N",
        help=(
            "hypotheses per row; boxes have all of them in the result file (default: as many as the"
            " task needs)"
        ),
    )
    group.add_argument(
        "--report", metavar="FILE.html", help="a page with images, captions, references and scores"
    )
    add_page_flags(group)
    group.add_argument(
        "--constant-from",
        metavar="FILE",
        help=(
            "answers, one per line (boxes as x0,y0,x1,y1): also score the "
            "one that does best as the answer to every row"
        ),
    )


def _add_generation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("generation")
    for flag, kind, text in (
        ("--beam", int, "hypotheses kept at each step"),
        ("--max-len-a", float, "longest: max-len-a * source + max-len-b"),
        ("--max-len-b", int, "see --max-len-a"),
        ("--min-len", int, "shortest caption in tokens"),
        ("--lenpen", float, "scores are divided by length ** lenpen"),
        ("--unkpen", float, "penalty of unknown tokens"),
        ("--temperature", float, "logits are divided by it"),
        ("--no-repeat-ngram-size", int, "no n-gram of this size twice"),
        ("--sampling-topk", int, "with --sampling: of the k likeliest tokens"),
        (
            "--sampling-topp",
            float,
            "with --sampling: of the likeliest tokens that together reach p",
        ),
        ("--diverse-beam-groups", int, "groups of beams that avoid each other's tokens"),
        ("--diverse-beam-strength", float, "penalty for what another group chose"),
    ):
        group.add_argument(flag, type=kind, help=text)
    group.add_argument(
        "--constraint-range", metavar="START,END", help="besides specials only these token ids"
    )
    group.add_argument(
        "--unnormalized",
        action="store_true",
        default=None,
        help="compare sums, not means, of scores",
    )
    group.add_argument(
        "--sampling", action="store_true", default=None, help="draw tokens instead of searching"
    )


GENERATION = (
    "beam",
    "max_len_a",
    "max_len_b",
    "min_len",
    "lenpen",
    "unkpen",
    "temperature",
    "no_repeat_ngram_size",
    "sampling",
    "sampling_topk",
    "sampling_topp",
    "diverse_beam_groups",
    "diverse_beam_strength",
    "constraint_range",
    "unnormalized",
)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--batch-size",
        type=_positive,
        help="rows at a time (the checkpoint's validation batch, or 16)",
    )
    group.add_argument(
        "--nproc",
        type=_positive,
        default=1,
        metavar="N",
        help="processes on this machine (%(default)s)",
    )
    group.add_argument(
        "--num-workers", type=int, default=0, help="data workers per process (%(default)s)"
    )
    group.add_argument("--cpu", action="store_true", help="do not use a GPU")
    precision = group.add_mutually_exclusive_group()
    precision.add_argument(
        "--fp16", action="store_const", const="fp16", dest="precision", default="fp32"
    )
    precision.add_argument("--bf16", action="store_const", const="bf16", dest="precision")
    group.add_argument("--seed", type=int, default=7, help="of sampling (%(default)s)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {text}")
    return value


def _dictionary(text: str) -> dict:
    """A Python or JSON dictionary of plain values."""
    for read in (ast.literal_eval, load_json):
        try:
            value = read(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(value, dict):
            return value
    raise argparse.ArgumentTypeError(
        f"expected a dictionary such as \"{{'eval_cider': False}}\", found {text!r}"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the scores, write the page. Returns: 0, or 1 if images of a folder could
    not be read."""
    from ofa.inference.evaluate import EvaluationOptions, evaluate

    started = time.monotonic()
    _check(args)
    given = {
        name: getattr(args, name)
        for name in ("base", *TASK_OPTIONS)
        if getattr(args, name) is not None
    }
    evaluation = evaluate(
        EvaluationOptions(
            paths=args.path.split(":"),
            data=args.data,
            images=args.images,
            task=args.task,
            subset=args.gen_subset,
            results=args.results_path,
            overrides={**args.overrides, **given},
            generation={name: getattr(args, name) for name in GENERATION},
            batch_size=args.batch_size,
            precision=args.precision,
            device="cpu" if args.cpu else None,
            ema=args.ema_eval,
            zero_shot=args.zero_shot,
            best=args.n_best,
            workers=args.num_workers,
            processes=args.nproc,
            seed=args.seed,
        )
    )
    if evaluation is None:
        return 0  # another process of torchrun reports
    rows = len(evaluation.texts)
    logger.info(
        "%d rows in %.1f s (%.1f per second)",
        rows,
        evaluation.seconds,
        rows / max(evaluation.seconds, 1e-9),
    )
    scores, constant = _score(args, evaluation)
    if evaluation.result_path:
        print(f"predictions: {evaluation.result_path}")
    if args.report:
        from ofa.report.evaluation_page import Outcome, write_page

        outcome = Outcome(
            evaluation.task.spec,
            evaluation.predictions,
            evaluation.references,
            evaluation.dataset.row,
        )
        write_page(
            args,
            outcome,
            scores,
            constant,
            other_scores(args, constant),
            time.monotonic() - started,
        )
        print(f"page: {args.report}")
    return 1 if getattr(evaluation.dataset.file, "broken", None) else 0  # image files of a folder


def _check(args: argparse.Namespace) -> None:
    """What can be said before the checkpoint is loaded."""
    if bool(args.data) == bool(args.images) and "data" not in args.overrides:
        raise UserError(
            "expected a TSV file or --images DIR, found " + ("both" if args.data else "neither")
        )
    check_files(args, "training_log", "timings", "constant_from")
    for flag in WITHOUT_MEANING:
        if getattr(args, flag[2:].replace("-", "_")) is not None:
            logger.warning("%s has no meaning here and is skipped", flag)


def _score(args: argparse.Namespace, evaluation):
    """Scores of the predictions, and of the best constant answer if that is asked for; printed
    and written."""
    from ofa.task.results import write_json
    from ofa.task.scoring import score_rows

    spec = evaluation.task.spec
    if evaluation.references is None or spec.final_scores is None:
        logger.info(
            "no scores: %s",
            "the rows have no references" if spec.final_scores else "the task defines none",
        )
        return None, None
    names = args.scores.split(",") if args.scores else None
    scores = score_rows(spec, evaluation.predictions, evaluation.references, names, args.cider_df)
    scores.overall.update(_quality(args, evaluation))
    if not scores.overall:
        logger.info(
            "no scores: nothing here knows how good the images are (--clip-model-path,"
            " --image-text-scorer)"
        )
        return None, None
    constant = None
    if args.constant_from:
        from ofa.task.constant_baseline import best_constant

        constant = best_constant(
            spec, list(read_lines(args.constant_from)), list(filter(None, evaluation.references))
        )
    print_table(other_scores(args, constant), scores)
    if constant:
        print(f"best constant answer: {constant[0]}")
    if args.results_path:
        content = {"scores": scores.overall, "rows": len(evaluation.texts), "by_row": scores.by_row}
        scored = sum(map(bool, evaluation.references))
        if scored < len(evaluation.references):
            content["rows_scored"] = scored
        if constant:
            content["best_constant"] = {"answer": constant[0], "scores": constant[1]}
        write_json(Path(args.results_path) / f"{args.gen_subset}_scores.json", content)
    return scores, constant


def _quality(args: argparse.Namespace, evaluation) -> dict[str, float]:
    """FID and Inception score of the best images, if they are asked for; real images are by
    default those of the rows."""
    if not args.inception_model_path and not args.feature_extractor:
        return {}
    from ofa.io.image_grid import reference_file
    from ofa.metrics.fid import image_scores, load_extractor, real_images

    images = [
        Path(prediction.file)
        for prediction in evaluation.predictions
        if prediction.file is not None
    ]
    if not images:
        raise UserError(
            "--inception-model-path: expects images to score, found none; give --image-tokenizer"
        )
    references = [path for path in map(reference_file, images) if path.is_file()]
    real = real_images(args.real_images) if args.real_images else references or None
    return image_scores(
        images, load_extractor(args.inception_model_path, args.feature_extractor), real
    )


def other_scores(args: argparse.Namespace, constant) -> list[tuple[str, dict[str, float]]]:
    """Columns to set beside the model's scores: those of ``--compare``, and of the best constant
    answer."""
    return args.compare + ([("best constant", constant[1])] if constant else [])
