"""A page that shows how well a model does: one HTML file with everything in it, images included.

    write_report("page.html", Report("A title", "A subtitle", tiles=[Tile("CIDEr", "1.2")]))

A ``Report`` is plain data: the same content as JSON is what ``--json`` writes.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.image_grid import as_field
from ofa.io.images import decode_base64, encode_image, image_header, open_image, suffix_of
from ofa.io.text_files import read_lines
from ofa.io.values import read_decimal
from ofa.task.prediction import Shown
from ofa.task.pretraining_tasks import TASKS
from ofa.task.results import write_json
from ofa.task.task_spec import TaskSpec

LARGEST = 360  # images above this side are reduced: a page of photos stays loadable
FEW = 40  # up to this number of items, and sheets of images, are twice as large
# by every browser: suffix -> name in a data URL
SHOWN_AS_THEY_ARE = {"jpg": "jpeg", "png": "png", "webp": "webp", "gif": "gif"}
OUTLINES = ("predicted", "true", "asked about")  # kinds of boxes, each with a color of its own

NUMBER = r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"  # in a log

# How the first score of an item is judged: names, and from which score on they hold.
Grading = Sequence[tuple[str, float]]
CAPTIONS: Grading = (("good", 1.0), ("middling", 0.4), ("poor", -math.inf))  # by CIDEr
# by a score from 0 to 1
ANSWERS: Grading = (("right", 1.0), ("partly right", 1e-9), ("wrong", -math.inf))
GRADES = ("good", "middling", "poor")  # their colors


@dataclass(kw_only=True)
class Item(Shown):
    """One row of the page. ``image`` is the image column: base64 of an image file."""

    id: str
    row: int = 0
    scores: Sequence[float] = ()  # one per score name; none if there are no references
    group: str = ""  # what kind of row it is, where a page has several kinds


@dataclass
class Tile:
    """A figure in large type; the first tile is the one that matters."""

    name: str
    value: str
    note: str = ""


@dataclass
class Table:
    """Rows of cells under a head."""

    name: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False  # the last column holds words, not numbers
    note: str = ""  # a sentence under it
    counts: bool = False  # all but the first column are counts, shaded by their share of the row


@dataclass
class Curve:
    """A line through points (number of updates, value)."""

    name: str
    values: Sequence[tuple[float, float]]


@dataclass
class Histogram:
    """How many rows have a score from one edge to the next."""

    name: str
    edges: Sequence[float]  # one more than counts
    counts: Sequence[int]


@dataclass
class Report:
    """What a page shows, from top to bottom."""

    title: str
    subtitle: str
    scores: dict[str, float] = field(default_factory=dict)  # for readers of the JSON
    tiles: list[Tile] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)
    score_names: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    footer: str = ""
    grading: Grading | None = CAPTIONS  # None: scores are not judged
    wide: bool = False  # images are sheets of several
    images: str = "Images"  # heading above the items
    ranked_by: str = ""  # the score by which the worst items come first; "": the first one


def write_report(path: str | Path, report: Report) -> None:
    """Write the page in one step; a failure leaves no partial file."""
    cards = [_card(item, report) for item in report.items]
    graded = Counter(card["grade"] for card in cards)
    grades = [(key, name, graded[key]) for key, (name, _) in zip(GRADES, report.grading or ())]
    drawn = {kind for item in report.items for kind, _ in item.boxes}
    write_html(
        path,
        "report.html",
        report=report,
        curves=[_plot(curve) for curve in report.curves if len(curve.values) > 1],
        histograms=[_bars(histogram) for histogram in report.histograms],
        cards=cards,
        kinds=[kind for kind in OUTLINES if kind in drawn],
        grades=[(key, name, count) for key, name, count in reversed(grades) if count],
    )


def write_report_json(path: str | Path, report: Report) -> None:
    """Write the content of the page without its images."""
    content = asdict(report)
    for item in content["items"]:
        del item["image"]
    write_json(path, content)


def write_html(path: str | Path, template: str, **values: Any) -> None:
    """Write a page of this folder's templates in one step; texts in it cannot become markup."""
    environment = Environment(
        loader=PackageLoader("ofa.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template(template).render(**values)
    with replacing(path) as file:
        file.write(text)


def choose_rows(scores: Sequence[float], limit: int) -> list[int]:
    """Rows to show when there are too many: evenly spread from the worst to the best; those without
    a score (NaN) come first."""
    ranked = np.argsort(np.nan_to_num(scores, nan=-math.inf), kind="stable")
    places = np.linspace(0, len(ranked) - 1, min(limit, len(ranked)))
    return ranked[places.round().astype(int)].tolist()


def _card(item: Item, report: Report) -> dict[str, Any]:
    """An item with what the template cannot find out itself."""
    card: dict[str, Any] = {"item": item, "grade": "", "image": ""}
    if item.scores and report.grading:
        reached = [item.scores[0] >= least for _, least in report.grading]
        card["grade"] = GRADES[reached.index(True)]
    if item.image != "":
        with suppress(UserError):  # a page without an image is still a page
            data = decode_base64(item.image)
            largest = 2 * LARGEST if report.wide or len(report.items) <= FEW else LARGEST
            size, orientation = image_header(data)
            card["width"], card["height"] = size
            kind = SHOWN_AS_THEY_ARE.get(suffix_of(data) or "")
            if kind is not None and orientation == 1 and max(size) <= largest:
                card["image"] = f"data:image/{kind};base64,{encode_image(data)}"
            else:  # a browser would turn it
                card["image"] = data_url(open_image(data), largest)
    return card


def data_url(image: Image.Image, largest: int) -> str:
    """An image for ``<img src>``, reduced to ``largest`` pixels a side: photos as JPEG, small
    images pixel by pixel."""
    kind = "jpeg" if max(image.size) > LARGEST else "png"
    image = image.convert("RGB")
    image.thumbnail((largest, largest))
    return f"data:image/{kind};base64,{as_field(image, kind, quality=90)}"


def _plot(curve: Curve) -> dict[str, Any]:
    """Coordinates of a curve; its axis of values has the 0."""
    xs, ys = np.array(curve.values, dtype=float).T
    axes, x_px, y_px = _axes(curve.name, (xs.min(), xs.max()), (min(0.0, ys.min()), ys.max()))
    return {**axes, "points": list(zip(x_px(xs), y_px(ys))), "last_label": f"{ys[-1]:.2f}"}


def _bars(histogram: Histogram) -> dict[str, Any]:
    """Coordinates of the bars: left, top, width, height, and what they mean."""
    edges, counts = histogram.edges, histogram.counts
    axes, x_px, y_px = _axes(histogram.name, (edges[0], edges[-1]), (0, max(counts)))
    meanings = [
        f"{low:.3g} to {high:.3g}: {count}" for low, high, count in zip(edges, edges[1:], counts)
    ]
    lefts, tops = x_px(edges), y_px(counts)
    sizes = np.diff(lefts) - 2, y_px(0) - tops
    return {**axes, "bars": list(zip(lefts[:-1] + 1, tops, *sizes, meanings))}


Span = tuple[float, float]
Places = Callable[[Any], np.ndarray]  # values -> pixels


def _axes(
    name: str, x: Span, y: Span, width: int = 560, height: int = 230
) -> tuple[dict[str, Any], Places, Places]:
    """The axes of an SVG image of the given size, in which values from ``x[0]`` to ``x[1]`` and
    from about ``y[0]`` to ``y[1]`` are shown, and what places the values."""
    left, right, top, bottom = 44, width - 14, 20, height - 26
    x_ticks, y_ticks = _ticks(*x), _ticks(*y)
    x_ticks = x_ticks[(x_ticks >= x[0]) & (x_ticks <= x[1])]

    def x_px(values: Any) -> np.ndarray:
        return np.interp(values, x, (left, right)).round(1)

    def y_px(values: Any) -> np.ndarray:
        return np.interp(values, y_ticks[[0, -1]], (bottom, top)).round(1)

    axes = {
        "name": name,
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "x_ticks": [(place, f"{tick:g}") for place, tick in zip(x_px(x_ticks), x_ticks)],
        "y_ticks": [(place, f"{tick:g}") for place, tick in zip(y_px(y_ticks), y_ticks)],
    }
    return axes, x_px, y_px


def _ticks(low: float, high: float) -> np.ndarray:
    """About five round numbers, the first at most ``low``, the last at least ``high``."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * part for part in (0.2, 0.5, 1, 2) if span <= 5 * power * part)
    first, last = math.floor(low / step), math.ceil(high / step)
    return (np.arange(first, max(last, first + 1) + 1) * step).round(10)


# --- what a training wrote beside its checkpoints


def training_curves(log: str, spec: TaskSpec | None = None) -> list[Curve]:
    """Loss, the figures of whatever tasks were validated, and what each task of a pretraining
    learned, from a ``train.log`` of ``--log-format simple``.

    Args: spec: whose figures a name means that several tasks have.
    """
    from ofa.tasks import declared_specs

    titles = {
        figure.name: f"{figure.title or f'validation {figure.name}'} over updates"
        for one in (*declared_specs(), *filter(None, [spec]))
        for figure in one.metrics.figures
    }
    learned = {task: f"{task.replace('_', ' ')}: right tokens (%)" for task in TASKS}
    loss = series(log, "train_inner", rf"[ ,](nll_loss)={NUMBER}").get("nll_loss", [])
    validated = series(log, "| valid", rf"\| ({'|'.join(map(re.escape, titles))}) {NUMBER}")
    trained = series(log, "train_inner", rf"[ ,]({'|'.join(learned)})_acc={NUMBER}")
    per_update = "loss of an update: pairs, and auxiliary rows (nats)"
    return [
        Curve(per_update if trained else "loss per token (nats) over updates", loss),
        *(Curve(titles[name], values) for name, values in validated.items()),
        *(Curve(title, trained[task]) for task, title in learned.items() if task in trained),
    ]


def series(log: str, marker: str, pattern: str) -> dict[str, list[tuple[float, float]]]:
    """Figures by name, (update, value) each. A resumed run writes on into the same log; of updates
    that were done twice the later counts.

    Args: marker: what the lines have. pattern: of name and number.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for line in filter(lambda line: marker in line, log.splitlines()):
        update = re.search(rf"num_updates[\s=]+{NUMBER}", line)
        if update is None:
            continue
        for name, value in re.findall(pattern, line):
            points, step = found.setdefault(name, []), float(update[1])
            while points and points[-1][0] >= step:
                points.pop()
            points.append((step, float(value)))
    return found


def stage_times(path: str | Path, **more: float) -> Table:
    """A file of lines ``stage TAB seconds`` as a table, with their sum. Args: more: seconds of
    further stages."""
    rows, total = [], sum(more.values())
    lines = [line for line in read_lines(path) if "\t" in line]
    for number, line in enumerate(lines, 1):
        stage, seconds = line.split("\t", 1)
        try:
            total += read_decimal(seconds)
        except ValueError:
            raise UserError(
                f"{path}:{number}: expects 'stage TAB seconds', found {seconds[:60]!r}; correct the"
                " line"
            ) from None
        rows.append((stage, seconds))
    rows += [(stage, f"{seconds:.0f}") for stage, seconds in more.items()]
    rows.append(("together", f"{total:.0f}"))
    return Table("time per stage", ["stage", "seconds"], rows)
