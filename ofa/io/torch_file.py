"""What checkpoints are made of: tensors in containers of Python's own types.

A file that ``save`` writes opens anywhere by ``torch.load(path, weights_only=True)``, the reader
that runs no code.
"""

import collections
from argparse import Namespace
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa.io.atomic import replacing
from ofa.io.pickles import Name, Unfinished

NUMBERS_AND_TEXT: tuple[Any, ...] = (bool, int, float, complex, str, bytes, bytearray)
KEPT = (
    *NUMBERS_AND_TEXT,
    type(None),
    Tensor,
    torch.nn.Parameter,
    torch.Size,
    torch.dtype,
    torch.device,
)


def save(content: Any, path: str | Path) -> None:
    """``torch.save`` of ``to_builtins(content)``; the file appears whole or not at all.

    Raises: OSError if it cannot be written.
    """
    with replacing(path, "wb") as file:
        torch.save(to_builtins(content), file)


def to_builtins(value: Any) -> Any:
    """The same content without classes of any program: settings objects become dicts of their
    fields, NumPy's arrays tensors. What is shared stays shared, tensors are not copied.

    Returns: tensors, dicts, lists, tuples, numbers and text. Values are exactly those given, so
        that a resumed training is the same.
    Raises: ValueError if it contains itself or is nested too deeply.
    """
    known: dict[int, tuple[Any, Any]] = {}  # id -> value (which keeps its id), what it became

    def convert(item: Any) -> Any:
        if type(item) in KEPT:
            return item
        if id(item) not in known:
            known[id(item)] = item, _converted(item, convert)
        return known[id(item)][1]

    try:
        return convert(value)
    except RecursionError:
        raise ValueError("containers that contain themselves, or are nested too deeply") from None


def _converted(value: Any, convert: Any) -> Any:
    """One value that is no builtin, its parts by ``convert``."""
    if isinstance(value, (Name, Unfinished)):
        return convert(value.value)
    if isinstance(value, Enum):
        return convert(value.value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            return convert(value.tolist())
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    if isinstance(value, np.generic):
        return convert(value.item())
    if isinstance(value, Namespace):
        return convert(vars(value))
    if isinstance(value, Mapping):
        return _mapping(value, convert)
    if isinstance(value, PurePath):
        return str(value)
    for kind in NUMBERS_AND_TEXT:  # a subclass, as of str
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, tuple):
        return tuple(map(convert, value))
    if isinstance(value, (Sequence, Set, collections.deque)):
        return [convert(item) for item in value]
    if isinstance(value, Tensor):  # of another class: the plain one
        return value.as_subclass(Tensor)
    return convert(vars(value)) if hasattr(value, "__dict__") else str(value)


def _mapping(value: Mapping, convert: Any) -> Mapping:
    """A dict; a state dict stays as it is, with the versions of its modules (``_metadata``)."""
    content = {convert(key): convert(item) for key, item in value.items()}
    same = all(
        new is old for pair in zip(content.items(), value.items()) for new, old in zip(*pair)
    )
    return value if same and type(value) in (dict, collections.OrderedDict) else content
