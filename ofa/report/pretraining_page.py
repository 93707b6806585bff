"""Pages of a pretraining: the eight tasks with some of their rows, and a summary of all that
came of it."""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ofa.io.image_grid import LARGEST, as_field, grid
from ofa.io.images import decode_image, encode_image, read_image_file
from ofa.io.paths import path_below
from ofa.io.terminal import with_noun
from ofa.metrics.pretraining import PredictedRow, codes_of, middle_of, pixel_errors, right_codes
from ofa.report.page import Item, Report, Table, Tile, stage_times, training_curves
from ofa.task.pretraining_tasks import PretrainingOptions
from ofa.tokens.boxes import BIN, bins_to_boxes, text_to_bins

SHOWN = 12  # rows of each task, and drawings on the summary
REFERENCES = 4  # of a row
Figures = Mapping[str, Mapping[str, Any]]  # task -> ofa.metrics.pretraining.Score as plain values
CONSTANT = (
    "Constant baseline: the one answer that, given to every row, scores best. It shows what can be"
    " had without looking."
)


def tasks_report(
    title: str,
    figures: Figures,
    predictions: Mapping[str, Sequence[PredictedRow]],
    options: PretrainingOptions,
    log: str = "",
) -> Report:
    """The table, the curves of the training, and some rows of every task. Args: log: text of
    ``train.log``."""
    shown = [(task, row) for task, found in predictions.items() for row in found[:SHOWN]]
    items = [item_of(task, predicted, options, row) for row, (task, predicted) in enumerate(shown)]
    rows = with_noun(sum(map(len, predictions.values())), "row")
    subtitle = f"{rows} not trained on, {len(items)} on this page"
    tables, curves = [task_table(figures)], training_curves(log)
    return Report(title, subtitle, curves=curves, tables=tables, items=items, grading=None)


def task_table(figures: Figures) -> Table:
    """Model and constant baseline of each task, one measure in a line."""
    rows, notes = [], [CONSTANT]
    for task, found in figures.items():
        for one in (found, *found["further"]):
            name = task.replace("_", " ") if one is found else ""
            measure = one["measure"] + (" (less is better)" if one["lower_is_better"] else "")
            model, constant = f"{one['model']:.3f}", f"{one['constant']:.3f}"
            rows.append((name, measure, model, constant, in_words(one["answer"])))
            if one["reachable"] is not None:
                notes.append(f"The {one['measure']} of the true codes is {one['reachable']:.3f}.")
    return Table(
        "each task on rows that were not trained on",
        ("task", "measure", "model", "constant baseline", "which is"),
        rows,
        words=True,
        note=" ".join(notes),
    )


def in_words(answer: str) -> str:
    """A constant answer, short enough for a table."""
    if codes_of(answer):
        return "the commonest code at each place"
    box = re.compile(rf"(?:{BIN.pattern}\s*){{4}}")
    answer = box.sub(lambda found: f"box {', '.join(map(str, text_to_bins(found[0])))} ", answer)
    answer = answer.replace("\u2581", " ").strip()
    return answer if len(answer) <= 60 else answer[:57] + "..."


def item_of(task: str, predicted: PredictedRow, options: PretrainingOptions, row: int = 0) -> Item:
    """A row as the page shows it: boxes are drawn, filled images stand beside the true ones."""
    name = task.replace("_", " ")
    written = predicted.source, predicted.target, predicted.prediction
    source, target, output = predicted.readable or written
    # the square that the model sees
    side = 2 * options.code_image_size if task == "detection" else options.patch_image_size
    boxes = [
        (kind, box)
        for kind, text in (("asked about", source), ("true", target), ("predicted", output))
        for box in boxes_in(text, predicted.image, side, options)
    ]
    accepted = [target] if predicted.readable else [*predicted.references] or [target]
    references = list(filter(None, map(words, accepted[:REFERENCES])))
    if len(accepted) > REFERENCES:
        references.append(f"and {len(accepted) - REFERENCES} more")
    question = words(source).removesuffix(" region:")
    answer = words(output) if "predicted" in dict(boxes) else output
    item = Item(question, answer, references, boxes, predicted.image, id=name, row=row, group=name)
    if task == "image_infilling":
        show_filled(item, predicted)
    return item


def words(text: str) -> str:
    """A text without its boxes: ``<bin_1> <bin_2> <bin_3> <bin_4> a star`` -> ``a star``."""
    return ", ".join(filter(None, map(str.strip, BIN.sub("\0", text).split("\0"))))


def boxes_in(text: str, image: str, side: int, options: PretrainingOptions) -> list[list[float]]:
    """The boxes of a text, xyxy in pixels of the row's image. Args: side: of the square that
    the model sees, pixels."""
    bins = text_to_bins(text)
    boxes = [bins[start : start + 4] for start in range(0, len(bins) - 3, 4)]
    if not boxes:
        return []
    size, most = decode_image(image).size, options.max_image_size
    return bins_to_boxes(boxes, size, side, most, options.num_bins, clip=True).tolist()


def show_filled(item: Item, predicted: PredictedRow) -> None:
    """Codes in figures, and what was seen, predicted and true in one image."""
    share = right_codes([predicted.prediction], [predicted])
    item.answer = f"{100 * share:.0f} % of {len(codes_of(predicted.target))} codes right"
    item.references = ()
    if predicted.filled is None:
        return
    true = decode_image(predicted.image)
    place = (true.width // 4, true.height // 4)
    seen, filled = true.copy(), true.copy()
    end = (place[0] + predicted.filled.width, place[1] + predicted.filled.height)
    seen.paste((128, 128, 128), (*place, *end))
    filled.paste(predicted.filled, place)
    times = max(1, LARGEST // true.width)  # pixels stay visible
    strip = [ImageOps.scale(one, times, Image.Resampling.NEAREST) for one in (seen, filled, true)]
    item.image = as_field(grid(strip, columns=3))
    errors = pixel_errors([predicted.filled], [middle_of(true)])
    item.references = [f"{name} {error:.1f}" for name, error in errors.items()]
    item.question = f"{predicted.source} seen, filled, true:"


def summary_report(
    title: str,
    scores: Figures | None = None,
    drawings: Mapping[str, Mapping[str, float]] | None = None,
    gain: Mapping[str, Any] | None = None,
    timings: str | None = None,
    images: Sequence[Mapping[str, Any]] = (),
    folder: Path = Path(),
) -> Report:
    """One page of all that came of a pretraining, as far as it is known.

    Args: scores: of ``ofa pretraining score``. drawings: name -> figures of ``ofa synthetic-shapes
    check``. gain: of ``benchmarks/pretraining_gain.py``. timings: file of lines ``stage TAB
    seconds``. images: entries of ``ofa draw``, whose files are named from ``folder``.
    Raises: KeyError or TypeError if files are of another kind.
    """
    report = Report(
        title,
        "What the model can do, beside what can be had without looking or without pretraining",
        grading=None,
        images="Drawings of captions it never saw",
    )
    if scores:
        better = sum(one["model"] > one["constant"] for one in scores.values())
        value, note = f"{better} of {len(scores)}", "on rows that were not trained on"
        report.tiles.append(Tile("tasks above any constant answer", value, note))
        report.tables.append(task_table(scores))
    if drawings:
        for name, one in drawings.items():
            report.tiles.append(Tile("things drawn right", per_cent(one["things_right"]), name))
        report.tables.append(drawing_table(drawings))
    if gain:
        for task, runs in gain["tasks"].items():
            note = f"{runs['measure']}; from scratch {mean_of(runs['scratch'])}"
            heading = f"{task} after finetuning"
            report.tiles.append(Tile(heading, mean_of(runs["pretrained"]), note))
        report.tables.append(gain_table(gain))
    if timings:
        times = stage_times(timings)
        minutes = f"{float(times.rows[-1][1]) / 60:.0f} min"
        report.tiles.append(Tile("time", minutes, "all stages together"))
        report.tables.append(times)
    for number, entry in enumerate(images[:SHOWN]):
        best = entry["files"][0]  # image of the caption
        file = path_below(folder, best, f"--images: entry {number + 1}", follow_links=True)
        image = encode_image(read_image_file(file)) if file.is_file() else ""
        name = str(entry.get("id", number))
        report.items.append(Item(answer=entry["caption"], image=image, id=name, row=number))
    return report


def drawing_table(drawings: Mapping[str, Mapping[str, float]]) -> Table:
    parts = ("things_right", "all_things_there", "exact")
    return Table(
        "drawings of captions that were not trained on",
        ("drawings", "number", "things right", "all there", "and nothing else"),
        [
            (name, str(one["drawings"]), *(per_cent(one[part]) for part in parts))
            for name, one in drawings.items()
        ],
        note="A thing is right if its color and its shape are. A checker, no network, looks.",
    )


def gain_table(gain: Mapping[str, Any]) -> Table:
    rows = []
    for task, runs in gain["tasks"].items():
        scratch, pretrained = runs["scratch"], runs["pretrained"]
        higher = sum(b > a for a, b in zip(scratch, pretrained))
        seeds = f"{higher}\u00a0of\u00a0{len(scratch)}"
        rows.append((task, runs["measure"], spread(scratch), spread(pretrained), seeds))
    return Table(
        f"after {gain['updates']} updates of finetuning",
        ("task", "measure", "from scratch", "from the pretrained model", "higher in seeds"),
        rows,
        note="Same rows, order and settings; unseen scenes.",
    )


def per_cent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def mean_of(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f}"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return mean_of(values) + (f" \u00b1 {statistics.stdev(values):.3f}" if len(values) > 1 else "")
