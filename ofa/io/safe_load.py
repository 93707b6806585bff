"""Reading checkpoints as data: no class of the file is imported, no code of the file is run.

``ofa.io.pickles`` reads the pickle: only tensors and containers come to life; configuration objects
(of argparse, omegaconf, fairseq, Lightning) become plain dicts and values; anything else is refused
by name. ``torch.load`` maps or reads the storages.
"""

import argparse
import builtins
import math
import pickle
import re
import tarfile
import types
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError

from ofa.errors import UserError, reason_of
from ofa.io import tensor_files
from ofa.io.checkpoint_files import ARCHIVE, check_checkpoint_file, is_safetensors
from ofa.io.nesting import check_nesting
from ofa.io.pickles import DAMAGED, Name, Settings, Unfinished, Unpickler, strict
from ofa.io.stored_options import MEMBERS

FILE_HEADER = 30  # bytes before the name of a record in an archive
# Classes that only carry settings. Their objects become plain data, the classes are not imported.
SETTINGS = set(
    "omegaconf hydra fairseq ofa ofa_module enum typing pathlib utils tasks criterions models data"
    " pytorch_lightning".split()
)


def load_checkpoint(path: str | Path, trust: bool = False, mapped: bool = False) -> dict[str, Any]:
    """Read a ``.pt`` file, or a safetensors file, onto the CPU.

    Args: trust: unpickle without restrictions - this runs whatever code the file contains. mapped:
    tensors come into memory as they are used (those of safetensors files always do).
    Raises: UserError if the file is missing, damaged, or names a class that is not plain data.
    """
    path = str(path)
    check_checkpoint_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(9)
            file.seek(0)
            if is_safetensors(start):
                content = tensor_files.read_checkpoint(path)
            elif trust:
                return torch.load(file, map_location="cpu", weights_only=False)
            else:
                content = load_torch(path, file, start.startswith(ARCHIVE), mapped)
        check_kinds(content)
        if isinstance(content.get("args"), dict):
            content["args"] = argparse.Namespace(**content["args"])
        return content
    except UserError:
        raise
    except (*DAMAGED, SafetensorError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: expected a checkpoint, found a damaged or incomplete file"
            f" ({reason_of(error, 300)}); download or copy it again, or use an older checkpoint"
            " of the run"
        ) from error


def load_torch(path: str, file: IO[bytes], is_archive: bool, mapped: bool) -> Any:
    """The content of a file that ``torch.save`` wrote, as builtins. Args: file: of that path."""
    if is_archive:
        sizes = record_sizes(path, file)
    else:
        sizes, mapped = None, False
        refuse_tar(path, file)
    content = torch.load(
        path if mapped else file,
        map_location="cpu",
        weights_only=False,
        pickle_module=restricted_pickle(path, sizes),
        mmap=mapped,
    )
    content = tensor_files.to_builtins(content)
    check_nesting(content, file.seek(0, 2))
    return content


# Part of a checkpoint (``*``: all that are there) -> what everybody takes it for, if it is there.
KINDS: dict[str, Any] = {
    "optimizer_history": (list, tuple),
    **dict.fromkeys(("model", "state_dict", "extra_state", "task_state", "cfg"), Mapping),
    **dict.fromkeys(("extra_state.ema", "extra_state.ema_fp32_params"), Mapping),
    **dict.fromkeys(("meta", "meta.model", "light_tuning", "optimizer_history.*"), Mapping),
    f"task_state.{MEMBERS}": Mapping,
}
for _group in ("args", "cfg.task", "cfg.model", "cfg.common", f"task_state.{MEMBERS}.*"):
    KINDS |= {_group: Mapping, f"{_group}._name": str, f"{_group}.task": str, f"{_group}.arch": str}


def check_kinds(content: Any) -> None:
    """Refuse a checkpoint whose parts are not what everybody takes them for. Raises: ValueError."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{type(content).__name__} instead of a dict")
    for place, kind in KINDS.items():
        for part in parts_at(content, place):
            if not isinstance(part, kind) and (part is not None or place.endswith("*")):
                raise ValueError(f"'{place}' is {type(part).__name__}")
    for name in ("model", "state_dict"):
        for key in content.get(name) or ():
            if not isinstance(key, str):
                raise ValueError(f"'{name}' has an entry whose name is {type(key).__name__}")


def parts_at(content: Any, place: str) -> list[Any]:
    """The parts that a place of ``KINDS`` names; None for a missing one."""
    parts = [content]
    for name in place.split("."):
        there = [part for part in parts if part is not None]
        if name == "*":
            items = (part.values() if isinstance(part, Mapping) else part for part in there)
            parts = list(chain.from_iterable(items))
        else:
            parts = [part.get(name) for part in there]
    return parts


def record_sizes(path: str, file: IO[bytes]) -> dict[str, int]:
    """Name in the archive -> bytes. Checks what ``torch.load`` does not: that every byte is as it
    was written, that the archive is as large as it says (records neither compressed nor shared),
    and that it is no TorchScript, which would go to its own interpreter.
    """
    with zipfile.ZipFile(file) as archive:
        refuse_torchscript(path, archive.namelist())
        records = sorted(archive.infolist(), key=lambda record: record.header_offset)
        end, sizes = 0, {}
        for record in records:
            if record.compress_type or record.compress_size != record.file_size:
                raise zipfile.BadZipFile(f"{record.filename[:80]} is compressed")
            if record.header_offset < end:
                raise zipfile.BadZipFile(f"{record.filename[:80]} lies inside of another record")
            end = record.header_offset + FILE_HEADER + len(record.filename) + record.file_size
            sizes[record.filename.partition("/")[2]] = record.file_size
        # torch's view of the same archive
        refuse_torchscript(path, torch._C.PyTorchFileReader(path).get_all_records())
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"{damaged} has not the bytes that were written")
    if len(sizes) < len(records):
        raise zipfile.BadZipFile("a record is there twice")
    file.seek(0)
    return sizes


def refuse_torchscript(path: str, records: Iterable[str]) -> None:
    if any(record.rpartition("/")[2] == "constants.pkl" for record in records):
        raise UserError(
            f"{path}: expected tensors and settings only, found a TorchScript program; "
            "use the checkpoint that it was made from"
        )


def refuse_tar(path: str, file: IO[bytes]) -> None:
    """Files of torch 0.4 to 1.5 are no archives; those of 0.1 are, and torch unpacks them."""
    try:
        with tarfile.open(fileobj=file, mode="r:"):
            raise UserError(
                f"{path}: expected a checkpoint, found a tar archive; save it again by torch 0.4 or"
                " later"
            )
    except tarfile.TarError:
        file.seek(0)


def restricted_pickle(path: str, sizes: Mapping[str, int] | None = None) -> types.SimpleNamespace:
    """For ``torch.load``, in place of the pickle module. Args: sizes: of an archive's records."""

    claimed: dict[str, int] = {}  # bytes of each storage

    class CheckpointUnpickler(Unpickler):
        def refuse(self, what: str) -> Any:
            raise UserError(
                f"{path}: expected tensors and settings only, found {what}, which could run code;"
                " get the file from its authors, or, if you trust them, make a plain one of it:"
                f" ofa checkpoint strip --trust-checkpoint {path} --out FILE"
            )

        def look_up(self, name: str) -> Any:
            if name in CONSTANTS:
                return CONSTANTS[name]
            if name == "copyreg._reconstructor":  # how protocols 0 and 1 write objects
                return Name(name, self.reconstruct)
            package, last = name.partition(".")[0], name.rpartition(".")[2]
            if name == "argparse.Namespace" or package in SETTINGS and not hasattr(builtins, last):
                return Name(name, lambda *args: Settings(name, args))
            if name in CALLS or name in MENTIONED:
                return Name(name, CALLS.get(name))
            return super().look_up(name)

        def reconstruct(self, kind: Any, _: Any, state: Any) -> Any:
            return self.call(kind, () if state is None else (state,))

        def load_storage(self) -> None:
            key, size = check_storage(self.stack[-1], sizes, self.end)
            claimed[key] = size
            if sizes is None and sum(claimed.values()) > self.end:
                raise pickle.UnpicklingError("storages of more bytes than the file has")
            self.load_binpersid()  # by torch's persistent_load

        dispatch = Unpickler.dispatch | {pickle.BINPERSID[0]: load_storage}

    return types.SimpleNamespace(
        Unpickler=CheckpointUnpickler,
        load=lambda file, **options: CheckpointUnpickler(file, **options).load(),
        __name__="restricted_pickle",
    )


# --- what the names of tensors and arrays stand for: of checked sizes

# What a file may name besides what it may call; the name becomes a text, or one of the constants.
MENTIONED = {"builtins.object", "torch.Tensor", "torch.dtype"} | {
    *(f"numpy.{name}" for name in "ndarray float64 float32 int64 int32 bool_".split()),
    *(
        f"{module}.{name}"
        for module in ("torch", "torch.storage")
        for name in (*dir(torch), "TypedStorage", "UntypedStorage")
        if name.endswith("Storage")
    ),
}
CONSTANTS = {
    f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)
} | {"torch.storage.UntypedStorage": torch.UntypedStorage}
EXPANDED = 1 << 20  # elements of a tensor that may repeat those of its storage


def _tensor(*args: Any) -> torch.Tensor:
    """``torch._utils._rebuild_tensor`` and ``_v2``: a view of a storage, inside of it."""
    storage, offset, size, stride, requires_grad = (*args, False)[:5]
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if (
        len(args) < 4
        or not isinstance(storage, torch.storage.TypedStorage)
        or not all(type(one) is int and one >= 0 for one in numbers)
    ):
        raise pickle.UnpicklingError("a tensor of strange sizes")
    room, count = storage._untyped_storage.nbytes() // storage._element_size(), math.prod(size)
    last = offset + sum((one - 1) * step for one, step in zip(size, stride, strict=True))
    if count and (last >= room or count > max(room, EXPANDED)):
        raise pickle.UnpicklingError(f"a tensor of {count} elements in {room}")
    tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)
    return tensor.requires_grad_() if requires_grad is True else tensor


def _parameter(data: Any, requires_grad: Any = True, *_: Any) -> torch.Tensor:
    if not isinstance(data, torch.Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return torch.nn.Parameter(data.detach(), requires_grad is True)


class NumpyType(Unfinished):
    """A type of numpy's, as ``f8``: of numbers only, since arrays of others hold addresses."""

    def __init__(self, code: Any, *_: Any):
        if type(code) is not str or not re.fullmatch(r"[<>=|]?([biufc]\d{1,2}|\?)", code):
            raise pickle.UnpicklingError("an array of something else than numbers")
        self.value = np.dtype(code)

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("numbers in an unknown order of bytes")
        self.value = self.value.newbyteorder(state[1])


class NumpyArray(Unfinished):
    """An array before it gets its content."""

    def __init__(self, *_: Any):
        pass

    def build(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        self.value = _array(data, kind, shape, "F" if by_columns else "C")


def _array(data: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if (
        not isinstance(kind, NumpyType)
        or type(data) not in (bytes, bytearray)
        or order not in ("C", "F")
    ):
        raise pickle.UnpicklingError("an array without its numbers")
    return np.frombuffer(data, kind.value).reshape(shape, order=order).copy()


def check_storage(reference: Any, sizes: Mapping[str, int] | None, whole: int) -> tuple[str, int]:
    """Key and bytes of a storage: ``("storage", type, key, device, elements[, view])``.

    Args: sizes: of the records of an archive. whole: bytes of the file, if it is no archive.
    Raises: UnpicklingError if it claims more bytes than the file has for it.
    """
    if type(reference) is not tuple or not 5 <= len(reference) <= 6 or reference[0] != "storage":
        raise pickle.UnpicklingError("a reference to something else than a storage")
    _, kind, key, device, count, *view = reference
    part = view[0][1:] if view and type(view[0]) is tuple and len(view[0]) == 3 else ()
    numbers = [count, *part]
    if (
        type(key) is not str
        or type(device) is not str
        or not all(type(one) is int and one >= 0 for one in numbers)
    ):
        raise pickle.UnpicklingError("a storage of strange sizes")
    itemsize = 1 if kind is torch.UntypedStorage else torch._utils._element_size(kind.dtype)
    room = whole if sizes is None else sizes[f"data/{key}"]
    if max(numbers) * itemsize > room:
        raise pickle.UnpicklingError(f"a storage of {count * itemsize} bytes in {room}")
    return key, count * itemsize


CALLS: dict[str, Callable[..., Any]] = {
    "torch.Size": strict(torch.Size, (tuple, list)),
    "torch.device": strict(torch.device, str, int),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.serialization._get_layout": lambda *_: torch.strided,
    "numpy.dtype": NumpyType,
}
for _core in ("numpy.core", "numpy._core"):  # of numpy 1 and 2
    CALLS |= {
        f"{_core}.multiarray.scalar": lambda kind, data: _array(data, kind, (1,))[0],
        f"{_core}.multiarray._reconstruct": NumpyArray,
        f"{_core}.numeric._frombuffer": _array,
    }
