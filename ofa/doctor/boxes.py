"""Box columns of both kinds as numbers and back: ``x0,y0,x1,y1`` and
``x0,y0,x1,y1,category,name&&...``."""

from ofa.io.numbers import read_decimal
from ofa.task.text import JOIN

Box = tuple[float, float, float, float]


def boxes_of(cell: str, kind: str) -> list[Box] | None:
    """The boxes of a column; None if it is none. Args: kind: ``box`` or ``boxes``."""
    parts = [cell] if kind == "box" else cell.split(JOIN)
    boxes = []
    for part in parts:
        fields = part.split(",", 5)
        if len(fields) != (4 if kind == "box" else 6) or (kind != "box" and not fields[5].strip()):
            return None
        try:
            x0, y0, x1, y1 = map(read_decimal, fields[:4])
        except ValueError:
            return None
        boxes.append((x0, y0, x1, y1))
    return boxes


def with_boxes(cell: str, kind: str, boxes: list[Box | None]) -> str:
    """The column with other boxes; an object whose box is None is left out."""
    parts = [cell] if kind == "box" else cell.split(JOIN)
    kept = []
    for part, box in zip(parts, boxes):
        if box is not None:
            rest = part.split(",", 4)[4:]
            kept.append(",".join([*(repr(round(number, 4)) for number in box), *rest]))
    return JOIN.join(kept)


def turned(box: Box) -> bool:
    """Whether it has no area as it stands."""
    return box[0] >= box[2] or box[1] >= box[3]


def upright(cell: str, kind: str) -> str:
    """The column with corners in order; boxes that are right stay as they are written."""
    boxes = boxes_of(cell, kind) or []
    if not any(map(turned, boxes)):
        return cell
    return with_boxes(
        cell,
        kind,
        [(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)) for x0, y0, x1, y1 in boxes],
    )


def outside(box: Box, size: tuple[int, int], slack: float = 1.0) -> bool:
    """Whether it leaves the image by more than ``slack`` pixels."""
    width, height = size
    return box[0] < -slack or box[1] < -slack or box[2] > width + slack or box[3] > height + slack


def clipped(cell: str, kind: str, size: tuple[int, int]) -> str:
    """The column with boxes cut off at the border; objects wholly outside are left out."""
    width, height = size
    cut = [
        (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        for x0, y0, x1, y1 in boxes_of(cell, kind) or []
    ]
    return with_boxes(cell, kind, [None if turned(box) else box for box in cut])
