"""Pickles read as data: nothing is imported or called, and the cost follows the file's size.

The stack machine is Python's own in its Python form, with other handlers for all that names, calls
or changes something. ``torch.load(weights_only=True)`` knows protocol 2 alone, and classes by their
full names; and 200 kB of nested tuples as a key end it by SIGSEGV (torch 2.11).
"""

import io
import mmap
import os
import pickle
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import NoneType
from typing import Any

from ofa.io.nesting import FEW, MAX_DEPTH, MAX_SHARING, check_nesting

MAX_KEY = 10_000  # values in a key, those that occur twice counted twice
# Keys of a file whose hash follows from their value: 30 000 made to collide keep a set busy for 40
# s. The hash of a text is another one in every process, and few small numbers share theirs.
MAX_FORESEEN = 2_000
UNFORESEEN = (str, bytes, int, float, bool, NoneType)
MAX_INTEGER_BITS = 64  # larger ones can be made to collide as keys, and take long to print
TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first value of files older than torch 1.6
DAMAGED = (  # what a damaged file of pickles, tensors or an archive raises
    *(OSError, EOFError, MemoryError, RuntimeError, ValueError, TypeError, LookupError),
    *(AttributeError, ArithmeticError, AssertionError, pickle.UnpicklingError, struct.error),
)

# --- what the content of a pickle becomes ---------------------------------------------------------


@dataclass(eq=False)
class Name:
    """What a pickle names, which is never looked up. Args: call: what a call of it does."""

    value: str
    call: Callable[..., Any] | None = None


class Unfinished:
    """An object that is never made, and gets its state later. ``value`` is what it becomes."""

    value: Any = None

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

    def append(self, item: Any) -> None:
        self.items[len(self.items)] = item

    def build(self, state: Any) -> None:
        self.state = state[1] or state[0] if isinstance(state, tuple) and len(state) == 2 else state

    @property
    def value(self) -> Any:
        if isinstance(self.state, Mapping):
            return self.state.get("_content", self.state.get("_val", self.state))
        if self.items or not self.args:
            return self.items
        if self.class_name.startswith("pathlib"):
            return str(PurePosixPath(*map(str, self.args)))
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


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocols 0 to 2 write bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1", "utf-8"):
        raise pickle.UnpicklingError("text in another encoding than Latin-1 and UTF-8")
    return text.encode(encoding)


def _small(value: Any) -> Any:
    """The value. Raises: UnpicklingError if it is an integer of many digits."""
    if type(value) is int and value.bit_length() > MAX_INTEGER_BITS and value != TORCH_MAGIC:
        raise pickle.UnpicklingError("an integer of more than 64 bits")
    return value


ITEMS = (list, tuple, set, frozenset, dict)
NUMBERS = (int, float, bool, str)
BYTES, DICT = strict(bytes, (bytes, list)), strict(dict, (list, tuple, dict))
PLAIN: dict[str, Callable] = {  # what may be called: name -> function
    "collections.OrderedDict": strict(OrderedDict, (list, tuple, dict)),
    # nobody asks a file for what it does not have
    "collections.defaultdict": lambda factory=None, content=(): DICT(content),
    "collections.Counter": strict(dict, dict),
    "collections.deque": strict(deque, ITEMS, (int, NoneType)),
    "builtins.int": lambda *args: _small(strict(int, NUMBERS)(*args)),
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
    "builtins.dict": DICT,
    "builtins.range": strict(range, int, int, int),
    "builtins.slice": strict(slice, *[(int, NoneType)] * 3),
    "_codecs.encode": _encode,
}
SETS = ("builtins.set", "builtins.frozenset")
DICTS = ("builtins.dict", "collections.OrderedDict", "collections.defaultdict")

# --- the machine ----------------------------------------------------------------------------------


# Opcodes that large files have by the million: the layout of the number that follows, and its use.
FAST = {
    opcode[0]: (struct.Struct(layout), use)
    for use, opcodes in {
        "float": {pickle.BINFLOAT: ">d"},
        "integer": {pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H"},
        "text": {pickle.BINUNICODE: "<I", pickle.SHORT_BINUNICODE: "<B", pickle.BINUNICODE8: "<Q"},
        "put": {pickle.BINPUT: "<B", pickle.LONG_BINPUT: "<I"},
        "get": {pickle.BINGET: "<B", pickle.LONG_BINGET: "<I"},
    }.items()
    for opcode, layout in opcodes.items()
}
STOP = pickle.STOP[0]
MAPPINGS, LISTS = (dict, Settings), (list, deque, Settings)
# Opcodes that put items into a container -> how many items are on the stack (0: all since a mark),
# what may take them (None: it is made of them), and from one key to the next (0: none are keys).
CONTAINERS: dict[bytes, tuple[int, Any, int]] = {
    pickle.DICT: (0, None, 2),
    pickle.SETITEM: (2, MAPPINGS, 2),
    pickle.SETITEMS: (0, MAPPINGS, 2),
    pickle.FROZENSET: (0, None, 1),
    pickle.ADDITEMS: (0, set, 1),
    pickle.APPEND: (1, LISTS, 0),
    pickle.APPENDS: (0, LISTS, 0),
}
PythonUnpickler: Any = pickle._Unpickler


class Unpickler(PythonUnpickler):
    """The machine. Its interface is that of ``pickle.Unpickler`` as far as ``torch.load`` uses it.

    Args: encoding: of texts that Python 2 wrote.
    Raises: any of ``DAMAGED``.
    """

    data: Any  # bytes, or a mapped file
    stack: list[Any]
    metastack: list[list[Any]]

    def __init__(self, file: Any, encoding: str = "utf-8", **_: Any):
        super().__init__(file, encoding=encoding)
        self.file = file
        self.copied = self.foreseen = 0

    def load(self) -> Any:
        self.metastack, self.stack = [], []
        self.append = self.stack.append
        self.position = self.file.tell()
        if isinstance(self.file, io.BytesIO):
            self.data = self.file.getvalue()
        else:
            if not os.fstat(self.file.fileno()).st_size:
                raise EOFError("it is empty")
            self.data = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        self.end = len(self.data)
        value = self.run()
        self.file.seek(self.position)
        return value

    def run(self) -> Any:
        """Follow the opcodes up to STOP. Returns: the value."""
        data, end, memo, handlers = self.data, self.end, self.memo, self.dispatch
        push, place = self.append, self.position
        while place < end:
            opcode = data[place]
            place += 1
            if opcode in FAST:
                layout, use = FAST[opcode]
                number = layout.unpack_from(data, place)[0]
                place += layout.size
                if use == "get":
                    push(memo[number])
                elif use == "put":
                    memo[number] = self.stack[-1]
                elif use == "text":
                    first, place = place, place + number
                    if place > end:
                        raise EOFError("it ends too early")
                    push(str(data[first:place], "utf-8", "surrogatepass"))
                else:
                    push(number)
            elif opcode == STOP:
                self.position = place
                return self.stack.pop()
            else:
                self.position = place
                handler = handlers.get(opcode)
                if handler is None:
                    raise pickle.UnpicklingError(f"invalid load key {bytes([opcode])!r}")
                handler(self)
                push, place = self.append, self.position
        raise EOFError("it ends too early")

    # --- how Python's handlers read

    def read(self, size: int) -> bytes:
        start, self.position = self.position, self.position + size
        if self.position > self.end:
            raise EOFError("it ends too early")
        return self.data[start : self.position]

    def readinto(self, buffer: bytearray) -> None:
        buffer[:] = self.read(len(buffer))

    def readline(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise EOFError("it ends in the middle of a line")
        return self.read(end + 1 - self.position)

    def load_frame(self) -> None:
        self.read(8)

    # --- names and calls

    def refuse(self, what: str) -> Any:
        raise pickle.UnpicklingError(f"it has {what}, which could run code")

    def look_up(self, name: str) -> Any:
        """What a name becomes. Raises if the file has no business with it."""
        return Name(name, PLAIN[name]) if name in PLAIN else self.refuse(f"the class {name[:200]}")

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # Python 2's names
            module, name = NAME_MAPPING.get(
                (module, name), (IMPORT_MAPPING.get(module, module), name)
            )
        return self.look_up(f"{module}.{name}")

    def call(self, name: Any, args: Any) -> Any:
        if not isinstance(name, Name) or name.call is None or type(args) is not tuple:
            return self.refuse(f"a call of {title_of(name)}")
        for value in args:
            if isinstance(value, (str, bytes, *ITEMS)):
                self.count_copied(len(value))
        if name.value in SETS and args:
            self.check_keys(args[0])
        elif name.value in DICTS and args and type(args[-1]) in (list, tuple):
            self.check_keys(pair[0] for pair in args[-1] if type(pair) in (list, tuple) and pair)
        return name.call(*args)

    def load_call(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        self.append(self.call(name, args))

    def _instantiate(self, name: Any, args: list[Any]) -> None:
        """Of INST and OBJ."""
        self.append(self.call(name, tuple(args)))

    def load_build(self) -> None:
        """Give an object its state."""
        state, value = self.stack.pop(), self.stack[-1]
        if isinstance(value, Unfinished):
            value.build(state)
        elif (
            type(value) is OrderedDict
            and isinstance(state, dict)
            and all(name == "_metadata" and type(state[name]) is OrderedDict for name in state)
        ):  # torch's state dicts; another attribute could hide a method
            vars(value).update(state)
        else:
            self.refuse(f"changes of {title_of(value)}")

    # --- bounds

    def load_integer(self) -> None:
        PythonUnpickler.dispatch[self.data[self.position - 1]](self)
        _small(self.stack[-1])

    def load_items(self) -> None:
        """Put items into a container once they, and their keys, are checked."""
        opcode = self.data[self.position - 1 : self.position]
        count, kinds, step = CONTAINERS[opcode]
        items = self.stack[-count:]
        if kinds is not None:
            target = self.stack[-count - 1] if count else self.metastack[-1][-1]
            if not isinstance(target, kinds):
                raise pickle.UnpicklingError(f"items for {type(target).__name__}")
        if step:
            self.check_keys(items[::step])
        if len(items) % (step or 1):
            raise pickle.UnpicklingError("a key without a value")
        PythonUnpickler.dispatch[opcode[0]](self)

    def check_keys(self, keys: Iterable[Any]) -> None:
        """Count the keys that could be made to collide, before they are in a set or dict."""
        for key in keys:
            if type(key) in UNFORESEEN:
                continue
            if type(key) is tuple:  # its hash is computed each time
                self.count_copied(len(key))
                if all(type(item) is str for item in key):
                    continue
            self.foreseen += 1
            check_key(key)
        if self.foreseen > MAX_FORESEEN:
            raise pickle.UnpicklingError("too many keys that are neither texts nor numbers")

    def count_copied(self, count: int) -> None:
        self.copied += count
        if self.copied > MAX_SHARING * self.end + FEW:
            raise pickle.UnpicklingError("the same values copied again and again")


def title_of(value: Any) -> str:
    """A short name for errors: never the content of a value, which may repeat itself."""
    return value.value[:200] if isinstance(value, Name) else type(value).__name__


def check_key(key: Any, depth: int = 0) -> int:
    """How many values the hash of a key visits; those that occur twice it visits twice.

    Raises: UnpicklingError if it would take long.
    """
    visited = 1
    for item in key if type(key) in (tuple, frozenset) else ():
        visited += check_key(item, depth + 1)
        if visited > MAX_KEY or depth > MAX_DEPTH:
            raise pickle.UnpicklingError("a key of tuples in tuples, too many of them")
    return visited


OF_NO_FILE = (  # objects by number, calls by name, memory that is not in the file
    *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEWOBJ_EX),
    *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)
HANDLERS = {  # in place of Python's own
    Unpickler.load_frame: [pickle.FRAME],
    Unpickler.load_integer: [pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4],
    Unpickler.load_items: CONTAINERS,
    Unpickler.load_call: [pickle.REDUCE, pickle.NEWOBJ],
    Unpickler.load_build: [pickle.BUILD],
    None: OF_NO_FILE,
}
Unpickler.dispatch = PythonUnpickler.dispatch | {
    opcode[0]: handler for handler, opcodes in HANDLERS.items() for opcode in opcodes
}


def load_plain(data: bytes, encoding: str = "utf-8") -> Any:
    """Content of a pickle of containers, texts and numbers. Raises: anything of ``DAMAGED``."""
    content = Unpickler(io.BytesIO(data), encoding).load()
    check_nesting(content, len(data))
    return content
