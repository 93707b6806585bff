"""Reading checkpoints as data: no class of the file is ever imported, no code of the file is ever
run.

A checkpoint is a pickle, and a pickle may name any function to call. ``ofa.io.pickles`` reads it:
only tensors, containers and ``argparse.Namespace`` come to life; configuration objects (omegaconf,
fairseq's dataclasses and enums, Lightning's callbacks) become plain dicts and values; anything else
is refused by name. ``torch.load`` does the rest: it maps or reads the storages.
"""

import argparse
import builtins
import pathlib
import pickle
import tarfile
import types
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import IO, Any, Union

import torch

from ofa.errors import UserError
from ofa.io import safetensors_file
from ofa.io.nesting import MAX_DEPTH, check_nesting
from ofa.io.pickle_opcodes import Name, Settings
from ofa.io.pickle_tensors import CALLS, CONSTANTS, MENTIONED, NumpyArray, NumpyType, check_storage
from ofa.io.pickles import DAMAGED, Unpickler
from ofa.io.stored_options import MEMBERS

ARCHIVE = b"PK\x03\x04"  # how files of torch 1.6 and later begin
FILE_HEADER = 30  # bytes before the name of a record in an archive
STORAGES = {name for name in dir(torch) if name.endswith("Storage")} | {
    "UntypedStorage",
    "TypedStorage",
}
# Classes that only carry settings. Their objects become plain data, the classes are not imported.
SETTINGS = set(
    "omegaconf hydra fairseq ofa ofa_module enum typing pathlib utils tasks criterions models data"
    " pytorch_lightning".split()
)


# --- files
# --------------------------------------------------------------------------------------------------


def load_checkpoint(
    path: Union[str, pathlib.Path], trust: bool = False, mapped: bool = False
) -> dict[str, Any]:
    """Read a ``.pt`` file, or a safetensors file, onto the CPU.

    Args:
        trust: unpickle without restrictions - this runs whatever code the file contains.
        mapped: tensors stay in the file and come into memory as they are used (in safetensors files
            they always do).
    Raises: UserError if the file is missing, damaged, or names a class that is not plain data.
    """
    path = str(path)
    try:
        with open(path, "rb") as file:
            start = file.read(9)
            file.seek(0)
            if safetensors_file.is_safetensors(start):
                content = safetensors_file.read_checkpoint(path)
                check_kinds(content)
                return content
            if trust:
                return torch.load(file, map_location="cpu", weights_only=False)
            sizes = record_sizes(path, file) if start.startswith(ARCHIVE) else None
            if sizes is None:
                refuse_tar(path, file)
            mapped = mapped and sizes is not None
            content = torch.load(
                path if mapped else file,
                map_location="cpu",
                weights_only=False,
                pickle_module=restricted_pickle(path, sizes),
                mmap=mapped,
            )
            content = to_builtins(content)
            check_nesting(content, file.seek(0, 2))
            check_kinds(content)
            return content
    except FileNotFoundError:
        raise UserError(
            f"{path}: expected a checkpoint, found no such file; check the path"
        ) from None
    except IsADirectoryError:
        raise UserError(
            f"{path}: expected a checkpoint file, found a directory; name the .pt file in it"
        ) from None
    except UserError:
        raise
    except (*DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        reason = (
            str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        )
        raise UserError(
            f"{path}: expected a checkpoint, found a damaged or incomplete file ({reason}); "
            "download or copy it again, or use an older checkpoint of the run"
        ) from error


def check_kinds(content: Any) -> None:
    """Refuse a checkpoint whose parts are not what everybody takes them for. Raises: ValueError."""
    groups = (Mapping, argparse.Namespace, type(None))
    parts: dict[str, Any] = {
        "model": Mapping,
        "state_dict": Mapping,
        "extra_state": Mapping,
        "task_state": Mapping,
        "cfg": Mapping,
        "meta": Mapping,
        "light_tuning": Mapping,
        "optimizer_history": (list, tuple),
        "args": groups,
    }
    if not isinstance(content, Mapping):
        raise ValueError(f"{type(content).__name__} instead of a dict")
    for name, kind in parts.items():
        if not isinstance(content.get(name), (kind, type(None))):
            raise ValueError(f"'{name}' is {type(content[name]).__name__}")
    for name in ("model", "state_dict"):
        odd = next((key for key in content.get(name) or () if not isinstance(key, str)), None)
        if odd is not None:
            raise ValueError(f"'{name}' has an entry whose name is {type(odd).__name__}")
    if not all(isinstance(entry, Mapping) for entry in content.get("optimizer_history") or ()):
        raise ValueError("'optimizer_history' has an entry that is no dict")
    for part, name in (
        ("extra_state", "ema"),
        ("extra_state", "ema_fp32_params"),
        ("meta", "model"),
        ("task_state", MEMBERS),
    ):
        if not isinstance((content.get(part) or {}).get(name), (Mapping, type(None))):
            raise ValueError(f"'{part}.{name}' is {type(content[part][name]).__name__}")
    for options in ((content.get("task_state") or {}).get(MEMBERS) or {}).values():
        if not isinstance(options, Mapping):
            raise ValueError(f"'task_state.{MEMBERS}' has an entry that is no dict")
        check_names(f"task_state.{MEMBERS}", options)
    for name in ("task", "model", "common"):
        group = (content.get("cfg") or {}).get(name)
        if not isinstance(group, groups):
            raise ValueError(f"'cfg.{name}' is {type(group).__name__}")
        check_names(f"cfg.{name}", group)
    check_names("args", content.get("args"))


def check_names(place: str, group: Any) -> None:
    """Raises: ValueError if what names a task or an architecture is no text."""
    values = group if isinstance(group, Mapping) else vars(group) if group else {}
    for name in ("_name", "task", "arch"):
        if not isinstance(values.get(name), (str, type(None))):
            raise ValueError(f"'{place}.{name}' is {type(values[name]).__name__}")


def record_sizes(path: str, file: IO[bytes]) -> dict[str, int]:
    """Name in the archive -> bytes. Checks what ``torch.load`` does not: that every byte is as it
    was written, that the archive is as large as it says (records neither compressed nor shared),
    and that it is no program.

    TorchScript would go to its own interpreter, whatever the pickle module is.
    """
    with zipfile.ZipFile(file) as archive:
        refuse_torchscript(path, [name.partition("/")[2] for name in archive.namelist()])
        records = sorted(archive.infolist(), key=lambda record: record.header_offset)
        end, sizes = 0, {}
        for record in records:
            if (
                record.compress_type != zipfile.ZIP_STORED
                or record.compress_size != record.file_size
            ):
                raise zipfile.BadZipFile(f"{record.filename[:80]} is compressed")
            if record.header_offset < end:
                raise zipfile.BadZipFile(f"{record.filename[:80]} lies inside of another record")
            end = record.header_offset + FILE_HEADER + len(record.filename) + record.file_size
            sizes[record.filename.partition("/")[2]] = record.file_size
        # torch's view of the same archive
        refuse_torchscript(path, torch._C.PyTorchFileReader(path).get_all_records())
        damaged = archive.testzip()
    if damaged or len(sizes) < len(records):
        raise zipfile.BadZipFile(
            f"{damaged} has not the bytes that were written"
            if damaged
            else "a record is there twice"
        )
    file.seek(0)
    return sizes


def refuse_torchscript(path: str, records: Iterable[str]) -> None:
    if "constants.pkl" in records:
        raise UserError(
            f"{path}: expected tensors and settings only, found a TorchScript program; "
            "use the checkpoint that it was made from"
        )


def refuse_tar(path: str, file: IO[bytes]) -> None:
    """Files older than torch 1.6 are no archives and have no check sums. Those of torch 0.1 are,
    which torch unpacks to the disk."""
    try:
        with tarfile.open(fileobj=file, mode="r:"):
            raise UserError(
                f"{path}: expected a checkpoint, found a tar archive; save it again by torch 0.4 or"
                " later"
            )
    except tarfile.TarError:
        file.seek(0)


def restricted_pickle(path: str, sizes: Mapping[str, int] | None = None) -> types.SimpleNamespace:
    """What ``torch.load`` takes in place of the pickle module. Args: sizes: of the archive's
    records, of an archive."""

    claimed: dict[str, int] = {}  # bytes of each storage

    class CheckpointUnpickler(Unpickler):
        calls = CALLS

        def refuse(self, what: str) -> Any:
            raise UserError(
                f"{path}: expected tensors and settings only, found {what}, which could run code;"
                " get the file from its authors, or, if you trust them, make a plain one of it:"
                f" ofa checkpoint strip --trust-checkpoint {path} --out FILE"
            )

        def find_class(self, module: str, name: str) -> Any:
            text = f"{module}.{name}"
            if text in CONSTANTS:
                return CONSTANTS[text]
            if (
                text in CALLS
                or text in MENTIONED
                or module in ("torch", "torch.storage")
                and name in STORAGES
            ):
                return Name(text)
            if is_settings(text):
                return Name(text)
            return self.refuse(f"the class {text[:200]}")

        def construct(self, name: Name, args: tuple) -> Any:
            if name.text == "copyreg._reconstructor":  # how protocols 0 and 1 write objects
                kind, _, state = args
                return self.call(kind, () if state is None else (state,))
            if is_settings(name.text):
                return Settings(name.text, args)
            return super().construct(name, args)

        def build(self, value: Any, state: Any) -> None:
            if isinstance(value, (NumpyType, NumpyArray)):
                value.build(state)
            elif (
                type(value) is argparse.Namespace
                and type(state) is dict
                and all(type(key) is str for key in state)
            ):
                vars(value).update(state)
            else:
                super().build(value, state)

        def resolve(self, reference: Any) -> Any:
            key, size = check_storage(reference, sizes, self.end)
            claimed[key] = size
            if sizes is None and sum(claimed.values()) > self.end:
                raise pickle.UnpicklingError("storages of more bytes than the file has")
            return self.persistent_load(reference)  # torch's

    def load(file: Any, **options: Any) -> Any:
        return CheckpointUnpickler(file, **options).load()

    return types.SimpleNamespace(
        Unpickler=CheckpointUnpickler, load=load, __name__="restricted_pickle"
    )


def is_settings(text: str) -> bool:
    """Whether a class is of those that only carry settings."""
    return text.partition(".")[0] in SETTINGS and not hasattr(builtins, text.rpartition(".")[2])


# --- settings become data
# -----------------------------------------------------------------------------------------------


def to_builtins(value: Any) -> Any:
    """Settings objects as dicts and values, at any depth; everything else as it is. What is shared
    stays shared.

    Raises: ValueError if it contains itself or is nested too deeply.
    """
    known: dict[int, Any] = {}

    def convert(item: Any, depth: int) -> Any:
        if isinstance(item, Name):
            return item.text
        if isinstance(item, (NumpyType, NumpyArray)):
            return item.value
        if not isinstance(
            item, (Settings, argparse.Namespace, Mapping, list, tuple, set)
        ) or isinstance(item, torch.Size):
            return item
        if id(item) not in known:
            if depth > MAX_DEPTH:
                raise ValueError(
                    f"values that contain themselves, or are nested more than {MAX_DEPTH} deep"
                )
            known[id(item)] = converted(item, lambda inner: convert(inner, depth + 1))
        return known[id(item)]

    return convert(value, 1)


def converted(value: Any, convert: Any) -> Any:
    """One container or object of settings, its content by ``convert``."""
    if isinstance(value, Settings):
        return settings_to_builtins(value, convert)
    if isinstance(value, argparse.Namespace):
        return argparse.Namespace(**{key: convert(item) for key, item in vars(value).items()})
    if isinstance(value, OrderedDict) and all(
        isinstance(item, torch.Tensor) for item in value.values()
    ):
        return value  # a state dict, with its metadata
    if isinstance(value, Mapping):
        return {convert(key): convert(item) for key, item in value.items()}
    return type(value)(convert(item) for item in value)


def settings_to_builtins(value: Settings, convert: Any) -> Any:
    """A node gives its content, an enum its value, a path its text, a dataclass a dict of its
    fields."""
    state = value.state
    if isinstance(state, Mapping):
        if "_content" in state:
            return convert(state["_content"])
        if "_val" in state:
            return convert(state["_val"])
        return {key: convert(item) for key, item in state.items()}
    if value.items:
        return convert(value.items)
    if value.class_name.startswith("pathlib"):
        return str(pathlib.PurePosixPath(*map(str, value.args)))
    return (
        convert(value.args[0]) if len(value.args) == 1 else [convert(item) for item in value.args]
    )
