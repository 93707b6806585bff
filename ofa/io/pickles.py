"""Pickles read as data: nothing is imported or called, and the cost follows the file's size.

A pickle is a program for a small stack machine. Python's own machine calls whatever a file names.
``torch.load(weights_only=True)`` knows the opcodes of protocol 2 alone and needs every class by its
full name beforehand, but older files name settings classes of many programs and label files use
every protocol; and 200 kB of nested tuples as a key end it by SIGSEGV (torch 2.11). So the machine
here has all opcodes of protocols 0 to 5 that hold data. A name becomes a ``Name``; a call
looks it up in a table of our own functions, which check their arguments; an object of a settings
class becomes a ``Settings``.
"""

import io
import mmap
import os
import pickle
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from ofa.errors import UserError
from ofa.io.nesting import FEW, MAX_DEPTH, MAX_SHARING, check_nesting
from ofa.io.pickle_opcodes import FIXED, GETS, HANDLERS, PUTS, STOP, TEXTS, Name, Settings, small

MAX_KEY = 10_000  # items of a tuple in tuples, those that occur twice counted twice
# Keys of a file whose hash follows from their value: 30 000 made to collide keep a set busy for 40
# s. The hash of a text is another one in every process, and few small numbers share theirs.
MAX_FORESEEN = 2_000
UNFORESEEN = (str, bytes, int, float, bool, NoneType)
MAX_PLAIN_BYTES = 4 << 30


def is_shaped(args: tuple, *kinds: type | tuple) -> bool:
    """Whether arguments are at most as many as ``kinds``, each exactly of its kind."""
    return len(args) <= len(kinds) and all(
        type(one) in (kind if isinstance(kind, tuple) else (kind,))
        for one, kind in zip(args, kinds, strict=False)
    )


def _simple(make: Callable, *kinds: type | tuple) -> Callable:
    """``make``, for arguments of the given kinds alone."""

    def checked(*args: Any) -> Any:
        if not is_shaped(args, *kinds):
            raise pickle.UnpicklingError(f"strange arguments of {make.__name__}")
        return make(*args)

    return checked


def _int(value: Any = 0) -> int:
    return small(_simple(int, NUMBERS)(value))


def _defaultdict(factory: Any = None, content: Any = ()) -> dict:
    """A plain dict: nobody asks a file for what it does not have."""
    return _simple(dict, (dict, list, tuple))(content)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocols 0 to 2 write bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1", "utf-8"):
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return text.encode(encoding)


ITEMS = (list, tuple, set, frozenset, dict)
NUMBERS = (int, float, bool, str)
SETS = ("builtins.set", "builtins.frozenset")
DICTS = ("builtins.dict", "collections.OrderedDict", "collections.defaultdict")
PLAIN: dict[str, Callable] = {  # what may be called: name -> function
    "collections.OrderedDict": _simple(OrderedDict, (list, tuple, dict)),
    "collections.defaultdict": _defaultdict,
    "collections.Counter": _simple(dict, dict),
    "collections.deque": _simple(deque, ITEMS, (int, type(None))),
    "builtins.int": _int,
    "builtins.float": _simple(float, NUMBERS),
    "builtins.bool": _simple(bool, NUMBERS),
    "builtins.complex": _simple(complex, (int, float), (int, float)),
    "builtins.str": _simple(str, NUMBERS),
    "builtins.bytes": _simple(bytes, (bytes, list)),
    "builtins.bytearray": lambda content=b"", *encoding: bytearray(
        _encode(content, *encoding) if encoding else _simple(bytes, (bytes, list))(content)
    ),
    "builtins.list": _simple(list, ITEMS),
    "builtins.tuple": _simple(tuple, (list, tuple)),
    "builtins.set": _simple(set, ITEMS),
    "builtins.frozenset": _simple(frozenset, ITEMS),
    "builtins.dict": _simple(dict, (list, tuple, dict)),
    "builtins.range": _simple(range, int, int, int),
    "builtins.slice": _simple(slice, *[(int, type(None))] * 3),
    "_codecs.encode": _encode,
}


class Unpickler:
    """The machine. Its interface is that of ``pickle.Unpickler`` as far as ``torch.load`` uses it.

    Args: encoding: of texts that Python 2 wrote.
    Raises: UnpicklingError and the usual errors of damaged files (EOFError, ValueError, ...).
    """

    calls: Mapping[str, Callable] = PLAIN
    persistent_load: Callable[[Any], Any]  # of whoever reads the storages

    def __init__(self, file: Any, encoding: str = "utf-8", **_: Any):
        self.file, self.encoding = file, encoding
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.nested: dict[
            int, tuple[int, int]
        ] = {}  # id of a tuple with tuples in it -> depth, size
        self.kept: list[Any] = []
        self.copied = self.foreseen = 0
        self.protocol = 0

    def load(self) -> Any:
        start = self.file.tell()
        self.data: Any = content_of(self.file)
        self.end = len(self.data)
        self.position = start if isinstance(self.data, mmap.mmap) else 0
        self.run()
        if isinstance(self.data, mmap.mmap):
            self.file.seek(self.position)
        if len(self.stack) != 1:
            raise pickle.UnpicklingError("it ends with several values, or none")
        return self.stack[0]

    def run(self) -> None:
        """Follow the opcodes up to STOP.

        Those that large files have by the million are here, all others in ``HANDLERS``.
        """
        data, end, stack, memo, handlers = self.data, self.end, self.stack, self.memo, HANDLERS
        push, place = stack.append, self.position
        while place < end:
            opcode = data[place]
            place += 1
            if opcode in FIXED:
                layout = FIXED[opcode]
                push(layout.unpack_from(data, place)[0])
                place += layout.size
            elif opcode in TEXTS:
                layout = TEXTS[opcode]
                first = place + layout.size
                place = first + layout.unpack_from(data, place)[0]
                if place > end:
                    raise EOFError("it ends too early")
                push(str(data[first:place], "utf-8", "surrogatepass"))
            elif opcode in PUTS:
                layout = PUTS[opcode]
                memo[layout.unpack_from(data, place)[0]] = stack[-1]
                place += layout.size
            elif opcode in GETS:
                layout = GETS[opcode]
                push(memo[layout.unpack_from(data, place)[0]])
                place += layout.size
            elif opcode == STOP:
                self.position = place
                return
            else:
                self.position = place
                handler = handlers.get(opcode)
                if handler is None:
                    raise pickle.UnpicklingError(f"invalid load key {bytes([opcode])!r}")
                handler(self)
                place = self.position
        raise EOFError("it ends too early")

    # --- what files of another kind change --------------------------------------------------------

    def refuse(self, what: str) -> Any:
        raise pickle.UnpicklingError(f"it has {what}, which could run code")

    def find_class(self, module: str, name: str) -> Any:
        """What a name becomes. Raises if the file has no business with it."""
        text = f"{module}.{name}"
        return Name(text) if text in self.calls else self.refuse(f"the class {text}")

    def resolve(self, reference: Any) -> Any:
        """The object outside of the pickle that a persistent id stands for."""
        return self.refuse("a reference to something outside of it")

    def construct(self, name: Name, args: tuple) -> Any:
        """What a call makes. Args: args: plain values."""
        call = self.calls.get(name.text)
        return self.refuse(f"a call of {name.text}") if call is None else call(*args)

    def build(self, value: Any, state: Any) -> None:
        """Give an object its state."""
        if isinstance(value, Settings):
            value.build(state)
        elif (
            type(value) is OrderedDict
            and isinstance(state, dict)
            and all(name == "_metadata" and type(state[name]) is OrderedDict for name in state)
        ):  # torch's state dicts; another attribute could hide a method
            vars(value).update(state)
        else:
            name = getattr(value, "__qualname__", type(value).__name__)
            self.refuse(f"changes of {value.text if isinstance(value, Name) else name}")

    # --- parts of the machine ---------------------------------------------------------------------

    def take(self, size: int) -> bytes:
        """The next bytes of the file."""
        start, self.position = self.position, self.position + size
        if size < 0 or self.position > self.end:
            raise EOFError("it ends too early")
        return self.data[start : self.position]

    def sized(self, width: str) -> bytes:
        """Bytes behind their own number. Args: width: as of ``struct``."""
        return self.take(struct.unpack(width, self.take(struct.calcsize(width)))[0])

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise EOFError("it ends in the middle of a line")
        return self.take(end + 1 - self.position)[:-1]

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise pickle.UnpicklingError("a value is missing")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        place = self.marks.pop()
        found = self.stack[place:]
        del self.stack[place:]
        return found

    def push(self, value: Any) -> None:
        """Push what was made.

        Tuples and frozen sets in others are counted, since their hash and text take that long.
        """
        depth = size = 0
        for item in value if type(value) in (tuple, frozenset) else ():
            if type(item) in (tuple, frozenset):
                below, more = self.nested.get(id(item), (1, len(item)))
                depth, size = max(depth, below), size + more
        if depth:
            if depth >= MAX_DEPTH or size > MAX_KEY:
                raise pickle.UnpicklingError("tuples in tuples, too many of them")
            self.nested[id(value)] = depth + 1, size + len(value)
            self.kept.append(value)  # as long as its id counts
        self.stack.append(value)

    def check_keys(self, keys: Iterable[Any]) -> None:
        """Count the keys that could be made to collide; those of sets and dicts before these are
        made."""
        for key in keys:
            if type(key) not in UNFORESEEN and not (
                type(key) is tuple and all(type(item) is str for item in key)
            ):
                self.foreseen += 1
        if self.foreseen > MAX_FORESEEN:
            raise pickle.UnpicklingError("too many keys that are neither texts nor numbers")

    def call(self, name: Any, args: Any, kwargs: Any = None) -> Any:
        if not isinstance(name, Name) or type(args) is not tuple or kwargs:
            self.refuse(f"a call of {type(name).__name__}")
        for value in args:
            if isinstance(value, (str, bytes, *ITEMS)):
                self.copied += len(value)
        if self.copied > MAX_SHARING * self.end + FEW:
            raise pickle.UnpicklingError("the same values copied again and again")
        if name.text in SETS and args:
            self.check_keys(args[0])
        elif name.text in DICTS and args and type(args[-1]) in (list, tuple):
            self.check_keys(pair[0] for pair in args[-1] if type(pair) in (list, tuple) and pair)
        return self.construct(name, args)

    def named(self, module: str, name: str) -> Any:
        if self.protocol < 3:  # Python 2's names
            module, name = NAME_MAPPING.get(
                (module, name), (IMPORT_MAPPING.get(module, module), name)
            )
        return self.find_class(module, name)


def content_of(file: Any) -> Any:
    """The bytes from the current place of a file on; of a file on disk all its bytes, mapped."""
    if isinstance(file, io.BytesIO):
        return file.read()
    if os.fstat(file.fileno()).st_size == 0:
        raise EOFError("it is empty")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


DAMAGED = (  # what a damaged file of pickles, tensors or an archive raises
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
    OverflowError,
    AssertionError,
    LookupError,
    RecursionError,
    struct.error,
)


def load_plain(path: str | Path, encoding: str = "utf-8") -> Any:
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


def read_plain_pickle(path: str | Path, expected: str) -> Any:
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
