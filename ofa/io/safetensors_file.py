"""Tensors in safetensors files: no pickle, no code, and nothing is read before it is used.

A table that several names share is written once; which names those are stands in the file's
metadata, beside the settings of a checkpoint, so that such a file is as good as a ``.pt`` to every
command here.
"""

import json
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ofa.errors import UserError
from ofa.io.json_files import load_json

KEY = "ofa"  # of the metadata; its value is JSON
SHARED = "shared"  # name -> the name under which its tensor is stored
MAX_HEADER = 100_000_000  # bytes, as in the format's own reader
MAX_TENSORS_HEADER = 32_000_000  # bytes of a header that is read: some 200 000 tensors


def is_safetensors(start: bytes) -> bool:
    """Whether a file that begins so (9 bytes or more) is one: the length of a JSON header, then
    the header."""
    return (
        len(start) >= 9
        and 1 < struct.unpack("<Q", start[:8])[0] <= MAX_HEADER
        and start[8:9] == b"{"
    )


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, mapped into memory as they are used, and its metadata.

    Raises: UserError if it is damaged or no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MAX_TENSORS_HEADER:
            raise ValueError(f"a header of {length} bytes, more than {MAX_TENSORS_HEADER}")
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(
                file.metadata() or {}
            )
    except FileNotFoundError:
        raise UserError(
            f"{path}: expected a safetensors file, found none; check the path"
        ) from None
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"{path}: expected a safetensors file, found a damaged or incomplete one "
            f"({str(error).strip().splitlines()[0]}); download or copy it again"
        ) from error


def write_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file; of names that share one table only the first. Raises: UserError if it cannot
    be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    kept = {
        name: tensors[name].contiguous() for name in dict.fromkeys(shared_names(tensors).values())
    }
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
    seen: dict[tuple, str] = {}
    return {
        name: (
            seen.setdefault((tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()), name)
            if tensor.numel()
            else name
        )
        for name, tensor in tensors.items()
    }


def write_checkpoint(content: Mapping[str, Any], path: str | Path) -> None:
    """A checkpoint as a safetensors file.

    Args: content: ``model`` with the tensors; all else has to be plain data.
    """
    shared = {
        name: first for name, first in shared_names(content["model"]).items() if name != first
    }
    settings = {name: value for name, value in content.items() if name != "model"}
    write_tensors(
        content["model"], path, {KEY: json.dumps({**settings, SHARED: shared}, default=vars)}
    )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What ``write_checkpoint`` was given; of a file from elsewhere the tensors alone, under
    ``model``.

    Raises: UserError if it is damaged.
    """
    tensors, metadata = read_tensors(path)
    try:
        content = load_json(metadata.get(KEY, "{}"))
        for name, first in content.pop(SHARED, {}).items():
            tensors[name] = tensors[first]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path}: expected settings of a checkpoint in the file's metadata, found others"
            f" ({error}); convert the file anew"
        ) from error
    return {**content, "model": tensors}
