"""What checkpoints are made of: tensors in containers of Python's own types, which the reader that
runs no code, ``torch.load(path, weights_only=True)``, opens anywhere; and safetensors files."""

import collections
import json
import os
import stat
from argparse import Namespace
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.checkpoint_files import METADATA_KEY
from ofa.io.json_files import load_json
from ofa.io.pickles import Name, Unfinished

NUMBERS_AND_TEXT: tuple[Any, ...] = (bool, int, float, complex, str, bytes, bytearray)
KEPT = (
    *(*NUMBERS_AND_TEXT, type(None), Tensor, torch.nn.Parameter),
    *(torch.Size, torch.dtype, torch.device),
)
SHARED = "shared"  # name -> the name under which its tensor is stored


def save(content: Any, path: str | Path) -> None:
    """``torch.save`` of ``to_builtins(content)``, whole or not at all. Raises: OSError."""
    with replacing(path, "wb") as file:
        torch.save(to_builtins(content), file)


def to_builtins(value: Any) -> Any:
    """The same content without classes of any program: settings objects become dicts of their
    fields, NumPy's arrays tensors. What is shared stays shared, tensors are not copied.

    Values are exactly those given, so that a resumed training is the same.
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
    if isinstance(value, (Name, Unfinished, Enum)):
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
    if isinstance(value, (Sequence, Set, collections.deque)):
        return (tuple if isinstance(value, tuple) else list)(map(convert, value))
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


# --- safetensors


def write_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Of names that share one table only the first. Raises: UserError if it cannot be written."""
    kept = {name: tensors[name].contiguous() for name in shared_names(tensors).values()}
    try:
        with open(path, "ab") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        save_file(kept, path, {"format": "pt", **(metadata or {})})
        # as of any new file: the library makes one that only its owner can read
        os.chmod(path, mode)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: expected to write a safetensors file, found {error}; free some space, or"
            " choose another --out"
        ) from error


def shared_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> the first name of the same table (itself, where no other comes before it)."""
    seen: dict[Any, str] = {}
    found = {}
    for name, tensor in tensors.items():
        place = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        found[name] = seen.setdefault(place if tensor.numel() else name, name)
    return found


def write_checkpoint(content: Mapping[str, Any], path: str | Path) -> None:
    """A checkpoint with tensors under ``model``; all else has to be plain data."""
    tensors = content["model"]
    shared = {name: first for name, first in shared_names(tensors).items() if name != first}
    settings = {name: value for name, value in content.items() if name != "model"}
    write_tensors(
        tensors, path, {METADATA_KEY: json.dumps({**settings, SHARED: shared}, default=vars)}
    )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What ``write_checkpoint`` was given, mapped; of a file from elsewhere the tensors alone.

    Raises: SafetensorError, ValueError, LookupError, TypeError or AttributeError if it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        content = load_json((file.metadata() or {}).get(METADATA_KEY, "{}"))
    for name, first in content.pop(SHARED, {}).items():
        tensors[name] = tensors[first]
    return {**content, "model": tensors}
