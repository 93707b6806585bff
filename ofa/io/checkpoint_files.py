"""How checkpoint files begin, for readers with torch and without it: an archive of torch 1.6 or
later, or the JSON header of safetensors; and whether there is one."""

import os
from pathlib import Path

from ofa.errors import UserError

ARCHIVE = b"PK\x03\x04"
METADATA_KEY = "ofa"  # of safetensors metadata; its value is JSON: all of a checkpoint but tensors
MAX_HEADER = 32_000_000  # bytes of a header that is read: some 200 000 tensors

BEST = ("checkpoint_best.pt", "checkpoint_last.pt")  # of a folder of a run, the better one first
CONVERT = "Models of Hugging Face and mmpretrain become checkpoints by: ofa convert --to ofa"


def is_safetensors(start: bytes) -> bool:
    """Whether a file begins so (9 bytes or more): the length of a JSON header, then the header."""
    length = int.from_bytes(start[:8], "little")
    return len(start) >= 9 and 1 < length <= MAX_HEADER and start[8:9] == b"{"


def check_checkpoint_file(path: str | Path) -> None:
    """Raises: UserError for a folder, or for no file."""
    if os.path.isdir(path):
        names = sorted(one.name for one in Path(path).glob("*.pt"))
        best = next((name for name in (*BEST, *names) if name in names), "")
        name_it = f"name the file in it: {Path(path) / best}" if best else f"name a file. {CONVERT}"
        raise UserError(f"{path}: expected a checkpoint file, found a directory; {name_it}")
    if not os.path.exists(path):
        raise UserError(f"{path}: expected a checkpoint, found no such file; check the path")
