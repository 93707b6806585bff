"""Options of the commands that score predictions and show them on a page."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.json_files import load_json
from ofa.task.scoring import Scores

PAGE_JSON = "the content of the page as JSON, without its images"


def frequencies_of(path: str) -> dict[str, Any]:
    """The content of a file of document frequencies, read before anything is predicted."""
    from ofa.metrics.document_frequency import read_document_frequencies

    try:
        num_images, frequencies = read_document_frequencies(path)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return {"ref_len": num_images, "document_frequency": frequencies}


def named_scores(text: str) -> tuple[str, Scores]:
    """``NAME=FILE`` -> the name and the scores that an earlier evaluation wrote there."""
    name, _, path = text.rpartition("=")
    try:
        content = load_json(Path(path).read_text(encoding="utf-8"))
        overall = {key: float(value) for key, value in content["scores"].items()}
        by_row = {
            key: [math.nan if value is None else float(value) for value in values]
            for key, values in content.get("by_row", {}).items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        found = "a file of something else"
        if isinstance(error, OSError):
            found = "a folder" if Path(path).is_dir() else f"no file ({error.strerror})"
        raise argparse.ArgumentTypeError(
            f"expected the SUBSET_scores.json of an evaluation at {path}, found {found};"
            " ofa evaluate --out writes it"
        ) from None
    return name or Path(path).stem.removesuffix("_scores"), Scores(overall, by_row)


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """What is scored, and what a page shows besides its rows."""

    TITLE = "scores and page"

    scores: str | None = option(
        None,
        "scores of captions: some of CIDEr, BLEU-1 to BLEU-4, ROUGE-L, METEOR, SPICE",
        metavar="NAME,...",
    )
    cider_df: dict[str, Any] | None = option(
        None,
        "document frequencies for CIDEr-D (ofa cider-df), if not of the references",
        also=("--eval-cider-cached-tokens",),
        parse=frequencies_of,
    )
    json: str | None = option(None, PAGE_JSON)
    report_images: int = option(500, "images on the page, evenly spread from worst to best")
    report_title: str | None = option(None, "heading of the page")
    training_log: str | None = option(None, "train.log whose curves the page shows")
    timings: str | None = option(None, "lines of 'stage TAB seconds' for a table of the page")
    constant_baseline: bool = option(True, "the best answer that looks at no image, for comparison")
    constant_from: str | None = option(
        None, "lines to choose the constant baseline from, if not the rows' answers"
    )
    compare: tuple[tuple[str, Scores], ...] = option(
        (),
        "SUBSET_scores.json of another evaluation to compare with, row by row; may be repeated",
        parse=named_scores,
        repeat=True,
        metavar="[NAME=]FILE",
    )
