"""Reading checkpoints as data: no class of the file is ever imported, no code of the file is ever run.

A checkpoint is a pickle, and a pickle may name any function to call. Here only tensors, containers and
``argparse.Namespace`` come to life; configuration objects (omegaconf, fairseq's dataclasses and enums, Lightning's callbacks)
become plain dicts and values; anything else is refused by name.
"""

import argparse
import builtins
import collections
import pathlib
import pickle
import struct
import types
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import IO, Any, Mapping, Union

import torch

from ofa import safetensors_file
from ofa.errors import UserError

HARMLESS = {
    module: set(names.split())
    for module, names in {
        "argparse": "Namespace",
        "collections": "OrderedDict defaultdict Counter deque",
        "builtins": "dict list tuple set frozenset int float bool str bytes bytearray complex "
        "slice range object",
        "copyreg": "_reconstructor",
        "_codecs": "encode",
        "torch": "Size device Tensor dtype float16 float32 float64 bfloat16 uint8 "
        "int8 int16 int32 int64 bool",
        "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_parameter",
        "torch.nn.parameter": "Parameter",
        "torch.serialization": "_get_layout",
        "numpy": "dtype ndarray float64 float32 int64 int32 bool_",
        "numpy.core.multiarray": "scalar _reconstruct",
        "numpy._core.multiarray": "scalar _reconstruct",
    }.items()
}
# Classes that only carry settings. Their objects become plain data, the classes are not imported.
SETTINGS = set(
    "omegaconf hydra fairseq ofa ofa_module enum typing pathlib utils tasks criterions models data pytorch_lightning".split()
)
ARCHIVE = b"PK\x03\x04"  # how files of torch 1.6 and later begin
STORAGES = {name for name in dir(torch) if name.endswith("Storage")} | {"UntypedStorage", "TypedStorage"}


class Settings:
    """Stands for an object of a settings class while a file is read; ``plain`` turns it into data."""

    class_name = "settings"

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self.args, self.state, self.items = args, None, {}
        return self

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __setstate__(self, state) -> None:
        self.state = state[1] or state[0] if isinstance(state, tuple) and len(state) == 2 else state

    def __setitem__(self, key, value) -> None:
        self.items[key] = value

    def __hash__(self) -> int:
        return id(self)


def load_checkpoint(
    path: Union[str, pathlib.Path], trust: bool = False, mapped: bool = False
) -> dict[str, Any]:
    """Read a ``.pt`` file, or a safetensors file, onto the CPU.

    Args:
        trust: unpickle without restrictions - this runs whatever code the file contains.
        mapped: tensors stay in the file and come into memory as they are used (in safetensors files they always do).
    Raises: UserError if the file is missing, damaged, or names a class that is not plain data.
    """
    path = str(path)
    try:
        with open(path, "rb") as file:
            start = file.read(9)
            file.seek(0)
            if safetensors_file.is_safetensors(start):
                return safetensors_file.read_checkpoint(path)
            if trust:
                return torch.load(file, map_location="cpu", weights_only=False)
            check_archive(path, file)
            mapped = mapped and start.startswith(ARCHIVE)
            content = torch.load(
                path if mapped else file,
                map_location="cpu",
                weights_only=False,
                pickle_module=restricted_pickle(path),
                mmap=mapped,
            )
    except FileNotFoundError:
        raise UserError(f"{path}: expected a checkpoint, found no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(
            f"{path}: expected a checkpoint file, found a directory; name the .pt file in it"
        ) from None
    except UserError:
        raise
    except (
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        MemoryError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: expected a checkpoint, found a damaged or incomplete file ({reason}); "
            "download or copy it again, or use an older checkpoint of the run"
        ) from error
    return plain(content)


def check_archive(path: str, file: IO[bytes]) -> None:
    """What ``torch.load`` leaves unchecked: that every byte is as it was written, and that it is no program.

    TorchScript would go to its own interpreter, whatever the pickle module is. Files older than torch 1.6 are no
    archives and have no check sums.
    """
    start = file.read(len(ARCHIVE))
    file.seek(0)
    if start != ARCHIVE:
        return
    if "constants.pkl" in torch._C.PyTorchFileReader(path).get_all_records():
        raise UserError(
            f"{path}: expected tensors and settings only, found a TorchScript program; "
            "use the checkpoint that it was made from"
        )
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"{damaged} has not the bytes that were written")
    file.seek(0)


def restricted_pickle(path: str) -> types.SimpleNamespace:
    """What ``torch.load`` takes in place of the pickle module."""

    def refuse(what: str):
        raise UserError(
            f"{path}: expected tensors and settings only, found {what}, "
            "which could run code; get the file from its authors, or, if you trust them, make a plain one of it: "
            f"ofa checkpoint strip --trust-checkpoint {path} --out FILE"
        )

    class Unpickler(pickle._Unpickler):  # the one in Python, so that BUILD can be watched as well
        dispatch = dict(pickle._Unpickler.dispatch)

        def __init__(self, file, **kwargs):
            def readline() -> bytes:
                line = file.readline()
                if not line.endswith(b"\n"):
                    raise EOFError("ends in the middle of a line")
                return line

            super().__init__(types.SimpleNamespace(read=file.read, readline=readline), **kwargs)

        def load_build(self) -> None:
            """BUILD sets attributes: of objects, but in a forged file also of classes and functions in use."""
            if callable(self.stack[-2]):
                refuse(f"changes of {getattr(self.stack[-2], '__qualname__', self.stack[-2])}")
            super().load_build()

        dispatch[pickle.BUILD[0]] = load_build

        def find_class(self, module: str, name: str) -> Any:
            # torch writes Python 2's names (__builtin__.long, copy_reg, ...), which the protocol asks for
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            if name in HARMLESS.get(module, ()) or (
                module in ("torch", "torch.storage") and name in STORAGES
            ):
                return super().find_class(module, name)
            if module.partition(".")[0] in SETTINGS and not hasattr(builtins, name):
                return type(name, (Settings,), {"class_name": f"{module}.{name}"})
            refuse(f"the class {module}.{name}")

    def load(file, **kwargs):
        return Unpickler(file, **kwargs).load()

    return types.SimpleNamespace(Unpickler=Unpickler, load=load, __name__="restricted_pickle")


def plain(value: Any) -> Any:
    """Settings objects as dicts and values, at any depth; everything else as it is."""
    if isinstance(value, Settings):
        return plain_settings(value)
    if isinstance(value, type) and issubclass(value, Settings):
        return value.class_name
    if isinstance(value, argparse.Namespace):
        return argparse.Namespace(**{key: plain(item) for key, item in vars(value).items()})
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, collections.OrderedDict) and all(
        isinstance(item, torch.Tensor) for item in value.values()
    ):
        return value  # a state dict, with its metadata
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(plain(item) for item in value)
    return value


def plain_settings(value: Settings) -> Any:
    """A node gives its content, an enum its value, a path its text, a dataclass a dict of its fields."""
    state = value.state
    if isinstance(state, Mapping):
        if "_content" in state:
            return plain(state["_content"])
        if "_val" in state:
            return plain(state["_val"])
        return {key: plain(item) for key, item in state.items()}
    if value.items:
        return plain(value.items)
    if value.class_name.startswith("pathlib"):
        return str(pathlib.PurePosixPath(*value.args))
    return plain(value.args[0]) if len(value.args) == 1 else [plain(item) for item in value.args]


def official_state_dict(checkpoint: Mapping[str, Any], ema: bool = False) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint (or of a bare state dict).

    Args: ema: the moving average instead of the last step's.
    Raises: UserError if there are none of that kind.
    """
    state = checkpoint.get("model", checkpoint)
    if ema:
        extra = checkpoint.get("extra_state") or {}
        if not extra.get("ema") and not extra.get("ema_fp32_params"):
            raise UserError(
                "the checkpoint has no EMA weights (extra_state.ema); evaluate without --ema-eval, "
                "or train with --store-ema"
            )
        state = {**state, **(extra.get("ema") or {}), **(extra.get("ema_fp32_params") or {})}
    weights = {
        key.removeprefix("module."): value for key, value in state.items() if isinstance(value, torch.Tensor)
    }
    light = "light_tuning" in checkpoint  # some weights only: of the decoder alone, perhaps
    if not any(key.startswith(("encoder.", "decoder.", "classification_heads.") if light else "encoder.") for key in weights):
        raise UserError(
            "the checkpoint holds no OFA model: expected tensors named encoder.* under 'model', found "
            + (", ".join(list(map(str, state))[:5]) or "nothing")
        )
    return weights


def arguments(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Task and model options a checkpoint was trained with, whichever way it stores them.

    Old files hold a Namespace ``args``; newer ones ``cfg`` with ``task`` and ``model``, dicts or Namespaces.
    """
    found: dict[str, Any] = {}
    config = checkpoint.get("cfg") or {}
    for part in (checkpoint.get("args"), config.get("common"), config.get("task"), config.get("model")):
        if part is not None:
            found.update(part if isinstance(part, Mapping) else vars(part))
    name = found.pop("_name", None)
    if found.get("arch") is None and name:
        found["arch"] = name
    return found
