"""What the content of a pickle becomes: placeholders for objects that are never made, and the table
of what may be called, by names that are not looked up anywhere else.
"""

import pathlib
import pickle
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from types import NoneType
from typing import Any

MAX_INTEGER_BITS = 64  # larger ones can be made to collide as keys, and take long to print
TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first value of files older than torch 1.6


class Placeholder:
    """Stands in a pickle's content for what is never made. ``value`` is what it becomes."""

    value: Any = None


class Name(Placeholder):
    """A class or function that a pickle names. It is never looked up."""

    def __init__(self, text: str):
        self.value = text


class Unfinished(Placeholder):
    """An object that gets its state later."""

    def build(self, state: Any) -> None:
        raise NotImplementedError


class Settings(Unfinished):
    """An object of a settings class. A node becomes its content, an enum its value, a path its
    text, a dataclass a dict of its fields."""

    def __init__(self, class_name: str, args: tuple):
        self.class_name, self.args, self.state = class_name, args, None
        self.items: dict[Any, Any] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def extend(self, items: Iterable[Any]) -> None:
        self.items.update(enumerate(items, len(self.items)))

    def build(self, state: Any) -> None:
        self.state = state[1] or state[0] if isinstance(state, tuple) and len(state) == 2 else state

    @property
    def value(self) -> Any:
        if isinstance(self.state, Mapping):
            return self.state.get("_content", self.state.get("_val", self.state))
        if self.items or not self.args:
            return self.items
        if self.class_name.startswith("pathlib"):
            return str(pathlib.PurePosixPath(*map(str, self.args)))
        return self.args[0] if len(self.args) == 1 else list(self.args)


def strict(make: Callable, *kinds: type | tuple) -> Callable:
    """``make``, for at most as many arguments as ``kinds``, each exactly of its kind."""

    def checked(*args: Any) -> Any:
        if len(args) > len(kinds) or not all(
            type(one) in (kind if isinstance(kind, tuple) else (kind,))
            for one, kind in zip(args, kinds)
        ):
            raise pickle.UnpicklingError(f"strange arguments of {make.__name__}")
        return make(*args)

    return checked


def _defaultdict(factory: Any = None, content: Any = ()) -> dict:
    """A plain dict: nobody asks a file for what it does not have."""
    return strict(dict, (dict, list, tuple))(content)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocols 0 to 2 write bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1", "utf-8"):
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return text.encode(encoding)


def small(value: Any) -> Any:
    """The value. Raises: UnpicklingError if it is an integer of many digits."""
    if type(value) is int and value.bit_length() > MAX_INTEGER_BITS and value != TORCH_MAGIC:
        raise pickle.UnpicklingError("an integer of more than 64 bits")
    return value


ITEMS = (list, tuple, set, frozenset, dict)
NUMBERS = (int, float, bool, str)
BYTES = strict(bytes, (bytes, list))
PLAIN: dict[str, Callable] = {  # what may be called: name -> function
    "collections.OrderedDict": strict(OrderedDict, (list, tuple, dict)),
    "collections.defaultdict": _defaultdict,
    "collections.Counter": strict(dict, dict),
    "collections.deque": strict(deque, ITEMS, (int, NoneType)),
    "builtins.int": lambda *args: small(strict(int, NUMBERS)(*args)),
    "builtins.float": strict(float, NUMBERS),
    "builtins.bool": strict(bool, NUMBERS),
    "builtins.complex": strict(complex, (int, float), (int, float)),
    "builtins.str": strict(str, NUMBERS),
    "builtins.bytes": BYTES,
    "builtins.bytearray": lambda content=b"", *encoding: bytearray(
        _encode(content, *encoding) if encoding else BYTES(content)
    ),
    "builtins.list": strict(list, ITEMS),
    "builtins.tuple": strict(tuple, (list, tuple)),
    "builtins.set": strict(set, ITEMS),
    "builtins.frozenset": strict(frozenset, ITEMS),
    "builtins.dict": strict(dict, (list, tuple, dict)),
    "builtins.range": strict(range, int, int, int),
    "builtins.slice": strict(slice, *[(int, NoneType)] * 3),
    "_codecs.encode": _encode,
}
