"""Bounds on data of others: how deep it is nested, and how often it repeats the same values."""

from argparse import Namespace
from collections import Counter, OrderedDict, deque
from collections.abc import Collection
from typing import Any

MAX_DEPTH = 100  # containers in containers; true files have about 10
MAX_SHARING = 10  # how many times more values a file may stand for than it spells out
FEW = 1_000_000  # values that are never too many
CONTAINERS = (list, tuple, dict, set, frozenset, OrderedDict, deque, Counter, Namespace)


def check_nesting(value: Any, spelled: int = 0) -> None:
    """Refuse what nobody could print, copy or walk through.

    Args: spelled: number of values (or bytes) that the file spells out.
    Raises: ValueError if containers contain themselves, or stand for far more values than that.
    """
    known: dict[int, tuple[int, int]] = {}  # id -> height, values
    most = MAX_SHARING * spelled + FEW

    def visit(node: Any, depth: int) -> tuple[int, int]:
        if id(node) in known:
            return known[id(node)]
        if depth > MAX_DEPTH:
            raise ValueError(
                f"containers that contain themselves, or are nested more than {MAX_DEPTH} deep"
            )
        items = _items(node)
        inner = [item for item in items if type(item) in CONTAINERS]
        height, size = 1, 1 + len(items)
        for item in inner:
            below, more = visit(item, depth + 1)
            height, size = max(height, below + 1), size + more
        if height > MAX_DEPTH:
            raise ValueError(f"containers that are nested more than {MAX_DEPTH} deep")
        if size > most:
            raise ValueError("containers that contain the same values again and again")
        if inner:
            known[id(node)] = height, size
        return height, size

    if type(value) in CONTAINERS:
        visit(value, 1)


def _items(node: Any) -> Collection[Any]:
    """The values of a container."""
    node = vars(node) if isinstance(node, Namespace) else node
    return node.values() if isinstance(node, dict) else node
