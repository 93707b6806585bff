"""What ``torch.save`` may be given: tensors in containers of Python's own types.

Such a file opens anywhere by ``torch.load(path, weights_only=True)``, the reader that runs no code.
"""

import argparse
import collections
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from pathlib import PurePath
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

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


def save(content: Any, file: IO[bytes]) -> None:
    """``torch.save`` of ``to_builtins(content)``. Raises: OSError or RuntimeError, as torch
    does."""
    torch.save(to_builtins(content), file)


def to_builtins(value: Any) -> Any:
    """The same content without classes of any program: settings objects become dicts of their
    fields.

    Args: value: of any depth. Tensors are not copied; NumPy arrays become tensors, their numbers
    Python's.
    Returns: tensors, dicts, lists, tuples, numbers and text. Values are exactly those given, so
        that a resumed training is the same.
    """
    if type(value) in KEPT:
        return value
    if isinstance(value, Enum):
        return to_builtins(value.value)
    if isinstance(value, np.ndarray):
        return (
            torch.from_numpy(value.copy())
            if value.dtype.kind in "biufc"
            else to_builtins(value.tolist())
        )
    if isinstance(value, np.generic):
        return to_builtins(value.item())
    if isinstance(value, argparse.Namespace):
        return to_builtins(vars(value))
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, PurePath):
        return str(value)
    for kind in NUMBERS_AND_TEXT:  # a subclass, as of str
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, tuple):
        return tuple(map(to_builtins, value))
    if isinstance(value, (Sequence, Set, collections.deque)):
        return [to_builtins(item) for item in value]
    if isinstance(value, Tensor):  # of another class: the plain one
        return value.as_subclass(Tensor)
    return to_builtins(vars(value)) if hasattr(value, "__dict__") else str(value)


def _mapping(value: Mapping) -> Mapping:
    """A dict; a state dict stays as it is, with the versions of its modules (``_metadata``)."""
    content = {to_builtins(key): to_builtins(item) for key, item in value.items()}
    same = all(
        new is old for pair in zip(content.items(), value.items()) for new, old in zip(*pair)
    )
    return value if same and type(value) in (dict, collections.OrderedDict) else content
