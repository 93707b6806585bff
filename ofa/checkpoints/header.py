"""What a checkpoint says of itself without torch: its options and the shapes of its tensors, for
checks that come before torch is imported.

A file of torch 1.6 or later is an archive whose first record describes the tensors in the others; a
safetensors file begins with JSON. Older files tell nothing here.
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from ofa.checkpoints.options import options_of
from ofa.errors import UserError, reason_of
from ofa.io.checkpoint_files import ARCHIVE, MAX_HEADER, METADATA_KEY, is_safetensors
from ofa.io.json_files import load_json
from ofa.io.pickles import DAMAGED, Name, Settings, Unfinished, Unpickler

TOKEN_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


@dataclass(frozen=True)
class Header:
    """Args: options: of its training, in one dict. shapes: of its weights, under their names."""

    options: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def table(self) -> tuple[int, ...] | None:
        """Entries and width of its table of tokens; None where it is not told."""
        found = [self.shapes[name] for name in TOKEN_TABLES if len(self.shapes.get(name, ())) == 2]
        return found[0] if found else None


def read_header(path: str | Path) -> Header:
    """Raises: UserError if the file is none that ``torch.save`` or safetensors wrote."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        if start.startswith(ARCHIVE):
            return _of_archive(path)
        if is_safetensors(start):
            return _of_safetensors(path)
    except UserError:
        raise
    except (*DAMAGED, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: expected a checkpoint, found a damaged or incomplete file"
            f" ({reason_of(error)}); copy it again, or use an older checkpoint of the run"
        ) from None
    if not start.startswith(b"\x80"):
        found = "an empty file" if not start else "a file of another kind"
        raise UserError(f"{path}: expected a checkpoint, found {found}; check the path")
    return Header()


def _of_archive(path: str | Path) -> Header:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if not names:
            raise UserError(
                f"{path}: expected a checkpoint, found an archive of other files; name the .pt file"
            )
        if archive.getinfo(names[0]).file_size > MAX_HEADER:
            return Header()
        content = DescriptionUnpickler(BytesIO(archive.read(names[0]))).load()
    if not isinstance(content, Mapping):
        return Header()
    weights = content.get("model") or content.get("state_dict") or content
    items = weights.items() if isinstance(weights, Mapping) else ()
    shapes = {name: value.shape for name, value in items if isinstance(value, Described)}
    return Header(_plain(options_of(_plain(content))), shapes)


def _of_safetensors(path: str | Path) -> Header:
    with open(path, "rb") as file:
        described = load_json(file.read(int.from_bytes(file.read(8), "little")))
    content = load_json((described.pop("__metadata__", None) or {}).get(METADATA_KEY, "{}"))
    shapes = {name: tuple(one["shape"]) for name, one in described.items()}
    return Header(options_of(content), shapes)


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Without objects that were never made, at the top and one level below."""
    found = {}
    for name, value in content.items():
        value = value.value if isinstance(value, Settings) else value
        if isinstance(value, dict):
            value = {
                key: one.value if isinstance(one, Unfinished) else one for key, one in value.items()
            }
        found[name] = value
    return found


class Described(Unfinished):
    """A tensor that is not made: its shape."""

    def __init__(self, *args: Any):
        shape = args[2] if len(args) > 2 and type(args[2]) is tuple else ()
        self.shape: tuple[int, ...] = shape
        self.value = None

    def build(self, state: Any) -> None:
        pass


class DescriptionUnpickler(Unpickler):
    """Reads what describes the tensors. Nothing is imported or called: a tensor becomes its shape,
    any other object what it holds."""

    def look_up(self, name: str) -> Any:
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return Name(name, Described)
        if name in ("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"):
            return Name(name, lambda data, *_: data)
        if name == "torch.Size":
            return Name(name, lambda shape: tuple(shape))
        try:
            return super().look_up(name)
        except pickle.UnpicklingError:
            return Name(name, lambda *args: Settings(name, args))

    def persistent_load(self, reference: Any) -> None:
        """The storage of a tensor, which lies in another record."""
