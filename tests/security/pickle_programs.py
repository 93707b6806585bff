"""Pickles that name or call something, opcode by opcode: every way that protocols 0 to 5 have."""

import pickle
import struct
from collections.abc import Callable, Iterator

# What is called: module, name. Each gets one text, a shell command or Python statement that
# leaves a file behind.
TARGETS = [
    tuple(line.split())
    for line in """
    os system
    posix system
    nt system
    os execv
    os remove
    os popen
    subprocess Popen
    subprocess check_output
    builtins eval
    builtins exec
    builtins compile
    builtins getattr
    builtins __import__
    builtins open
    builtins breakpoint
    builtins globals
    builtins type
    builtins print
    __builtin__ eval
    __builtin__ execfile
    importlib import_module
    importlib.util spec_from_file_location
    pickle loads
    _pickle loads
    pickle Unpickler
    marshal loads
    types CodeType
    types FunctionType
    torch load
    torch.jit load
    torch.hub load
    torch.serialization load
    torch.storage _load_from_bytes
    torch._utils _rebuild_device_tensor_from_numpy
    torch._utils _rebuild_wrapper_subclass
    torch.utils.cpp_extension load_inline
    torch.utils.data DataLoader
    torch.nn.modules.linear Linear
    torch.multiprocessing.reductions rebuild_storage_fd
    torch.package PackageImporter
    torch.classes load_library
    torch.ops load_library
    numpy load
    numpy memmap
    numpy.testing._private.utils runstring
    numpy.core.records fromfile
    operator attrgetter
    operator methodcaller
    operator itemgetter
    functools partial
    functools reduce
    webbrowser open
    socket create_connection
    socket socket
    urllib.request urlopen
    http.client HTTPSConnection
    smtplib SMTP
    shutil rmtree
    shutil move
    runpy run_path
    runpy _run_code
    code InteractiveInterpreter
    ctypes CDLL
    ctypes string_at
    pty spawn
    timeit timeit
    cProfile run
    pdb run
    doctest debug_script
    asyncio.unix_events _UnixSubprocessTransport.__start
    multiprocessing.util spawnv_passfds
    multiprocessing.context BaseContext
    sys exit
    sys modules
    logging.config dictConfig
    zipimport zipimporter
    tempfile mkdtemp
    uuid _get_command_stdout
    venv create
    pip main
    distutils.file_util write_file
    collections namedtuple
    copyreg __newobj__
    copyreg add_extension
    argparse _os.system
    codecs open
    _codecs lookup
    yaml unsafe_load
    dill loads
    joblib load
    cloudpickle loads
    PIL.Image open
    sqlite3 connect
    signal raise_signal
    gc get_objects
    inspect getattr_static
    """.strip().splitlines()
]


def text(value: str) -> bytes:
    """A text that every protocol from 1 on reads."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def old_text(value: str) -> bytes:
    """A text of protocol 0."""
    return b"V" + value.encode("raw_unicode_escape") + b"\n"


def short_text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def proto(number: int) -> bytes:
    return b"\x80" + bytes([number]) if number >= 2 else b""


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    return short_text(module) + short_text(attribute) + b"\x93"


def reduce_0(module: str, attribute: str, argument: str) -> bytes:
    return name(module, attribute) + b"(" + old_text(argument) + b"tR"


def reduce_2(module: str, attribute: str, argument: str) -> bytes:
    return name(module, attribute) + text(argument) + b"\x85R"


def reduce_4(module: str, attribute: str, argument: str) -> bytes:
    return stack_name(module, attribute) + short_text(argument) + b"\x85R"


def inst_0(module: str, attribute: str, argument: str) -> bytes:
    return b"(" + old_text(argument) + f"i{module}\n{attribute}\n".encode()


def obj_1(module: str, attribute: str, argument: str) -> bytes:
    return b"(" + name(module, attribute) + text(argument) + b"o"


def newobj_2(module: str, attribute: str, argument: str) -> bytes:
    return name(module, attribute) + text(argument) + b"\x85\x81"


def newobj_ex_4(module: str, attribute: str, argument: str) -> bytes:
    return stack_name(module, attribute) + short_text(argument) + b"\x85}\x92"


def build_2(module: str, attribute: str, argument: str) -> bytes:
    return name(module, attribute) + b"}" + text("__call__") + text(argument) + b"sb"


def build_slots_4(module: str, attribute: str, argument: str) -> bytes:
    return (
        stack_name(module, attribute)
        + b"N}"
        + short_text("__setstate__")
        + short_text(argument)
        + b"s\x86b"
    )


def default_2(module: str, attribute: str, argument: str) -> bytes:
    """A dict that would call it for a missing key."""
    return name("collections", "defaultdict") + name(module, attribute) + b"\x85R"


def reconstruct_1(module: str, attribute: str, argument: str) -> bytes:
    return (
        name("copy_reg", "_reconstructor")
        + b"("
        + name(module, attribute)
        + name(module, attribute)
        + text(argument)
        + b"tR"
    )


def mapped_4(module: str, attribute: str, argument: str) -> bytes:
    """The call by way of ``map`` and ``list``, which runs when items are taken."""
    return (
        stack_name("builtins", "list")
        + stack_name("builtins", "map")
        + stack_name(module, attribute)
        + b"]"
        + short_text(argument)
        + b"a\x86R\x85R"
    )


FORMS: dict[str, tuple[int, Callable[[str, str, str], bytes]]] = {
    form.__name__: (int(form.__name__.rpartition("_")[2]), form)
    for form in (
        reduce_0,
        reduce_2,
        reduce_4,
        inst_0,
        obj_1,
        newobj_2,
        newobj_ex_4,
        build_2,
        build_slots_4,
        default_2,
        reconstruct_1,
        mapped_4,
    )
}


def calls(argument: str) -> Iterator[tuple[str, bytes]]:
    """(name, pickle) of every target in every form. Args: argument: of the call."""
    for module, attribute in TARGETS:
        for form, (number, make) in FORMS.items():
            yield (
                f"{form}-{module}.{attribute}",
                proto(number) + make(module, attribute, argument) + b".",
            )
        yield (
            f"reduce_5-{module}.{attribute}",
            proto(5) + reduce_4(module, attribute, argument) + b".",
        )


def references() -> Iterator[tuple[str, bytes]]:
    """Objects by number: of the extension registry, and persistent ids."""
    for extension in (b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"):
        yield f"ext{len(extension)}", proto(2) + extension + b")R."
    yield "persid", b"Pos.system\n."
    for number, reference in {
        "text": text("x"),
        "number": b"K\x01",
        "module": text("module") + name("os", "system") + text("a.py") + text("x") + b"(1tt",
        "storage": (
            b"(" + text("storage") + name("os", "system") + text("0") + text("cpu") + b"K\x01t"
        ),
    }.items():
        yield f"binpersid-{number}", proto(2) + reference + b"Q."


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that would take all memory, all time or the stack."""
    quadrillion = struct.pack("<Q", 10**15)
    yield "laughing-tuple", proto(2) + b"]" + b"2\x86" * 60 + b"."
    yield (
        "laughing-list",
        proto(2)
        + b"]q\x00"
        + b"".join(b"]h%bah%baq%b" % (bytes([i]), bytes([i]), bytes([i + 1])) for i in range(60))
        + b".",
    )
    yield "laughing-key", proto(2) + b"})" + b"2\x86" * 60 + b"K\x01s."
    texts, again = b"(" + text("a") * 20_000 + b"tq\x00", b"h\x00h\x00s" * 20_000
    yield "long-key-again", proto(2) + texts + b"}" + again + b"."
    yield "deep-list", proto(2) + b"]" * 100_000 + b"a" * 99_999 + b"."
    yield "deep-dict", proto(2) + (b"}" + text("a")) * 50_000 + b"}" + b"s" * 50_000 + b"."
    yield "deep-key", proto(2) + b"})" + b"\x85" * 200_000 + b"K\x01s."
    yield "deep-frozenset", proto(4) + b"}(" + b"(" * 50_000 + b"\x91" * 50_001 + b"K\x01s."
    yield (
        "deep-call",
        proto(2)
        + b"}"
        + name("__builtin__", "tuple") * 5000
        + b"(t"
        + b"\x85\x85R" * 5000
        + b"K\x01s.",
    )
    yield "itself", proto(2) + b"}q\x00" + text("model") + b"h\x00s."
    yield "itself-list", proto(2) + b"]q\x00h\x00a."
    yield "marks", b"(" * 300_000 + b"."
    yield "memo", proto(2) + b"Nr\xff\xff\xff\xff."
    yield "memo-text", b"Np99999999999999999999\n."
    yield "long4", proto(2) + b"\x8b\xff\xff\xff\x7f."
    yield "long4-negative", proto(2) + b"\x8b\xff\xff\xff\xff."
    yield "long-text", b"L" + b"9" * 1_000_000 + b"L\n."
    yield "long-wide", proto(2) + b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b"."
    for number, opcode in {
        "unicode8": b"\x8d",
        "bytes8": b"\x8e",
        "bytearray8": b"\x96",
        "frame": b"\x95",
    }.items():
        yield number, proto(5) + opcode + quadrillion + b"."
    yield (
        "bytes-of-a-number",
        proto(2)
        + name("__builtin__", "bytes")
        + b"\x8a\x06"
        + (10**13).to_bytes(6, "little")
        + b"\x85R.",
    )
    yield (
        "list-of-a-range",
        proto(2)
        + name("__builtin__", "list")
        + name("__builtin__", "xrange")
        + b"\x8a\x06"
        + (10**13).to_bytes(6, "little")
        + b"\x85R\x85R.",
    )
    copies = name("__builtin__", "list") + b"h\x00\x85R0"
    yield "copies", proto(2) + b"]q\x00(" + b"N" * 200_000 + b"e" + copies * 20_000 + b"."
    colliding = b"".join(
        b"\x8a\x0a" + ((2**61 - 1) * i).to_bytes(10, "little") + b"N" for i in range(1, 60_000)
    )
    yield "colliding-keys", proto(2) + b"}(" + colliding + b"u."
    yield (
        "counter",
        proto(4)
        + stack_name("collections", "Counter")
        + b"(N}"
        + short_text("update")
        + stack_name("builtins", "list")
        + b"stb0}.",
    )
    for kind in ("O8", "V1000000000", "U1000000000", "f8,O", "O", "M8", "S100000000"):
        yield (
            f"dtype-{kind}",
            proto(2)
            + name("numpy.core.multiarray", "scalar")
            + name("numpy", "dtype")
            + text(kind)
            + b"K\x00K\x01\x87R"
            + name("_codecs", "encode")
            + text("\x00" * 8)
            + text("latin1")
            + b"\x86R\x86R.",
        )
    yield (
        "array-of-objects",
        proto(2)
        + name("numpy.core.multiarray", "_reconstruct")
        + name("numpy", "ndarray")
        + b"K\x00\x85"
        + text("b")
        + b"\x87R(K\x01K\x04\x85"
        + name("numpy", "dtype")
        + text("O8")
        + b"K\x00K\x01\x87R\x89]tb.",
    )
    yield "codec", proto(2) + name("_codecs", "encode") + text("abc") + text("rot13") + b"\x86R."
    yield from collisions()


def collisions() -> Iterator[tuple[str, bytes]]:
    """Keys of one hash: every one is compared with all that are there."""
    count = 30_000
    a_complex = stack_name("builtins", "complex") + b"\x940"
    # hash(a + bj) = hash(a) + 1000003 * hash(b)
    numbers = b"".join(
        b"h\x00G" + struct.pack(">d", -1000003.0 * i) + b"G" + struct.pack(">d", i) + b"\x86R"
        for i in range(1, count)
    )
    pairs = b"".join(
        b"J" + struct.pack("<i", a) + b"\x8a\x08" + struct.pack("<q", b) + b"\x86"
        for a, b in colliding_pairs(count)
    )
    yield "colliding-complex", proto(4) + a_complex + b"\x8f(" + numbers + b"\x90."
    yield "colliding-frozenset", proto(4) + a_complex + b"(" + numbers + b"\x91."
    yield "colliding-pairs", proto(4) + b"\x8f(" + pairs + b"\x90."
    yield "colliding-dict", proto(4) + b"(" + pairs.replace(b"\x86", b"\x86N") + b"d."
    yield "colliding-items", proto(4) + b"}(" + pairs.replace(b"\x86", b"\x86N") + b"u."
    yield "colliding-set", proto(2) + name("__builtin__", "set") + b"](" + pairs + b"e\x85R."
    yield (
        "colliding-ordered",
        proto(2)
        + name("collections", "OrderedDict")
        + b"]("
        + pairs.replace(b"\x86", b"\x86N\x86")
        + b"e\x85R.",
    )


def colliding_pairs(count: int) -> list[tuple[int, int]]:
    """Pairs of integers of one hash, by CPython's algorithm (xxHash with fixed constants)."""
    mask, seed = 2**64 - 1, 2870177450012600261
    first, second = 11400714785074694791, 14029467366897019727

    def mixed(total: int) -> int:
        return ((total << 31 | total >> 33) & mask) * first & mask

    found, wanted, a = [], 12345678901234567, 0
    while len(found) < count:
        a += 1
        rest = (wanted - mixed(seed + a * second & mask)) * pow(second, -1, 1 << 64) & mask
        b = rest if rest < 1 << 63 else rest - (1 << 64)
        data = struct.pack("<iq", a, b)
        if abs(b) < 2**61 - 1 and b not in (-1, -2) and b"\x86" not in data:
            found.append((a, b))
    assert len({hash(pair) for pair in found}) == 1
    return found


def empty() -> bytes:
    return pickle.dumps({}, 2)
