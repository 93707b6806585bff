"""Box columns of both kinds as numbers and back: ``x0,y0,x1,y1`` and
``x0,y0,x1,y1,category,name&&...``."""

from collections.abc import Callable, Iterable

from ofa.io.numbers import read_decimal
from ofa.task.text import JOIN

Box = tuple[float, ...]  # x0, y0, x1, y1


def boxes_of(cell: str, kind: str) -> list[Box] | None:
    """The boxes of a column; None if it is none. Args: kind: ``box`` or ``boxes``."""
    boxes: list[Box] = []
    for part in [cell] if kind == "box" else cell.split(JOIN):
        fields = part.split(",", 5)
        if len(fields) != (4 if kind == "box" else 6) or (kind != "box" and not fields[5].strip()):
            return None
        try:
            x0, y0, x1, y1 = map(read_decimal, fields[:4])
        except ValueError:
            return None
        boxes.append((x0, y0, x1, y1))
    return boxes


def shown_box(box: Iterable[float]) -> str:
    return ",".join(f"{number:g}" for number in box)


def turned(box: Box) -> bool:
    """Whether it has no area as it stands."""
    return box[0] >= box[2] or box[1] >= box[3]


def outside(box: Box, size: tuple[int, int], slack: float = 1.0) -> bool:
    """Whether it leaves the image by more than ``slack`` pixels."""
    width, height = size
    return min(box[:2]) < -slack or box[2] > width + slack or box[3] > height + slack


def upright(cell: str, kind: str) -> str:
    """The column with corners in order; boxes that are right stay as they are written."""
    if not any(map(turned, boxes_of(cell, kind) or ())):
        return cell
    return _changed(
        cell, kind, lambda box: (*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:]))
    )


def clipped(cell: str, kind: str, size: tuple[int, int]) -> str:
    """The column with boxes cut off at the border; objects wholly outside are left out."""

    def cut(box: Box) -> Box | None:
        inside = (max(box[0], 0.0), max(box[1], 0.0), *map(min, box[2:], map(float, size)))
        return None if turned(inside) else inside

    return _changed(cell, kind, cut)


def _changed(cell: str, kind: str, change: Callable[[Box], Box | None]) -> str:
    """The column with other boxes; an object whose box becomes None is left out."""
    kept = []
    for part, old in zip([cell] if kind == "box" else cell.split(JOIN), boxes_of(cell, kind) or ()):
        if box := change(old):
            kept.append(",".join([*(repr(round(x, 4)) for x in box), *part.split(",", 4)[4:]]))
    return JOIN.join(kept)
