"""What the names in a checkpoint's pickle stand for: tensors and arrays, of checked sizes."""

import math
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ofa.io.pickle_values import PLAIN, Unfinished, strict

# What a file may name besides what it may call; the name becomes a text, or one of these.
MENTIONED = {f"numpy.{name}" for name in "ndarray float64 float32 int64 int32 bool_".split()} | {
    "builtins.object",
    "copyreg._reconstructor",
    "torch.Tensor",
    "torch.dtype",
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
    """A type of numpy's: of numbers only, since arrays of others hold addresses.

    Args: code: such as ``f8``.
    """

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


def _scalar(kind: Any, data: Any) -> Any:
    return _array(data, kind, (1,))[0]


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
    **PLAIN,
    "torch.Size": strict(torch.Size, (tuple, list)),
    "torch.device": strict(torch.device, str, int),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.serialization._get_layout": lambda *_: torch.strided,
    "numpy.dtype": NumpyType,
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": NumpyArray for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array for core in ("core", "_core")},
}
