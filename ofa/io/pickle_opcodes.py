"""The opcodes of pickle protocols 0 to 5, as functions of the machine of ``ofa.io.pickles``.

Whatever names, calls or changes something asks the machine, which refuses what it does not know.
"""

import codecs
import pickle
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

MAX_INTEGER = 2**64  # larger ones can be made to collide as keys
TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first value of files older than torch 1.6


class Name:
    """A class or function that a pickle names. It is never looked up."""

    __slots__ = ("text",)

    def __init__(self, text: str):
        self.text = text


class Settings:
    """Stands for an object of a settings class; ``ofa.io.safe_load.plain`` turns it into data."""

    __slots__ = ("class_name", "args", "state", "items")

    def __init__(self, class_name: str, args: tuple = ()):
        self.class_name, self.args, self.state = class_name, args, None
        self.items: dict[Any, Any] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def build(self, state: Any) -> None:
        self.state = state[1] or state[0] if isinstance(state, tuple) and len(state) == 2 else state


def small(value: int) -> int:
    """The integer.

    Raises: UnpicklingError if it is large enough to be made to collide with others as a key.
    """
    if not -MAX_INTEGER < value < MAX_INTEGER and value != TORCH_MAGIC:
        raise pickle.UnpicklingError("an integer of more than 64 bits")
    return value


def _layouts(widths: dict[bytes, str]) -> dict[int, struct.Struct]:
    return {opcode[0]: struct.Struct(width) for opcode, width in widths.items()}


STOP = pickle.STOP[0]
FIXED = _layouts(
    {pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H", pickle.BINFLOAT: ">d"}
)
TEXTS = _layouts({pickle.BINUNICODE: "<I", pickle.SHORT_BINUNICODE: "<B", pickle.BINUNICODE8: "<Q"})
PUTS = _layouts({pickle.BINPUT: "<B", pickle.LONG_BINPUT: "<I"})
GETS = _layouts({pickle.BINGET: "<B", pickle.LONG_BINGET: "<I"})
HANDLERS: dict[int, Callable[..., None]] = {}


def _on(*opcodes: bytes) -> Callable:
    def register(handler: Callable) -> Callable:
        HANDLERS.update({opcode[0]: handler for opcode in opcodes})
        return handler

    return register


# --- opcodes: values ------------------------------------------------------------------------------


@_on(pickle.PROTO)
def _protocol(machine: Any) -> None:
    machine.protocol = machine.take(1)[0]
    if machine.protocol > pickle.HIGHEST_PROTOCOL:
        raise ValueError(f"protocol {machine.protocol} is unknown")


@_on(pickle.FRAME)
def _frame(machine: Any) -> None:
    if struct.unpack("<Q", machine.take(8))[0] > machine.end - machine.position:
        raise EOFError("it ends in the middle of a frame")


for _opcode, _value in {
    pickle.NONE: None,
    pickle.NEWTRUE: True,
    pickle.NEWFALSE: False,
    pickle.EMPTY_TUPLE: (),
}.items():
    HANDLERS[_opcode[0]] = lambda machine, value=_value: machine.stack.append(value)
for _opcode, _kind in {
    pickle.EMPTY_LIST: list,
    pickle.EMPTY_DICT: dict,
    pickle.EMPTY_SET: set,
}.items():
    HANDLERS[_opcode[0]] = lambda machine, kind=_kind: machine.stack.append(kind())
for _opcode, _width in {pickle.BINSTRING: "<i", pickle.SHORT_BINSTRING: "<B"}.items():
    HANDLERS[_opcode[0]] = lambda machine, width=_width: machine.stack.append(
        machine.sized(width).decode(machine.encoding)
    )
for _opcode, _width in {
    pickle.BINBYTES: "<I",
    pickle.SHORT_BINBYTES: "<B",
    pickle.BINBYTES8: "<Q",
}.items():
    HANDLERS[_opcode[0]] = lambda machine, width=_width: machine.stack.append(machine.sized(width))
for _opcode, _width in {pickle.LONG1: "<B", pickle.LONG4: "<i"}.items():
    HANDLERS[_opcode[0]] = lambda machine, width=_width: machine.stack.append(
        small(int.from_bytes(machine.sized(width), "little", signed=True))
    )


@_on(pickle.BYTEARRAY8)
def _bytearray(machine: Any) -> None:
    machine.stack.append(bytearray(machine.sized("<Q")))


@_on(pickle.INT, pickle.LONG)
def _integer(machine: Any) -> None:
    text = machine.line().rstrip(b"L")
    if text in (b"00", b"01"):
        machine.stack.append(text == b"01")
    else:
        machine.stack.append(small(int(text)))


@_on(pickle.FLOAT)
def _float(machine: Any) -> None:
    machine.stack.append(float(machine.line()))


@_on(pickle.UNICODE)
def _unicode(machine: Any) -> None:
    machine.stack.append(str(machine.line(), "raw-unicode-escape"))


@_on(pickle.STRING)
def _string(machine: Any) -> None:
    text = machine.line()
    if len(text) < 2 or text[:1] not in b"'\"" or text[:1] != text[-1:]:
        raise pickle.UnpicklingError("a text without quotes")
    machine.stack.append(codecs.escape_decode(text[1:-1])[0].decode(machine.encoding))


# --- opcodes: containers --------------------------------------------------------------------------


@_on(pickle.TUPLE)
def _tuple(machine: Any) -> None:
    machine.push(tuple(machine.since_mark()))


@_on(pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
def _short_tuple(machine: Any) -> None:
    count = machine.data[machine.position - 1] - pickle.TUPLE1[0] + 1
    machine.push(tuple([machine.pop() for _ in range(count)][::-1]))


@_on(pickle.FROZENSET)
def _frozenset(machine: Any) -> None:
    items = machine.since_mark()
    machine.check_keys(items)
    machine.push(frozenset(items))


@_on(pickle.LIST)
def _list(machine: Any) -> None:
    machine.stack.append(machine.since_mark())


@_on(pickle.DICT)
def _dict(machine: Any) -> None:
    items = machine.since_mark()
    machine.check_keys(items[::2])
    machine.stack.append(dict(zip(items[::2], items[1::2], strict=True)))


@_on(pickle.APPEND, pickle.APPENDS)
def _append(machine: Any) -> None:
    items = (
        [machine.pop()]
        if machine.data[machine.position - 1] == pickle.APPEND[0]
        else machine.since_mark()
    )
    target = machine.stack[-1]
    if isinstance(target, (list, deque)):
        target.extend(items)
    elif isinstance(target, Settings):
        target.items.update(enumerate(items, len(target.items)))
    else:
        raise pickle.UnpicklingError(f"items for {type(target).__name__}")


@_on(pickle.SETITEM, pickle.SETITEMS)
def _set_items(machine: Any) -> None:
    items = (
        machine.since_mark()
        if machine.data[machine.position - 1] == pickle.SETITEMS[0]
        else [machine.pop(), machine.pop()][::-1]
    )
    target = machine.stack[-1]
    if not isinstance(target, (dict, Settings)) or len(items) % 2:
        raise pickle.UnpicklingError(f"entries for {type(target).__name__}")
    machine.check_keys(items[::2])
    for place in range(0, len(items), 2):
        target[items[place]] = items[place + 1]


@_on(pickle.ADDITEMS)
def _add_items(machine: Any) -> None:
    items = machine.since_mark()
    if type(machine.stack[-1]) is not set:
        raise pickle.UnpicklingError(f"items for {type(machine.stack[-1]).__name__}")
    machine.check_keys(items)
    machine.stack[-1].update(items)


# --- opcodes: stack and memo ----------------------------------------------------------------------


@_on(pickle.MARK)
def _mark(machine: Any) -> None:
    machine.marks.append(len(machine.stack))


@_on(pickle.POP)
def _pop(machine: Any) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


@_on(pickle.POP_MARK)
def _pop_mark(machine: Any) -> None:
    machine.since_mark()


@_on(pickle.DUP)
def _dup(machine: Any) -> None:
    machine.stack.append(machine.stack[-1])


@_on(pickle.MEMOIZE)
def _memoize(machine: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


@_on(pickle.PUT)
def _put(machine: Any) -> None:
    machine.memo[int(machine.line())] = machine.stack[-1]


@_on(pickle.GET)
def _get(machine: Any) -> None:
    machine.stack.append(machine.memo[int(machine.line())])


# --- opcodes: names and calls ---------------------------------------------------------------------


@_on(pickle.GLOBAL)
def _global(machine: Any) -> None:
    machine.stack.append(machine.named(machine.line().decode(), machine.line().decode()))


@_on(pickle.STACK_GLOBAL)
def _stack_global(machine: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if type(name) is not str or type(module) is not str:
        raise pickle.UnpicklingError("a name that is no text")
    machine.stack.append(machine.named(module, name))


@_on(pickle.REDUCE, pickle.NEWOBJ)
def _call(machine: Any) -> None:
    args, name = machine.pop(), machine.pop()
    machine.push(machine.call(name, args))


@_on(pickle.NEWOBJ_EX)
def _call_with_names(machine: Any) -> None:
    kwargs, args, name = machine.pop(), machine.pop(), machine.pop()
    machine.push(machine.call(name, args, kwargs))


@_on(pickle.INST)
def _instance(machine: Any) -> None:
    name = machine.named(machine.line().decode(), machine.line().decode())
    machine.push(machine.call(name, tuple(machine.since_mark())))


@_on(pickle.OBJ)
def _object(machine: Any) -> None:
    name, *args = machine.since_mark()
    machine.push(machine.call(name, tuple(args)))


@_on(pickle.EXT1, pickle.EXT2, pickle.EXT4)
def _extension(machine: Any) -> None:
    machine.refuse("a number that stands for a class")


@_on(pickle.BUILD)
def _build(machine: Any) -> None:
    state = machine.pop()
    machine.build(machine.stack[-1], state)


@_on(pickle.BINPERSID)
def _persistent(machine: Any) -> None:
    machine.stack.append(machine.resolve(machine.pop()))


@_on(pickle.PERSID)
def _persistent_text(machine: Any) -> None:
    machine.stack.append(machine.resolve(machine.line().decode("ascii")))
