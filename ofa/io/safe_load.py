"""Reading checkpoints as data: no class of the file is ever imported, no code of the file is ever
run.

A checkpoint is a pickle, and a pickle may name any function to call. ``ofa.io.pickles`` reads it:
only tensors and containers come to life; configuration objects (``argparse.Namespace``, omegaconf,
fairseq's dataclasses and enums, Lightning's callbacks) become plain dicts and values; anything else
is refused by name. ``torch.load`` does the rest: it maps or reads the storages.
"""

import argparse
import builtins
import pickle
import tarfile
import types
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError

from ofa.errors import UserError
from ofa.io import safetensors_file
from ofa.io.nesting import check_nesting
from ofa.io.pickle_tensors import CALLS, CONSTANTS, MENTIONED, check_storage
from ofa.io.pickle_values import Name, Settings
from ofa.io.pickles import DAMAGED, Unpickler
from ofa.io.stored_options import MEMBERS
from ofa.io.torch_file import to_builtins

CONVERT = "Models of Hugging Face and mmpretrain become checkpoints by: ofa convert --to ofa"
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


def load_checkpoint(path: str | Path, trust: bool = False, mapped: bool = False) -> dict[str, Any]:
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
            elif trust:
                return torch.load(file, map_location="cpu", weights_only=False)
            else:
                content = load_torch(path, file, start.startswith(ARCHIVE), mapped)
        check_kinds(content)
        if isinstance(content.get("args"), dict):
            content["args"] = argparse.Namespace(**content["args"])
        return content
    except FileNotFoundError:
        raise UserError(
            f"{path}: expected a checkpoint, found no such file; check the path"
        ) from None
    except IsADirectoryError:
        raise UserError(
            f"{path}: expected a checkpoint file, found a directory; name the .pt file in it."
            f" {CONVERT}"
        ) from None
    except UserError:
        raise
    except (*DAMAGED, SafetensorError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: expected a checkpoint, found a damaged or incomplete file"
            f" ({reason[0][:300]}); "
            "download or copy it again, or use an older checkpoint of the run"
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
    content = to_builtins(content)
    check_nesting(content, file.seek(0, 2))
    return content


# Part of a checkpoint -> what everybody takes it for, if it is there.
KINDS: dict[str, Any] = {
    "model": Mapping,
    "state_dict": Mapping,
    "extra_state": Mapping,
    "extra_state.ema": Mapping,
    "extra_state.ema_fp32_params": Mapping,
    "task_state": Mapping,
    f"task_state.{MEMBERS}": Mapping,
    "cfg": Mapping,
    "meta": Mapping,
    "meta.model": Mapping,
    "light_tuning": Mapping,
    "optimizer_history": (list, tuple),
}
for _group in ("args", "cfg.task", "cfg.model", "cfg.common"):
    KINDS |= {_group: Mapping, f"{_group}._name": str, f"{_group}.task": str, f"{_group}.arch": str}


def check_kinds(content: Any) -> None:
    """Refuse a checkpoint whose parts are not what everybody takes them for. Raises: ValueError."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{type(content).__name__} instead of a dict")
    for place, kind in KINDS.items():
        part: Any = content
        for name in place.split("."):
            part = (part or {}).get(name)
        if not isinstance(part, (kind, type(None))):
            raise ValueError(f"'{place}' is {type(part).__name__}")
    for name in ("model", "state_dict"):
        odd = next((key for key in content.get(name) or () if not isinstance(key, str)), None)
        if odd is not None:
            raise ValueError(f"'{name}' has an entry whose name is {type(odd).__name__}")
    members = (content.get("task_state") or {}).get(MEMBERS) or {}
    for place, entries in (
        ("optimizer_history", content.get("optimizer_history") or ()),
        (f"task_state.{MEMBERS}", members.values()),
    ):
        if not all(isinstance(entry, Mapping) for entry in entries):
            raise ValueError(f"'{place}' has an entry that is no dict")
    for options in members.values():
        for name in ("_name", "task", "arch"):
            if not isinstance(options.get(name), (str, type(None))):
                raise ValueError(f"'task_state.{MEMBERS}.{name}' is {type(options[name]).__name__}")


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

        def look_up(self, name: str) -> Any:
            if name in CONSTANTS:
                return CONSTANTS[name]
            if name in MENTIONED or is_storage(name) or is_settings(name):
                return Name(name)
            return super().look_up(name)

        def construct(self, name: str, args: tuple) -> Any:
            if name == "copyreg._reconstructor":  # how protocols 0 and 1 write objects
                kind, _, state = args
                return self.call(kind, () if state is None else (state,))
            return Settings(name, args) if is_settings(name) else super().construct(name, args)

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


def is_storage(text: str) -> bool:
    module, _, name = text.rpartition(".")
    return module in ("torch", "torch.storage") and name in STORAGES


def is_settings(text: str) -> bool:
    """Whether a class is of those that only carry settings."""
    module, name = text.partition(".")[0], text.rpartition(".")[2]
    return text == "argparse.Namespace" or module in SETTINGS and not hasattr(builtins, name)
