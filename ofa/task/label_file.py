"""Label files such as ``trainval_ans2label.pkl``: ``{text: number}``, as pickle or JSON."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.json_files import read_json
from ofa.io.pickles import read_plain_pickle

EXPECTED = "a label file {text: number}"


def read_label_file(path: str | Path) -> dict[str, int]:
    """The texts and their numbers. JSON is recognized by its first character; a pickle runs no
    code. Raises: UserError if the file is missing, damaged or holds anything else."""
    try:
        with open(path, "rb") as file:
            start = file.read(1)
    except OSError as error:
        raise UserError(
            f"{path}: expected {EXPECTED}, it cannot be read ({error.strerror}); check the path"
        ) from None
    read = read_json if start in (b"{", b"[") else read_plain_pickle
    content = read(path, EXPECTED)
    labels = content.items() if isinstance(content, dict) else ()
    if not labels or not all(isinstance(a, str) and isinstance(b, int) for a, b in labels):
        raise UserError(
            f"{path}: expected {EXPECTED}, found another {type(content).__name__}; is it the file?"
        )
    return content


def write_label_file(path: str | Path, texts: Sequence[str]) -> None:
    """Number the texts from 0 and write them: a pickle if the name ends so, else JSON."""
    labels = {text: number for number, text in enumerate(texts)}
    as_pickle = Path(path).suffix in (".pkl", ".p")
    with replacing(path, "wb") as file:
        if as_pickle:
            pickle.dump(labels, file)
        else:
            file.write(json.dumps(labels, ensure_ascii=False).encode())
