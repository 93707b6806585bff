"""Scores and pages of predictions: ``ofa evaluate | report | merge-reports | image-scores``."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.inference.options import EvaluationOptions
from ofa.io.flags import action, option
from ofa.io.terminal import with_noun
from ofa.io.text_files import read_lines, read_text
from ofa.io.values import name_and_value
from ofa.report.options import PageOptions
from ofa.trainer.launch import on_nodes
from ofa.trainer.processes import ProcessOptions, nodes_of_slurm

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QualityOptions:
    TITLE = "image quality"

    real_images: str | None = option(
        None,
        "real images, or gt_stat.npz with mu and sigma of their features",
        also=("--real",),
        metavar="DIR|NPZ",
    )
    inception_model_path: str | None = option(None, "Inception weights for FID and Inception score")
    feature_extractor: str | None = option(
        None,
        "instead of Inception: uint8[B, 3, H, W] to features and logits",
        metavar="MODULE:CLASS",
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EvaluationOptions, ProcessOptions, QualityOptions, PageOptions):
    # Flags of upstream's command lines that have no meaning here.
    IGNORED = """
        --log-format --log-interval --ddp-backend --distributed-world-size --distributed-port
        --fp16-scale-window --valid-subset --user-dir
    """.split()

    report: str | None = option(None, "page with images, predictions, references and scores")


@dataclass(frozen=True, kw_only=True)
class ReportOptions(PageOptions):
    results: str = option(help="SUBSET_predict.json", positional=True)
    data: str = option(help="rows that were evaluated")
    task: str = option(help="task that reads the rows: caption, vqa_gen, refcoco, ...")
    selected_cols: str | None = option(None, "columns in the task's order", metavar="N,N,...")
    out: str = option(help="page to write")
    gen_images_path: str | None = option(None, "folder of generated images outside that of RESULTS")


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    pages: tuple[tuple[str, str], ...] = option(
        help="pages in the order of their tabs",
        positional=True,
        parse=name_and_value("NAME=FILE.html, such as captions=captions.html"),
        metavar="NAME=FILE.html",
    )
    out: str = option(help="file to write")
    title: str = option("OFA", "heading above the pages")


@dataclass(frozen=True, kw_only=True)
class ImageScoresOptions(QualityOptions):
    folder: str = option(help="folder of images (ofa evaluate: .../top1)", positional=True)
    out: str | None = option(None, "file for the scores")


@action
def evaluate(args: EvaluateOptions) -> int:
    """A checkpoint and a file of rows (or a folder of images) -> predictions, scores, a page.

    example:
      ofa evaluate checkpoint_best.pt caption_test.tsv --bpe-dir vocab --beam 5 --max-len-b 16 \\
          --no-repeat-ngram-size 3 --out results --report results/test.html

    Options that are left out come from the checkpoint; generation options from the --eval-args of
    its training.
    """
    from ofa.io.checkpoint_files import check_checkpoint_file
    from ofa.task.results import check_folder

    started = time.monotonic()
    if args.nodes is not None or args.dry_run or nodes_of_slurm() > 1:
        on_nodes(args, "ofa", sys.argv[1:])
    # what can be said before the checkpoint is loaded
    if bool(args.data) == bool(args.images) and "data" not in args.replaced:
        found = "both" if args.data else f"{args.checkpoint} alone"
        raise UserError(
            f"expected a checkpoint and a TSV file (or --images DIR) behind it, found {found}"
        )
    if args.out:
        check_folder(args.out)
    for path in args.checkpoint.split(":"):
        check_checkpoint_file(path)
    check_files(args, "training_log", "timings", "constant_from")
    from ofa.inference.evaluate import evaluate as predict_all  # torch: seconds

    evaluation = predict_all(args)
    if evaluation is None:
        return 0  # another process of torchrun reports
    known, task = vars(evaluation.spec.options()), evaluation.spec.name
    for name in (*args.task_options, *args.image_options):
        if name not in known:
            flag = name.replace("_", "-")
            logger.warning("--%s: task '%s' has no such option, it changes nothing", flag, task)
    count, seconds = len(evaluation.predictions), max(evaluation.seconds or 0, 1e-9)
    rows = with_noun(count, "row")
    logger.info("%s in %.1f s (%.1f per second)", rows, seconds, count / seconds)
    score(args, evaluation)
    if evaluation.path:
        print(f"predictions: {evaluation.path}")
    evaluation.seconds = time.monotonic() - started
    if args.report or args.json:
        from ofa.report.evaluation_page import evaluation_report

        write_pages(args.report, args.json, evaluation_report(evaluation, args))
    return 1 if evaluation.broken else 0  # images of a folder that could not be read


def score(args: EvaluateOptions, evaluation: Any) -> None:
    """Scores of the predictions and of the constant baseline, printed and written."""
    from ofa.task.intervals import LEVEL
    from ofa.task.results import write_json

    spec = evaluation.spec
    if evaluation.references is None:
        logger.info("no scores: the rows have no references")
        return
    scores = evaluation.score(args.scores, args.cider_df)
    scores.overall.update(quality(args, evaluation))
    if not scores.overall:
        scorer = "nothing knows how good the images are (--clip-model-path, --image-text-scorer)"
        logger.info("no scores: %s", scorer if spec.generates_images else "the task defines none")
        return
    evaluation.scores = scores
    add_constant_baseline(args, evaluation)
    print_table(evaluation, args.compare)
    rows, scored = len(evaluation.predictions), sum(map(bool, evaluation.references))
    content = {"scores": scores.overall, "rows": rows, "by_row": scores.by_row}
    if scores.intervals:
        content["intervals"] = {"level": LEVEL, **scores.intervals}
    if scored < rows:
        content["rows_scored"] = scored
    if evaluation.constant:
        answer, of_answer = evaluation.constant
        print(f"constant baseline: {answer}")
        content["best_constant"] = {"answer": answer, "scores": of_answer}
    if args.out:
        write_json(Path(args.out) / f"{evaluation.subset}_scores.json", content)


def add_constant_baseline(args: PageOptions, evaluation: Any) -> None:
    """The best answer that looks at no image, of given lines or of the rows' own answers."""
    from ofa.task.scoring import commonest_and_others

    metrics = evaluation.spec.metrics
    if evaluation.spec.generates_images or not args.constant_baseline:
        return
    scored = list(filter(None, evaluation.references))
    lines = (
        list(read_lines(args.constant_from)) if args.constant_from else metrics.constants(scored)
    )
    if lines := commonest_and_others(lines):
        evaluation.constant = metrics.best_constant(lines, scored)


def quality(args: EvaluateOptions, evaluation: Any) -> dict[str, float]:
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


@action
def report(args: ReportOptions) -> None:
    """A result file and the rows it answers -> a page with images, answers, boxes and scores.

    example:
      ofa report results/val_predict.json --data refcoco_val.tsv --task refcoco --out val.html

    Works with the result files of ofa evaluate and of upstream's program, and needs no checkpoint.
    """
    from ofa.data.rows import open_rows
    from ofa.report.evaluation_page import evaluation_report
    from ofa.task.scoring import Evaluation, references_of
    from ofa.tasks import spec_of

    check_files(args, "training_log", "timings", "constant_from")
    spec = spec_of(args.task)
    file = open_rows(args.data, args.selected_cols or spec.default_cols)
    columns = spec.names_of(len(file.selected_cols), args.data)

    def row(index: int) -> dict[str, str]:
        return dict(zip(columns, file[index]))

    outcome = Evaluation(
        spec=spec,
        predictions=predictions_by_row(args, spec, file, row),
        references=references_of(spec, row, len(file), file.where),
        row=row,
        subset=Path(args.results).stem.removesuffix("_predict"),
        model=args.results,
        source=args.data,
    )
    outcome.score(args.scores, args.cider_df)
    if outcome.scores is not None:
        add_constant_baseline(args, outcome)
        print_table(outcome, args.compare)
    write_pages(args.out, args.json, evaluation_report(outcome, args))


def write_pages(page: str | None, json: str | None, shown: Any) -> None:
    """A report as a page and as JSON, whichever is wanted."""
    from ofa.report.page import write_report, write_report_json

    if page:
        write_report(page, shown)
        print(f"page: {page}")
    if json:
        write_report_json(json, shown)
        print(f"json: {json}")


def check_files(args: PageOptions, *names: str) -> None:
    """Raises: UserError if a file that an option names is not there."""
    for name in names:
        path = getattr(args, name)
        if path and not Path(path).is_file():
            raise UserError(f"--{name.replace('_', '-')}: expected a file, found none at {path}")


def print_table(outcome: Any, compare: Sequence[tuple[str, Any]]) -> None:
    """Args: compare: names and scores of other evaluations."""
    from ofa.report.evaluation_page import explanations, score_table

    warn_of_other_rows(outcome.scores, compare)
    table = score_table(outcome, compare)
    rows = [["", *table.head[1:]], *table.rows]
    first = max(12, *(len(cells[0]) for cells in rows))
    widths = [max(10, *(len(cells[at]) + 3 for cells in rows)) for at in range(1, len(table.head))]
    for name, *cells in rows:
        row = [f"{cell:>{width}}" for cell, width in zip(cells, widths)]
        print(f"{name:{first}}{''.join(row)}".rstrip())
    for line in explanations(outcome):
        print(f"  {line}")


def warn_of_other_rows(scores: Any, compare: Sequence[tuple[str, Any]]) -> None:
    """Scores of another task have nothing to compare, those of another file no pairs of rows."""
    for name, other in compare:
        found = ", ".join(other.overall) or "none"
        if not scores.overall.keys() & other.overall.keys():
            expected = ", ".join(scores.overall)
            logger.warning("--compare %s: expected some of %s, found %s", name, expected, found)
        for score in scores.by_row.keys() & other.by_row.keys():
            here, there = len(scores.by_row[score]), len(other.by_row[score])
            if here != there:
                logger.warning(
                    "--compare %s: scores of %s, here of %s: of another file, whose differences"
                    " cannot be paired",
                    *(name, with_noun(there, "row"), with_noun(here, "row")),
                )
                break


def predictions_by_row(args: ReportOptions, spec: Any, file: Any, row: Callable) -> list:
    """The prediction of each row, found by its id; by its place where rows have no ids. Args:
    file: of the rows. row: number of a row -> its columns by name.

    Raises: UserError if a row has none, or several, or the file answers other rows.
    """
    from ofa.task.prediction import Prediction
    from ofa.task.results import prediction_of, read_predictions

    # what entries of the task's result file call the id of their row and their answer in words
    sample = Prediction("yes", 0.0, box=(0.0, 0.0, 1.0, 1.0), bins=(0, 0, 1, 1))
    keys = {str(value): key for key, value in spec.result("7", sample).items()}
    id_key, text_key = keys.get("7", "id"), keys.get("yes", "answer")
    path, ids, predictions = args.results, [], []
    for number, entry in enumerate(read_predictions(path), 1):
        where, images = f"{path}: entry {number}", filter(None, [args.gen_images_path])
        predictions.append(prediction_of(entry, where, Path(path).parent, [*images], [text_key]))
        ids.append(str(entry[id_key]) if id_key in entry else None)
    found = dict(zip(ids, predictions))
    wanted = [row(index).get("id") for index in range(len(file))]
    if len(predictions) == len(wanted) and (None in wanted or ids == wanted):
        return predictions
    if None in wanted or len(found) < len(predictions):
        raise UserError(
            f"{path}: expects one entry for each of the {len(wanted)} rows of {file.path}, found"
            f" {len(predictions)} with {len(found)} different ids; is it the file that was"
            " evaluated?"
        )
    for index, name in enumerate(wanted):
        if name not in found:
            raise UserError(
                f"{file.where(index)}: expects a prediction with the id {name!r} in {path},"
                " found none; is it the file that was evaluated, and does --selected-cols name the "
                "same columns?"
            )
    return [found[name] for name in wanted]


@action
def merge_reports(args: MergeOptions) -> None:
    """Pages of ``ofa evaluate`` or ``ofa report`` in one file, a tab each.

    example: ofa merge-reports captions=captions.html questions=questions.html --out report.html
    --title OFA
    """
    from ofa.report.page import write_html

    pages = [{"name": name, "html": read_text(path)} for name, path in args.pages]
    write_html(args.out, "merged_reports.html", title=args.title, pages=pages)
    print(f"page: {args.out}")


@action
def image_scores(args: ImageScoresOptions) -> int:
    """How good the images of a folder are together, by FID and Inception score.

    example: ofa image-scores results/images/top1 --real results/images/reference
    --inception-model-path pt_inception-2015-12-05-6726825d.pth
    """
    from ofa.io.image_files import list_images, readable
    from ofa.metrics import fid
    from ofa.task.results import write_json

    images, broken = readable(list_images(args.folder))
    real = fid.real_images(args.real_images) if args.real_images else None
    if isinstance(real, list):
        real, broken_real = readable(real)
        broken |= broken_real
    extractor = fid.load_extractor(args.inception_model_path, args.feature_extractor)
    scores = fid.image_scores(images, extractor, real)
    for name, value in scores.items():
        print(f"{name:14}{value:10.4f}")
    if args.out:
        write_json(args.out, {"scores": scores, "images": len(images)})
    return 1 if broken else 0
