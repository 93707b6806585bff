"""Pickles read as data: nothing is imported, nothing of the file is called, and reading costs no more than the file's size allows.

A pickle is a program for a small stack machine. Python's own machine calls whatever a file names; ``torch.load(weights_only=True)``
knows the opcodes of protocol 2 alone and needs every class by its full name beforehand, but older files name settings classes of
many programs, and label files use every protocol. So the machine here has all opcodes of protocols 0 to 5 that hold data. A name
becomes a ``Name``; to call one looks it up in a table of our own functions, which check their arguments; an object of a settings
class becomes a ``Settings``.
"""

import codecs
import io
import mmap
import os
import pickle
import struct
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

from ofa.errors import UserError

MAX_DEPTH = 100  # containers in containers; true files have about 10
MAX_KEY = 10_000  # items of a tuple in tuples, those that occur twice counted twice
MAX_SHARING = 10  # how many times more values a file may stand for than it spells out
FEW = 1_000_000  # values that are never too many
MAX_INTEGER = 2**64  # larger ones can be made to collide as keys
TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first value of files older than torch 1.6
MAX_PLAIN_BYTES = 4 << 30


class Name:
    """A class or function that a pickle names. It is never looked up."""

    __slots__ = ("text",)

    def __init__(self, text: str):
        self.text = text


class Settings:
    """Stands for an object of a settings class; ``ofa.checkpoint.plain`` turns it into data."""

    __slots__ = ("class_name", "args", "state", "items")

    def __init__(self, class_name: str, args: tuple = ()):
        self.class_name, self.args, self.state, self.items = class_name, args, None, {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def build(self, state: Any) -> None:
        self.state = state[1] or state[0] if isinstance(state, tuple) and len(state) == 2 else state


def is_shaped(args: tuple, *kinds: type | tuple) -> bool:
    """Whether arguments are at most as many as ``kinds``, each exactly of its kind."""
    return len(args) <= len(kinds) and all(type(one) in (kind if isinstance(kind, tuple) else (kind,)) for one, kind in zip(args, kinds))


def _simple(make: Callable, *kinds: type | tuple) -> Callable:
    """``make``, for arguments of the given kinds alone."""

    def checked(*args: Any) -> Any:
        if not is_shaped(args, *kinds):
            raise pickle.UnpicklingError(f"strange arguments of {make.__name__}")
        return make(*args)

    return checked


def small(value: int) -> int:
    """The integer. Raises: UnpicklingError if it is large enough to be made to collide with others as a key."""
    if not -MAX_INTEGER < value < MAX_INTEGER and value != TORCH_MAGIC:
        raise pickle.UnpicklingError("an integer of more than 64 bits")
    return value


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
    "builtins.bytearray": lambda content=b"", *encoding: bytearray(_encode(content, *encoding) if encoding else _simple(bytes, (bytes, list))(content)),
    "builtins.list": _simple(list, ITEMS),
    "builtins.tuple": _simple(tuple, (list, tuple)),
    "builtins.set": _simple(set, ITEMS),
    "builtins.frozenset": _simple(frozenset, ITEMS),
    "builtins.dict": _simple(dict, (list, tuple, dict)),
    "builtins.range": _simple(range, int, int, int),
    "builtins.slice": _simple(slice, *[(int, type(None))] * 3),
    "_codecs.encode": _encode,
}
def _layouts(widths: dict[bytes, str]) -> dict[int, struct.Struct]:
    return {opcode[0]: struct.Struct(width) for opcode, width in widths.items()}


STOP = pickle.STOP[0]
FIXED = _layouts({pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H", pickle.BINFLOAT: ">d"})
TEXTS = _layouts({pickle.BINUNICODE: "<I", pickle.SHORT_BINUNICODE: "<B", pickle.BINUNICODE8: "<Q"})
PUTS = _layouts({pickle.BINPUT: "<B", pickle.LONG_BINPUT: "<I"})
GETS = _layouts({pickle.BINGET: "<B", pickle.LONG_BINGET: "<I"})
_handlers: dict[int, Callable[["Unpickler"], None]] = {}


def _on(*opcodes: bytes) -> Callable:
    def register(handler: Callable) -> Callable:
        _handlers.update({opcode[0]: handler for opcode in opcodes})
        return handler

    return register


class Unpickler:
    """The machine. Its interface is that of ``pickle.Unpickler`` as far as ``torch.load`` uses it.

    Args: encoding: of texts that Python 2 wrote.
    Raises: UnpicklingError and the usual errors of damaged files (EOFError, ValueError, ...).
    """

    calls: Mapping[str, Callable] = PLAIN

    def __init__(self, file: Any, encoding: str = "utf-8", **_: Any):
        self.file, self.encoding = file, encoding
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.nested: dict[int, tuple[int, int]] = {}  # id of a tuple with tuples in it -> depth, size
        self.kept: list[Any] = []
        self.copied = 0
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
        """Follow the opcodes up to STOP. Those that large files have by the million are here, all others in ``_handlers``."""
        data, end, stack, memo, handlers = self.data, self.end, self.stack, self.memo, _handlers
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

    # --- what files of another kind change ----------------------------------------------------------------------------

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
        elif type(value) is OrderedDict and isinstance(state, dict) and all(isinstance(key, str) for key in state):
            vars(value).update(state)  # torch's state dicts: _metadata
        else:
            self.refuse(f"changes of {value.text if isinstance(value, Name) else getattr(value, '__qualname__', type(value).__name__)}")

    # --- parts of the machine -----------------------------------------------------------------------------------------

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
        """Push what was made. Tuples and frozen sets in others are counted, since their hash and text take that long."""
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

    def call(self, name: Any, args: Any, kwargs: Any = None) -> Any:
        if not isinstance(name, Name) or type(args) is not tuple or kwargs:
            self.refuse(f"a call of {type(name).__name__}")
        for value in args:
            if isinstance(value, (str, bytes, *ITEMS)):
                self.copied += len(value)
        if self.copied > MAX_SHARING * self.end + FEW:
            raise pickle.UnpicklingError("the same values copied again and again")
        return self.construct(name, args)

    def named(self, module: str, name: str) -> Any:
        if self.protocol < 3:  # Python 2's names
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        return self.find_class(module, name)


def content_of(file: Any) -> Any:
    """The bytes from the current place of a file on; of a file on disk all its bytes, mapped."""
    if isinstance(file, io.BytesIO):
        return file.read()
    if os.fstat(file.fileno()).st_size == 0:
        raise EOFError("it is empty")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


# --- opcodes: values --------------------------------------------------------------------------------------------------


@_on(pickle.PROTO)
def _protocol(self: Unpickler) -> None:
    self.protocol = self.take(1)[0]
    if self.protocol > pickle.HIGHEST_PROTOCOL:
        raise ValueError(f"protocol {self.protocol} is unknown")


@_on(pickle.FRAME)
def _frame(self: Unpickler) -> None:
    if struct.unpack("<Q", self.take(8))[0] > self.end - self.position:
        raise EOFError("it ends in the middle of a frame")


for _opcode, _value in {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False, pickle.EMPTY_TUPLE: ()}.items():
    _handlers[_opcode[0]] = lambda self, value=_value: self.stack.append(value)
for _opcode, _kind in {pickle.EMPTY_LIST: list, pickle.EMPTY_DICT: dict, pickle.EMPTY_SET: set}.items():
    _handlers[_opcode[0]] = lambda self, kind=_kind: self.stack.append(kind())
for _opcode, _width in {pickle.BINSTRING: "<i", pickle.SHORT_BINSTRING: "<B"}.items():
    _handlers[_opcode[0]] = lambda self, width=_width: self.stack.append(self.sized(width).decode(self.encoding))
for _opcode, _width in {pickle.BINBYTES: "<I", pickle.SHORT_BINBYTES: "<B", pickle.BINBYTES8: "<Q"}.items():
    _handlers[_opcode[0]] = lambda self, width=_width: self.stack.append(self.sized(width))
for _opcode, _width in {pickle.LONG1: "<B", pickle.LONG4: "<i"}.items():
    _handlers[_opcode[0]] = lambda self, width=_width: self.stack.append(small(int.from_bytes(self.sized(width), "little", signed=True)))


@_on(pickle.BYTEARRAY8)
def _bytearray(self: Unpickler) -> None:
    self.stack.append(bytearray(self.sized("<Q")))


@_on(pickle.INT, pickle.LONG)
def _integer(self: Unpickler) -> None:
    text = self.line().rstrip(b"L")
    if text in (b"00", b"01"):
        self.stack.append(text == b"01")
    else:
        self.stack.append(small(int(text)))


@_on(pickle.FLOAT)
def _float(self: Unpickler) -> None:
    self.stack.append(float(self.line()))


@_on(pickle.UNICODE)
def _unicode(self: Unpickler) -> None:
    self.stack.append(str(self.line(), "raw-unicode-escape"))


@_on(pickle.STRING)
def _string(self: Unpickler) -> None:
    text = self.line()
    if len(text) < 2 or text[:1] not in b"'\"" or text[:1] != text[-1:]:
        raise pickle.UnpicklingError("a text without quotes")
    self.stack.append(codecs.escape_decode(text[1:-1])[0].decode(self.encoding))


# --- opcodes: containers ----------------------------------------------------------------------------------------------


@_on(pickle.TUPLE)
def _tuple(self: Unpickler) -> None:
    self.push(tuple(self.since_mark()))


@_on(pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
def _short_tuple(self: Unpickler) -> None:
    count = self.data[self.position - 1] - pickle.TUPLE1[0] + 1
    self.push(tuple([self.pop() for _ in range(count)][::-1]))


@_on(pickle.FROZENSET)
def _frozenset(self: Unpickler) -> None:
    self.push(frozenset(self.since_mark()))


@_on(pickle.LIST)
def _list(self: Unpickler) -> None:
    self.stack.append(self.since_mark())


@_on(pickle.DICT)
def _dict(self: Unpickler) -> None:
    items = self.since_mark()
    self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))


@_on(pickle.APPEND, pickle.APPENDS)
def _append(self: Unpickler) -> None:
    items = [self.pop()] if self.data[self.position - 1] == pickle.APPEND[0] else self.since_mark()
    target = self.stack[-1]
    if isinstance(target, (list, deque)):
        target.extend(items)
    elif isinstance(target, Settings):
        target.items.update(enumerate(items, len(target.items)))
    else:
        raise pickle.UnpicklingError(f"items for {type(target).__name__}")


@_on(pickle.SETITEM, pickle.SETITEMS)
def _set_items(self: Unpickler) -> None:
    items = self.since_mark() if self.data[self.position - 1] == pickle.SETITEMS[0] else [self.pop(), self.pop()][::-1]
    target = self.stack[-1]
    if not isinstance(target, (dict, Settings)) or len(items) % 2:
        raise pickle.UnpicklingError(f"entries for {type(target).__name__}")
    for place in range(0, len(items), 2):
        target[items[place]] = items[place + 1]


@_on(pickle.ADDITEMS)
def _add_items(self: Unpickler) -> None:
    items = self.since_mark()
    if type(self.stack[-1]) is not set:
        raise pickle.UnpicklingError(f"items for {type(self.stack[-1]).__name__}")
    self.stack[-1].update(items)


# --- opcodes: stack and memo ------------------------------------------------------------------------------------------


@_on(pickle.MARK)
def _mark(self: Unpickler) -> None:
    self.marks.append(len(self.stack))


@_on(pickle.POP)
def _pop(self: Unpickler) -> None:
    if self.marks and self.marks[-1] == len(self.stack):
        self.marks.pop()
    else:
        self.stack.pop()


@_on(pickle.POP_MARK)
def _pop_mark(self: Unpickler) -> None:
    self.since_mark()


@_on(pickle.DUP)
def _dup(self: Unpickler) -> None:
    self.stack.append(self.stack[-1])


@_on(pickle.MEMOIZE)
def _memoize(self: Unpickler) -> None:
    self.memo[len(self.memo)] = self.stack[-1]




@_on(pickle.PUT)
def _put(self: Unpickler) -> None:
    self.memo[int(self.line())] = self.stack[-1]


@_on(pickle.GET)
def _get(self: Unpickler) -> None:
    self.stack.append(self.memo[int(self.line())])


# --- opcodes: names and calls -----------------------------------------------------------------------------------------


@_on(pickle.GLOBAL)
def _global(self: Unpickler) -> None:
    self.stack.append(self.named(self.line().decode(), self.line().decode()))


@_on(pickle.STACK_GLOBAL)
def _stack_global(self: Unpickler) -> None:
    name, module = self.pop(), self.pop()
    if type(name) is not str or type(module) is not str:
        raise pickle.UnpicklingError("a name that is no text")
    self.stack.append(self.named(module, name))


@_on(pickle.REDUCE, pickle.NEWOBJ)
def _call(self: Unpickler) -> None:
    args, name = self.pop(), self.pop()
    self.push(self.call(name, args))


@_on(pickle.NEWOBJ_EX)
def _call_with_names(self: Unpickler) -> None:
    kwargs, args, name = self.pop(), self.pop(), self.pop()
    self.push(self.call(name, args, kwargs))


@_on(pickle.INST)
def _instance(self: Unpickler) -> None:
    name = self.named(self.line().decode(), self.line().decode())
    self.push(self.call(name, tuple(self.since_mark())))


@_on(pickle.OBJ)
def _object(self: Unpickler) -> None:
    name, *args = self.since_mark()
    self.push(self.call(name, tuple(args)))


@_on(pickle.EXT1, pickle.EXT2, pickle.EXT4)
def _extension(self: Unpickler) -> None:
    self.refuse("a number that stands for a class")


@_on(pickle.BUILD)
def _build(self: Unpickler) -> None:
    state = self.pop()
    self.build(self.stack[-1], state)


@_on(pickle.BINPERSID)
def _persistent(self: Unpickler) -> None:
    self.stack.append(self.resolve(self.pop()))


@_on(pickle.PERSID)
def _persistent_text(self: Unpickler) -> None:
    self.stack.append(self.resolve(self.line().decode("ascii")))


# --- what came out ----------------------------------------------------------------------------------------------------

CONTAINERS = (list, tuple, dict, set, frozenset, OrderedDict, deque, Counter)


def check_nesting(value: Any, spelled: int = 0) -> None:
    """Refuse what nobody could print, copy or walk through.

    Args: spelled: number of values (or bytes) that the file spells out.
    Raises: ValueError if containers contain themselves, are nested too deeply, or stand for far more values than that.
    """
    known: dict[int, tuple[int, int]] = {}  # id -> height, values
    most = MAX_SHARING * spelled + FEW

    def visit(node: Any, depth: int) -> tuple[int, int]:
        height, size = known.get(id(node), (1, 0))
        if size:
            return height, size
        if depth > MAX_DEPTH:
            raise ValueError(f"containers that contain themselves, or are nested more than {MAX_DEPTH} deep")
        size = 1 + len(node)
        inner = [item for item in (node.values() if isinstance(node, dict) else node) if type(item) in CONTAINERS]
        for item in inner:
            below, more = visit(item, depth + 1)
            height, size = max(height, below + 1), size + more
        if height > MAX_DEPTH:
            raise ValueError(f"containers that are nested more than {MAX_DEPTH} deep")
        if size > most:
            raise ValueError("containers that contain the same values again and again")
        if inner:
            known[id(node)] = height, size
        return height, size

    if type(value) in CONTAINERS:
        visit(value, 1)


DAMAGED = (  # what a damaged file of pickles, tensors or an archive raises
    RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, MemoryError,
    OverflowError, AssertionError, LookupError, RecursionError, struct.error,
)  # fmt: skip


def load_plain(path: str | Path, encoding: str = "utf-8") -> Any:
    """Content of a pickle of containers, texts and numbers. Raises: OSError, or anything of ``DAMAGED``."""
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
        raise UserError(f"{path}: expected {expected}, it cannot be read ({error.strerror}); check the path") from None
    except DAMAGED as error:
        raise UserError(f"{path}: expected {expected}, found something else ({str(error)[:200] or type(error).__name__}); "
                        "is it the right file, and is the download complete?") from None
