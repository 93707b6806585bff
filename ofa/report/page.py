"""A page that shows how well a model does: one HTML file with everything in it, images
included."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.images import decode_base64, encode_image, image_header, open_image
from ofa.io.numbers import read_decimal
from ofa.io.text_files import read_lines

if TYPE_CHECKING:
    from ofa.task.task_spec import TaskSpec

# images below this side are enlarged with hard edges, so that their pixels stay visible
SMALL = 160
LARGEST = 360  # images above this side are reduced: a page of photos stays loadable
OUTLINES = ("predicted", "true", "asked about")  # kinds of boxes, each with a color of its own
GRADES = ("good", "middling", "poor")
# by every browser
SHOWN_AS_THEY_ARE = {b"\xff\xd8": "jpeg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif"}


@dataclass(frozen=True)
class Outline:
    """A box on an image. Args: kind: one of ``OUTLINES``; box: xyxy, pixels of the image."""

    kind: str
    box: Sequence[float]


@dataclass
class Item:
    """One image of the page.

    Args:
        image: the image column (base64 of an image file).
        prediction: what the model answered; of a box what it says about it, or nothing.
        references: accepted answers.
        scores: one number per score name; empty if there are no references.
        question: what was asked, if that differs from row to row.
        outlines: boxes to draw.
        group: what kind of row it is, where a page has several kinds.
    """

    row: int
    image_id: str
    image: str
    prediction: str
    references: Sequence[str] = ()
    scores: Sequence[float] = ()
    question: str = ""
    outlines: Sequence[Outline] = ()
    group: str = ""


@dataclass(frozen=True)
class Grading:
    """How the first score is judged. Args: good, middling: from which score on; names: of good,
    middling and poor."""

    good: float
    middling: float
    names: tuple[str, str, str]

    def __call__(self, score: float) -> str:
        return (
            GRADES[0] if score >= self.good else GRADES[1] if score >= self.middling else GRADES[2]
        )


CAPTIONS = Grading(1.0, 0.4, ("good", "middling", "poor"))  # by CIDEr
ANSWERS = Grading(1.0, 1e-9, ("right", "partly right", "wrong"))  # by a score from 0 to 1


@dataclass
class Tile:
    """A figure in large type; the first tile is the one that matters."""

    name: str
    value: str
    note: str = ""


@dataclass
class Table:
    """Args: words: the last column holds words, not numbers. note: a sentence under it."""

    name: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False
    note: str = ""


@dataclass
class Curve:
    """A line over the number of updates."""

    name: str
    values: Sequence[tuple[float, float]]
    from_zero: bool = False


@dataclass
class Report:
    """What a page shows, from top to bottom. Args: grading: None: scores are not judged. wide:
    images are sheets of several.
    images: heading above the items.
    """

    title: str
    subtitle: str
    tiles: list[Tile] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    score_names: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    footer: str = ""
    grading: Grading | None = CAPTIONS
    wide: bool = False
    images: str = "Images"


def write_report(path: str | Path, report: Report) -> None:
    """Write the page in one step; a failure leaves no partial file."""
    cards = [_card(item, report) for item in report.items]
    kinds = [
        kind
        for kind in OUTLINES
        if any(shape["kind"] == kind for card in cards for shape in card["shapes"])
    ]
    grades = [
        (grade, name, sum(card["grade"] == grade for card in cards))
        for grade, name in zip(GRADES, report.grading.names if report.grading else ())
    ]
    _write(
        path,
        "report.html",
        title=report.title,
        subtitle=report.subtitle,
        tiles=report.tiles,
        tables=report.tables,
        curves=[_plot(curve) for curve in report.curves if len(curve.values) > 1],
        score_names=report.score_names,
        items=cards,
        wide=report.wide,
        images=report.images,
        groups=list(dict.fromkeys(filter(None, (item.group for item in report.items)))),
        kinds=kinds,
        grades=[entry for entry in reversed(grades) if entry[2]],
        footer=report.footer,
    )


def merge_reports(path: str | Path, title: str, pages: Sequence[tuple[str, str]]) -> None:
    """Join pages in one file with a tab for each. Args: pages: name and HTML of each."""
    _write(
        path,
        "merged_reports.html",
        title=title,
        pages=[{"name": name, "html": html} for name, html in pages],
    )


def _write(path: str | Path, template: str, **values: object) -> None:
    environment = Environment(
        loader=PackageLoader("ofa.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template(template).render(**values)
    with replacing(path) as file:
        file.write(text)


def choose_rows(scores: Sequence[float], limit: int) -> list[int]:
    """Rows to show when there are too many: evenly spread from the worst to the best."""
    ranked = sorted(range(len(scores)), key=lambda row: scores[row])
    if len(ranked) <= limit:
        return ranked
    return [ranked[round(i * (len(ranked) - 1) / max(1, limit - 1))] for i in range(limit)]


# -------------------------------------------------------------------------------------------
# images


def _card(item: Item, report: Report) -> dict:
    """What the template shows of an item."""
    grade = report.grading(item.scores[0]) if item.scores and report.grading else ""
    badges = [
        {
            "name": name,
            "value": f"{value:.2f}",
            "style": f" lead {grade}" if i == 0 and grade else "",
        }
        for i, (name, value) in enumerate(zip(report.score_names, item.scores))
    ]
    image, size = (
        _data_uri(item.image, 2 * LARGEST if report.wide else LARGEST)
        if item.image != ""
        else ("", (1, 1))
    )
    small = max(size) < SMALL
    return {
        "row": item.row,
        "image_id": item.image_id,
        "question": item.question,
        "prediction": item.prediction,
        "references": item.references,
        "badges": badges,
        "sort_keys": ",".join(
            f"{value:.6f}" for value in item.scores or [-1.0] * len(report.score_names)
        ),
        "grade": grade,
        "image": image,
        "small": small,
        "size": size,
        "long": size[0] >= 2 * size[1],
        "shapes": [_shape(outline) for outline in item.outlines],
        "words": bool(item.prediction or not item.outlines),
        "group": item.group,
    }


def _shape(outline: Outline) -> dict:
    """A box as attributes of an SVG rectangle."""
    x0, y0, x1, y1 = (round(float(number), 2) for number in outline.box)
    return {
        "kind": outline.kind,
        "style": outline.kind.split()[0],
        "x": x0,
        "y": y0,
        "width": max(0.0, round(x1 - x0, 2)),
        "height": max(0.0, round(y1 - y0, 2)),
    }


def _data_uri(text: str, largest: int) -> tuple[str, tuple[int, int]]:
    """An image for ``<img src>`` as the model has seen it, reduced if it is large, and the size
    it had."""
    try:
        data = decode_base64(text)
        size, orientation = image_header(data)
        kind = next(
            (kind for start, kind in SHOWN_AS_THEY_ARE.items() if data.startswith(start)), ""
        )
        if (
            max(size) > largest or not kind or orientation != 1
        ):  # a browser would turn it, and its boxes not
            image = open_image(data)
            image.thumbnail((largest, largest))
            file = io.BytesIO()
            image.save(file, format="JPEG", quality=85)
            data, kind = file.getvalue(), "jpeg"
    except UserError:
        # the model has seen it, so this does not happen; a page without it is still a page
        return "", (1, 1)
    return f"data:image/{kind};base64,{encode_image(data)}", size


# ---------------------------------------------------------------------------------------------
# curves


def _plot(curve: Curve, width: int = 560, height: int = 230) -> dict:
    """Coordinates of a curve in an SVG image of the given size."""
    left, right, top, bottom = 44, width - 14, 20, height - 26
    xs, ys = zip(*curve.values)
    y_low, y_high, y_step = _nice_range(min(0.0, *ys) if curve.from_zero else min(ys), max(ys))
    x_low, x_high = min(xs), max(xs)

    def x_px(x: float) -> float:
        return round(left + (x - x_low) / ((x_high - x_low) or 1) * (right - left), 1)

    def y_px(y: float) -> float:
        return round(bottom - (y - y_low) / (y_high - y_low) * (bottom - top), 1)

    _, _, x_step = _nice_range(x_low, x_high)
    return {
        "name": curve.name,
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "points": " ".join(f"{x_px(x)},{y_px(y)}" for x, y in curve.values),
        "x_ticks": [
            (x_px(x), f"{x:g}") for x in _ticks(x_low, x_high, x_step) if x_low <= x <= x_high
        ],
        "y_ticks": [(y_px(y), f"{y:g}") for y in _ticks(y_low, y_high, y_step)],
        "last": (x_px(xs[-1]), y_px(ys[-1])),
        "last_label": f"{ys[-1]:.2f}",
    }


def _nice_range(low: float, high: float) -> tuple[float, float, float]:
    """Bounds and step of an axis with about five round marks."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** len(str(int(1 / span))) if span < 1 else 10.0 ** -(len(str(int(span))) - 1)
    step = next(s / power for s in (0.1, 0.2, 0.5, 1, 2, 5, 10) if span * power / s <= 5)
    bottom = step * (low // step)
    return bottom, max(bottom + step, step * -(-high // step)), step


def _ticks(low: float, high: float, step: float) -> list[float]:
    first = -(-low // step)
    return [
        round((first + i) * step, 10) for i in range(int((high - first * step) / step + 1e-6) + 1)
    ]


NUMBER = r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"


def training_curves(log: str, spec: "TaskSpec | None" = None) -> list[Curve]:
    """Loss and the figures of whatever tasks were validated, from a ``train.log`` of ``--log-format
    simple``.

    Args: spec: whose figures a name means that several tasks have.
    """
    from ofa.tasks import declared_specs

    specs = [*declared_specs(), *([spec] if spec else [])]
    titles = {
        figure.name: figure.title or f"validation {figure.name}"
        for one in specs
        for figure in one.metrics.figures
    }
    train = series(log, "train_inner", rf"[ ,](nll_loss)={NUMBER}")
    valid = series(log, "| valid", rf"\| ({'|'.join(map(re.escape, titles))}) {NUMBER}")
    return [
        Curve("loss per token (nats) over updates", train.get("nll_loss", []), from_zero=True),
        *(
            Curve(f"{titles[name]} over updates", found, from_zero=True)
            for name, found in valid.items()
        ),
    ]


def series(log: str, marker: str, pattern: str) -> dict[str, list[tuple[float, float]]]:
    """Figures by name, (update, value) each. A resumed run writes on into the same log; of updates
    that were done twice the later counts.

    Args: marker: what the lines have. pattern: of name and number.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for line in log.splitlines():
        update = re.search(rf"num_updates[\s=]+{NUMBER}", line) if marker in line else None
        if update is None:
            continue
        for name, value in re.findall(pattern, line):
            points, step = found.setdefault(name, []), float(update[1])
            while points and points[-1][0] >= step:
                points.pop()
            points.append((step, float(value)))
    return found


def stage_times(path: str | Path, *more: tuple[str, float]) -> Table:
    """A file of lines ``stage TAB seconds`` as a table, with their sum. Args: more: further
    stages."""
    lines = [line.split("\t") for line in read_lines(path) if "\t" in line]
    for number, (_, *seconds) in enumerate(lines, 1):
        try:
            (_,) = map(read_decimal, seconds)
        except ValueError:
            raise UserError(
                f"{path}:{number}: expects 'stage TAB seconds', found {str(seconds)[:60]}; correct"
                " the line"
            ) from None
    lines += [[name, f"{seconds:.0f}"] for name, seconds in more]
    return Table(
        "time per stage",
        ["stage", "seconds"],
        [*lines, ["together", f"{sum(float(seconds) for _, seconds in lines):.0f}"]],
    )
