"""``ofa evaluate``: a checkpoint and a file of rows (or a folder of images) -> predictions,
scores, a page."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.cli.options import QualityOptions
from ofa.cli.report import check_files, print_table, write_pages
from ofa.errors import UserError
from ofa.inference.options import EvaluationOptions
from ofa.io.flags import Parser, command, option
from ofa.io.text_files import read_lines
from ofa.report.options import PageOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EvaluationOptions, QualityOptions, PageOptions):
    """An evaluation, its scores and its page."""

    # Flags of upstream's command lines that have no meaning here.
    IGNORED = """
        --log-format --log-interval --ddp-backend --distributed-world-size --distributed-port
        --fp16-scale-window --valid-subset --user-dir
    """.split()

    report: str | None = option(None, "page with images, predictions, references and scores")
    constant_from: str | None = option(
        None, "predictions, one per line, whose best is scored as constant baseline"
    )


def set_up(parser: Parser) -> None:
    """The flags of ``ofa evaluate``."""
    command(parser, EvaluateOptions, run, EXAMPLE)


EXAMPLE = """\
example:
  ofa evaluate checkpoint_best.pt caption_test.tsv --bpe-dir vocab --beam 5 --max-len-b 16 \\
      --no-repeat-ngram-size 3 --out results --report results/test.html

Options that are left out come from the checkpoint; generation options from the --eval-args of its
training."""


def run(args: EvaluateOptions) -> int:
    """Evaluate, print the scores, write the page. Returns: 0, or 1 if images of a folder could
    not be read."""
    from ofa.inference.evaluate import evaluate

    started = time.monotonic()
    _check(args)
    evaluation = evaluate(args)
    if evaluation is None:
        return 0  # another process of torchrun reports
    known, task = vars(evaluation.spec.options()), evaluation.spec.name
    for name in (*args.task_options, *args.image_options):
        if name not in known:
            flag = name.replace("_", "-")
            logger.warning("--%s: task '%s' has no such option, it changes nothing", flag, task)
    rows, seconds = len(evaluation.predictions), max(evaluation.seconds or 0, 1e-9)
    logger.info("%d rows in %.1f s (%.1f per second)", rows, seconds, rows / seconds)
    _score(args, evaluation)
    if evaluation.path:
        print(f"predictions: {evaluation.path}")
    evaluation.seconds = time.monotonic() - started
    if args.report or args.json:
        write_pages(args.report, evaluation, args)
    return 1 if evaluation.broken else 0


def _check(args: EvaluateOptions) -> None:
    """What can be said before the checkpoint is loaded."""
    if bool(args.data) == bool(args.images) and "data" not in args.replaced:
        raise UserError(
            "expected a TSV file or --images DIR, found " + ("both" if args.data else "neither")
        )
    check_files(args, "training_log", "timings", "constant_from")


def _score(args: EvaluateOptions, evaluation: Any) -> None:
    """Scores of the predictions, and of the constant baseline if that is asked for; printed
    and written."""
    from ofa.task.results import write_json
    from ofa.task.scoring import commonest_and_others

    spec = evaluation.spec
    if evaluation.references is None:
        logger.info("no scores: the rows have no references")
        return
    scores = evaluation.score(args.scores, args.cider_df)
    scores.overall.update(_quality(args, evaluation))
    if not scores.overall:
        scorer = "nothing knows how good the images are (--clip-model-path, --image-text-scorer)"
        logger.info("no scores: %s", scorer if spec.generates_images else "the task defines none")
        return
    evaluation.scores, scored = scores, list(filter(None, evaluation.references))
    if args.constant_from:
        lines = commonest_and_others(list(read_lines(args.constant_from)))
        evaluation.constant = spec.metrics.best_constant(lines, scored)
    print_table([*args.compare, *evaluation.baseline], scores)
    rows = len(evaluation.predictions)
    content = {"scores": scores.overall, "rows": rows, "by_row": scores.by_row}
    if len(scored) < rows:
        content["rows_scored"] = len(scored)
    if evaluation.constant:
        answer, of_answer = evaluation.constant
        print(f"constant baseline: {answer}")
        content["best_constant"] = {"answer": answer, "scores": of_answer}
    if args.out:
        write_json(Path(args.out) / f"{args.gen_subset}_scores.json", content)


def _quality(args: EvaluateOptions, evaluation: Any) -> dict[str, float]:
    """FID and Inception score of the best images, if they are asked for; real images are by
    default those of the rows."""
    if not args.inception_model_path and not args.feature_extractor:
        return {}
    from ofa.io.image_grid import reference_file
    from ofa.metrics.fid import image_scores, load_extractor, real_images

    images = [Path(one.file) for one in evaluation.predictions if one.file is not None]
    if not images:
        raise UserError(
            "--inception-model-path: expects images to score, found none; give --image-tokenizer"
        )
    references = [path for path in map(reference_file, images) if path.is_file()]
    real = real_images(args.real_images) if args.real_images else references or None
    extractor = load_extractor(args.inception_model_path, args.feature_extractor)
    return image_scores(images, extractor, real)
