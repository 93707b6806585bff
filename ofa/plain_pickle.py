"""Pickles of containers, texts and numbers, read without ever running code of the file.

A pickle may name any function to call; here nothing can be named but the plain types below.
"""

import pickle
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

from ofa.errors import UserError

PLAIN = {
    ("collections", "defaultdict"): defaultdict,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (int, float, str, bytes, bool, complex, list, dict, tuple, set, frozenset)
    },
    ("__builtin__", "unicode"): str,
    ("__builtin__", "long"): int,
}


class PlainUnpickler(pickle.Unpickler):
    """Builds plain data only."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which could run code")
        return PLAIN[module, name]


def read_plain_pickle(path: str | Path, expected: str) -> Any:
    """Content of a pickle of plain data.

    Texts of Python 2 pickles are read as UTF-8 and, where they are none, as Latin-1.
    Args: expected: what the file should be, for messages.
    Raises: UserError if it is missing, damaged, or names a class or function.
    """
    try:
        with open(path, "rb") as file:
            try:
                return PlainUnpickler(file, encoding="utf-8").load()
            except UnicodeDecodeError:
                file.seek(0)
                return PlainUnpickler(file, encoding="latin-1").load()
    except OSError as error:
        raise UserError(f"{path}: expected {expected}, it cannot be read ({error.strerror}); check the path") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"{path}: expected {expected}, found something else ({error}); is it the right file, "
                        "and is the download complete?") from None
