"""Tensors in safetensors files: no pickle, no code, and nothing is read before it is used.

A table that several names share is written once; which names those are stands in the file's
metadata, beside the settings of a checkpoint, so that such a file is as good as a ``.pt`` to every
command here.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ofa.errors import UserError
from ofa.io.json_files import load_json

KEY = "ofa"  # of the metadata; its value is JSON
SHARED = "shared"  # name -> the name under which its tensor is stored
MAX_HEADER = 32_000_000  # bytes of a header that is read: some 200 000 tensors


def is_safetensors(start: bytes) -> bool:
    """Whether a file that begins so (9 bytes or more) is one: the length of a JSON header, then
    the header."""
    length = int.from_bytes(start[:8], "little")
    return len(start) >= 9 and 1 < length <= MAX_HEADER and start[8:9] == b"{"


def write_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file; of names that share one table only the first. Raises: UserError if it cannot
    be written."""
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
    """A checkpoint as a safetensors file.

    Args: content: ``model`` with the tensors; all else has to be plain data.
    """
    tensors = content["model"]
    shared = {name: first for name, first in shared_names(tensors).items() if name != first}
    settings = {name: value for name, value in content.items() if name != "model"}
    write_tensors(tensors, path, {KEY: json.dumps({**settings, SHARED: shared}, default=vars)})


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What ``write_checkpoint`` was given; of a file from elsewhere the tensors alone, under
    ``model``. They are mapped into memory as they are used.

    Raises: SafetensorError, ValueError, LookupError, TypeError or AttributeError if it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        content = load_json((file.metadata() or {}).get(KEY, "{}"))
    for name, first in content.pop(SHARED, {}).items():
        tensors[name] = tensors[first]
    return {**content, "model": tensors}
