"""``ofa pretraining``: how good a pretrained model is at each of its tasks, and one page of all
that came of a pretraining."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ofa.cli.evaluate import write_pages
from ofa.cli.predict import load
from ofa.errors import UserError
from ofa.inference.options import ModelOptions
from ofa.io.flags import action, option
from ofa.io.json_files import read_json
from ofa.io.terminal import with_noun
from ofa.io.text_files import read_text
from ofa.io.values import name_and_value
from ofa.report.options import PAGE_JSON


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ModelOptions):
    data: str = option(help="images and texts: captions, questions, boxes")
    text_data: str | None = option(None, "rows of text infilling")
    image_data: str | None = option(None, "rows of image infilling")
    detection_data: str | None = option(None, "rows of detection")
    neg_sample_dir: str | None = option(None, "negative samples for matching, as of the training")
    image_tokenizer: str | None = option(None, "tokenizer to show and score image infilling")
    out: str = option(help="scores to write")
    report: str | None = option(None, "page with the scores and examples")
    json: str | None = option(None, PAGE_JSON)
    report_title: str = option("Eight tasks", "heading of the page")
    training_log: str | None = option(None, "train.log whose curves the page shows")
    rows: int = option(300, "rows of each task, at most")
    beam: int = option(3, "hypotheses kept at each step")
    batch_size: int = option(50, "rows at a time")


@dataclass(frozen=True, kw_only=True)
class SummaryOptions:
    scores: str | None = option(None, "file of ofa pretraining score")
    drawings: tuple[tuple[str, str], ...] = option(
        (),
        "files of ofa synthetic-shapes check",
        parse=name_and_value("NAME=FILE.json, such as small=drawings.json"),
        metavar="NAME=FILE.json",
    )
    images: str | None = option(None, "file of ofa draw, for its images", also=("--pictures",))
    gain: str | None = option(None, "file of benchmarks/pretraining_gain.py")
    timings: str | None = option(None, "lines of 'stage TAB seconds'")
    title: str = option("Pretraining", "heading of the page")
    out: str = option(help="page to write")
    json: str | None = option(None, PAGE_JSON)


@action
def score(args: ScoreOptions) -> None:
    """Score of each task, compared with the constant baseline.

    Predicts rows that a checkpoint of unify_task was not trained on. Tasks without a file are
    skipped. Constant baselines are taken from training rows.

    example: ofa pretraining score runs/pretrain/checkpoint_last.pt --data vision_language_test.tsv
    --out scores.json
    """
    from ofa.inference.pretraining_eval import FILES, PretrainingEvalSet
    from ofa.report.pretraining_page import tasks_report
    from ofa.task.results import write_json

    model = load(args)
    files = {name: getattr(args, name) for name in FILES}
    test = PretrainingEvalSet(model, files, args.rows, args.neg_sample_dir)
    figures, predictions = {}, {}
    for task, scored, found in test.scores(args.beam, args.batch_size, args.image_tokenizer):
        figures[task], predictions[task] = asdict(scored), found
        for number, one in enumerate((scored, *scored.further)):
            perfect = "" if one.reachable is None else f"; the true codes {one.reachable:.4f}"
            print(
                f"{'' if number else task:22} {one.measure:15} {one.model:.4f}   constant baseline"
                f" {one.constant:.4f}   ({with_noun(one.rows, 'row')}{perfect})",
                flush=True,
            )
    write_json(args.out, figures)
    if args.report or args.json:
        log = read_text(args.training_log) if args.training_log else ""
        shown = tasks_report(args.report_title, figures, predictions, test.task.options(), log)
        write_pages(args.report, args.json, shown)


@action
def summary(args: SummaryOptions) -> None:
    """One page of the results of a pretraining.

    Every file is optional; the page shows those that are given.

    example: ofa pretraining summary --scores scores.json --drawings 'one of each
    caption=drawings.json' --gain gain.json --timings timings.tsv --out summary.html
    """
    from ofa.report.pretraining_page import summary_report

    def read(path: str | None) -> Any:
        return read_json(path, "a JSON file of figures") if path else None

    if args.timings and not Path(args.timings).is_file():
        raise UserError(
            f"{args.timings}: expected lines of 'stage TAB seconds', found no file; check --timings"
        )
    figures = {
        "scores": read(args.scores),
        "drawings": {name: read(path) for name, path in args.drawings},
        "gain": read(args.gain),
        "images": read(args.images) or (),
        "folder": Path(args.images or "").parent,
    }
    try:
        shown = summary_report(args.title, timings=args.timings, **figures)
        write_pages(args.out, args.json, shown)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            "--scores, --drawings, --gain, --images: expected the files of the commands that"
            f" --help names, found others ({type(error).__name__}: {error}); check which file is"
            " which"
        ) from None
