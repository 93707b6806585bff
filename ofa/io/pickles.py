"""Pickles read as data: nothing is imported or called, and the cost follows the file's size.

A pickle is a program for a small stack machine. The one here is Python's own in its Python form,
with other handlers for all that names, calls or changes something: a name becomes a ``Name``; a
call looks it up in a table of our own functions, which check their arguments; an object of a
settings class becomes a ``Settings``. ``torch.load(weights_only=True)`` knows the opcodes of
protocol 2 alone and needs every class by its full name beforehand, but older files name settings
classes of many programs and label files use every protocol; and 200 kB of nested tuples as a key
end it by SIGSEGV (torch 2.11).
"""

import io
import mmap
import os
import pathlib
import pickle
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from types import NoneType
from typing import Any

from ofa.errors import UserError
from ofa.io.nesting import FEW, MAX_DEPTH, MAX_SHARING, check_nesting
from ofa.io.pickle_values import ITEMS, PLAIN, Name, Settings, Unfinished, small

MAX_KEY = 10_000  # values in a key, those that occur twice counted twice
# Keys of a file whose hash follows from their value: 30 000 made to collide keep a set busy for 40
# s. The hash of a text is another one in every process, and few small numbers share theirs.
MAX_FORESEEN = 2_000
UNFORESEEN = (str, bytes, int, float, bool, NoneType)
MAX_PLAIN_BYTES = 4 << 30
DAMAGED = (  # what a damaged file of pickles, tensors or an archive raises
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    MemoryError,
    ArithmeticError,
    AssertionError,
    struct.error,
)


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


SETS = ("builtins.set", "builtins.frozenset")
DICTS = ("builtins.dict", "collections.OrderedDict", "collections.defaultdict")


def _layouts(widths: dict[bytes, str]) -> dict[int, struct.Struct]:
    return {opcode[0]: struct.Struct(width) for opcode, width in widths.items()}


# Opcodes that large files have by the million, and the numbers that follow them.
NUMBER = _layouts(
    {pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H", pickle.BINFLOAT: ">d"}
)
TEXT = _layouts({pickle.BINUNICODE: "<I", pickle.SHORT_BINUNICODE: "<B", pickle.BINUNICODE8: "<Q"})
PUT = _layouts({pickle.BINPUT: "<B", pickle.LONG_BINPUT: "<I"})
GET = _layouts({pickle.BINGET: "<B", pickle.LONG_BINGET: "<I"})
STOP = pickle.STOP[0]
PythonUnpickler: Any = pickle._Unpickler


class Unpickler(PythonUnpickler):
    """The machine. Its interface is that of ``pickle.Unpickler`` as far as ``torch.load`` uses it.

    Args: encoding: of texts that Python 2 wrote.
    Raises: any of ``DAMAGED``.
    """

    calls: Mapping[str, Callable] = PLAIN
    persistent_load: Callable[[Any], Any]  # of whoever reads the storages
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
        if isinstance(self.file, io.BytesIO):
            self.data, self.position = self.file.read(), 0
            self.end = len(self.data)
            return self.run()
        self.end = os.fstat(self.file.fileno()).st_size
        if not self.end:
            raise EOFError("it is empty")
        self.position = self.file.tell()
        self.data = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
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
            if opcode in NUMBER:
                layout = NUMBER[opcode]
                push(layout.unpack_from(data, place)[0])
                place += layout.size
            elif opcode in TEXT:
                layout = TEXT[opcode]
                first = place + layout.size
                place = first + layout.unpack_from(data, place)[0]
                if place > end:
                    raise EOFError("it ends too early")
                push(str(data[first:place], "utf-8", "surrogatepass"))
            elif opcode in PUT:
                layout = PUT[opcode]
                memo[layout.unpack_from(data, place)[0]] = self.stack[-1]
                place += layout.size
            elif opcode in GET:
                layout = GET[opcode]
                push(memo[layout.unpack_from(data, place)[0]])
                place += layout.size
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

    # --- how the handlers read --------------------------------------------------------------------

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

    # --- what files of another kind change --------------------------------------------------------

    def refuse(self, what: str) -> Any:
        raise pickle.UnpicklingError(f"it has {what}, which could run code")

    def look_up(self, name: str) -> Any:
        """What a name becomes. Raises if the file has no business with it."""
        return Name(name) if name in self.calls else self.refuse(f"the class {name[:200]}")

    def resolve(self, reference: Any) -> Any:
        """The object outside of the pickle that a persistent id stands for."""
        return self.refuse("a reference to something outside of it")

    def construct(self, name: str, args: tuple) -> Any:
        """What a call makes. Args: args: plain values."""
        call = self.calls.get(name)
        return self.refuse(f"a call of {name}") if call is None else call(*args)

    def build(self, value: Any, state: Any) -> None:
        """Give an object its state."""
        if isinstance(value, Unfinished):
            value.build(state)
        elif (
            type(value) is OrderedDict
            and isinstance(state, dict)
            and all(name == "_metadata" and type(state[name]) is OrderedDict for name in state)
        ):  # torch's state dicts; another attribute could hide a method
            vars(value).update(state)
        else:
            self.refuse(f"changes of {getattr(value, 'value', None) or type(value).__name__}")

    # --- handlers ---------------------------------------------------------------------------------

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # Python 2's names
            module, name = NAME_MAPPING.get(
                (module, name), (IMPORT_MAPPING.get(module, module), name)
            )
        return self.look_up(f"{module}.{name}")

    def get_extension(self, code: int) -> None:
        self.refuse("a number that stands for a class")

    def load_frame(self) -> None:
        if struct.unpack("<Q", self.read(8))[0] > self.end - self.position:
            raise EOFError("it ends in the middle of a frame")

    def load_integer(self) -> None:
        handler = PythonUnpickler.dispatch[self.data[self.position - 1]]
        handler(self)
        small(self.stack[-1])

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.check_keys(items)
        self.append(frozenset(items))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.set_items(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def load_setitems(self) -> None:
        self.set_items(self.pop_mark())

    def load_append(self) -> None:
        self.extend([self.stack.pop()])

    def load_appends(self) -> None:
        self.extend(self.pop_mark())

    def load_additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise pickle.UnpicklingError(f"items for {type(self.stack[-1]).__name__}")
        self.check_keys(items)
        self.stack[-1].update(items)

    def load_call(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        self.append(self.call(name, args))

    def load_newobj_ex(self) -> None:
        kwargs, args, name = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.append(self.call(name, args, kwargs))

    def _instantiate(self, name: Any, args: list[Any]) -> None:
        """Of INST and OBJ."""
        self.append(self.call(name, tuple(args)))

    def load_build(self) -> None:
        state = self.stack.pop()
        self.build(self.stack[-1], state)

    def load_binpersid(self) -> None:
        self.append(self.resolve(self.stack.pop()))

    def load_persid(self) -> None:
        self.append(self.resolve(self.readline().decode("ascii")))

    # --- bounds -----------------------------------------------------------------------------------

    def set_items(self, items: list[Any]) -> None:
        """Entries, key and value in turn, of the dict on top of the stack."""
        target = self.stack[-1]
        if not isinstance(target, (dict, Settings)) or len(items) % 2:
            raise pickle.UnpicklingError(f"entries for {type(target).__name__}")
        self.check_keys(items[::2])
        for place in range(0, len(items), 2):
            target[items[place]] = items[place + 1]

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, (list, deque, Settings)):
            raise pickle.UnpicklingError(f"items for {type(target).__name__}")
        target.extend(items)

    def check_keys(self, keys: Iterable[Any]) -> None:
        """Count the keys that could be made to collide; those of sets and dicts before these are
        made."""
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

    def call(self, name: Any, args: Any, kwargs: Any = None) -> Any:
        if not isinstance(name, Name) or type(args) is not tuple or kwargs:
            self.refuse(f"a call of {type(name).__name__}")
        for value in args:
            if isinstance(value, (str, bytes, *ITEMS)):
                self.count_copied(len(value))
        if name.value in SETS and args:
            self.check_keys(args[0])
        elif name.value in DICTS and args and type(args[-1]) in (list, tuple):
            self.check_keys(pair[0] for pair in args[-1] if type(pair) in (list, tuple) and pair)
        return self.construct(name.value, args)


HANDLERS = {  # in place of Python's own
    Unpickler.load_frame: [pickle.FRAME],
    Unpickler.load_integer: [pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4],
    Unpickler.load_frozenset: [pickle.FROZENSET],
    Unpickler.load_dict: [pickle.DICT],
    Unpickler.load_setitem: [pickle.SETITEM],
    Unpickler.load_setitems: [pickle.SETITEMS],
    Unpickler.load_append: [pickle.APPEND],
    Unpickler.load_appends: [pickle.APPENDS],
    Unpickler.load_additems: [pickle.ADDITEMS],
    Unpickler.load_call: [pickle.REDUCE, pickle.NEWOBJ],
    Unpickler.load_newobj_ex: [pickle.NEWOBJ_EX],
    Unpickler.load_build: [pickle.BUILD],
    Unpickler.load_binpersid: [pickle.BINPERSID],
    Unpickler.load_persid: [pickle.PERSID],
}
OUTSIDE = [pickle.NEXT_BUFFER, pickle.READONLY_BUFFER]  # of memory that is not in the file
Unpickler.dispatch = {
    **PythonUnpickler.dispatch,
    **{opcode[0]: handler for handler, opcodes in HANDLERS.items() for opcode in opcodes},
}
for _opcode in OUTSIDE:
    del Unpickler.dispatch[_opcode[0]]


def load_plain(path: str | pathlib.Path, encoding: str = "utf-8") -> Any:
    """Content of a pickle of containers, texts and numbers.

    Raises: OSError, or anything of ``DAMAGED``.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_PLAIN_BYTES:
            raise ValueError(f"{size} bytes, more than {MAX_PLAIN_BYTES}")
        content = Unpickler(io.BytesIO(file.read()), encoding).load()
    check_nesting(content, size)
    return content


def read_plain_pickle(path: str | pathlib.Path, expected: str) -> Any:
    """Content of a pickle of plain data.

    Texts of Python 2 pickles are read as UTF-8 and, where they are not, as Latin-1.
    Args: expected: what the file should be, for messages.
    Raises: UserError if it is missing, damaged, or names a class or function.
    """
    try:
        try:
            return load_plain(path)
        except UnicodeDecodeError:
            return load_plain(path, "latin-1")
    except OSError as error:
        raise UserError(
            f"{path}: expected {expected}, it cannot be read ({error.strerror}); check the path"
        ) from None
    except DAMAGED as error:
        raise UserError(
            f"{path}: expected {expected}, found something else "
            f"({str(error)[:200] or type(error).__name__}); "
            "is it the right file, and is the download complete?"
        ) from None
