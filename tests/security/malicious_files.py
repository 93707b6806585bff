"""Files of our own making that would run code, take all memory or never end, for every reader.

for case in malicious_files(folder): ...        # case.reader says who reads case.path
"""

import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pickle_programs as programs

PLAIN_READERS = ("label", "frequencies", "index", "plain")
WEIGHT_READERS = ("checkpoint", "mapped", "clip", "vqgan", "vq_vae", "source", "folder", "complete")
LEGACY = b"".join(
    pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)


@dataclass(frozen=True)
class Case:
    reader: str
    path: Path


def malicious_files(folder: Path, marker: Path) -> Iterator[Case]:
    """Args: folder: to write into. marker: the file that would be there if a call ran."""
    made = 0

    def write(reader: str, suffix: str, content: bytes) -> Case:
        nonlocal made
        made += 1
        path = folder / f"{made:05}{suffix}"
        path.write_bytes(content)
        return Case(reader, path)

    plain, weights = cycle(PLAIN_READERS), cycle(WEIGHT_READERS)
    argument = f"touch {marker} #"
    for number, (name, content) in enumerate(
        (*programs.calls(argument), *programs.references(), *programs.bombs())
    ):
        every = "-" not in name or number >= len(programs.TARGETS) * (len(programs.FORMS) + 1)
        for reader in PLAIN_READERS if every else (next(plain),):
            yield write(reader, ".pkl", content)
        for reader in WEIGHT_READERS if every else (next(weights),):
            yield write(reader, ".pt", new_file(content))
        yield write("checkpoint", ".pt", LEGACY + content + pickle.dumps([], 2))
    for lie in LIES:
        for reader in ("checkpoint", "mapped"):
            yield write(reader, ".pt", new_file(tensor(**lie)))
        yield write("checkpoint", ".pt", old_file(tensor(**lie, view=b"N")))
    for content in strange_tensors():
        yield write("checkpoint", ".pt", new_file(content))
        yield write("checkpoint", ".pt", old_file(content))
    for content in archives():
        for reader in ("checkpoint", "clip", "source"):
            yield write(reader, ".pt", content)
    for reader, suffix, content in texts(marker):
        yield write(reader, suffix, content)


def archive(
    records: dict[str, bytes], prefix: str = "archive/", compression: int = zipfile.ZIP_STORED
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in records.items():
            made.writestr(prefix + name, content)
    return file.getvalue()


def new_file(content: bytes) -> bytes:
    """A checkpoint as torch writes it since 1.6, with a storage of 16 bytes.

    Args: content: its pickle.
    """
    return archive(
        {"data.pkl": content, "byteorder": b"little", "version": b"3\n", "data/0": bytes(16)}
    )


def old_file(content: bytes) -> bytes:
    """A checkpoint as older versions of torch wrote it."""
    return LEGACY + content + pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(16)


# --- tensors that lie -----------------------------------------------------------------------------


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    elements: int = 4,
    offset: int = 0,
    size: tuple = (2,),
    stride: tuple = (1,),
    key: str = "0",
    kind: str = "FloatStorage",
    view: bytes = b"",
) -> bytes:
    """``{"model": {"a": a tensor}}``: of 16 bytes, which are 4 elements.

    Args: view: what files of older versions say besides.
    """
    storage = (
        b"("
        + programs.text("storage")
        + programs.name("torch", kind)
        + programs.text(key)
        + programs.text("cpu")
        + number(elements)
        + view
        + b"tQ"
    )
    rebuilt = (
        programs.name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + storage
        + number(offset)
        + numbers(*size)
        + numbers(*stride)
        + b"\x89}tR"
    )
    return (
        programs.proto(2)
        + b"}"
        + programs.text("model")
        + b"}"
        + programs.text("a")
        + rebuilt
        + b"ss."
    )


LIES = [
    {"elements": 2**38},
    {"elements": -4},
    {"elements": 100, "size": (100,)},
    {"size": (5,)},
    {"offset": 3},
    {"offset": 2**62},
    {"offset": -1},
    {"size": (2, 2), "stride": (2**40, 1)},
    {"stride": (-1,)},
    {"size": (-2,)},
    {"size": (2**32, 2**32), "stride": (0, 0)},
    {"size": (2**40,), "stride": (0,)},
    {"stride": (1, 1)},
    {"key": "../version"},
    {"kind": "NoSuchStorage"},
    {"elements": 100, "kind": "ComplexDoubleStorage"},
]


def strange_tensors() -> Iterator[bytes]:
    rebuild = programs.name("torch._utils", "_rebuild_tensor_v2")
    yield programs.proto(2) + rebuild + b"(" + programs.text("storage") + b"K\x00)))tR."
    yield (
        programs.proto(2)
        + rebuild
        + b"}"
        + programs.text("__defaults__")
        + programs.text("x")
        + b"sb."
    )


# --- archives that lie ----------------------------------------------------------------------------


def zeros(size: int) -> bytes:
    """A deflated stream of zeros, made of one block again and again."""
    block = 1 << 24
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * (size // block) + b"\x03\x00"


GOOD = {
    "data.pkl": programs.empty(),
    "byteorder": b"little",
    "version": b"3\n",
    "data/0": bytes(16),
}


def bomb(
    name: str,
    size: int,
    claimed: int | None = None,
    others: dict[str, bytes] = GOOD,
    prefix: str = "archive/",
) -> bytes:
    """An archive with a record that is ``size`` bytes unpacked, and says so or lies.

    Args: others: records beside it.
    """
    data = archive({other: content for other, content in others.items() if other != name}, prefix)
    start = data.rindex(b"PK\5\6") if not others else data.index(b"PK\1\2")
    entries, count = data[start : data.rindex(b"PK\5\6")], struct.unpack("<H", data[-12:-10])[0]
    packed, raw = zeros(size), (prefix + name).encode()
    numbers = (0, 0, 0, len(packed), claimed or size, len(raw), 0)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, *numbers) + raw + packed
    entries += (
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, *numbers, 0, 0, 0, 0, start) + raw
    )
    return (
        data[:start]
        + local
        + entries
        + struct.pack(
            "<4s4H2LH", b"PK\5\6", 0, 0, count + 1, count + 1, len(entries), start + len(local), 0
        )
    )


def archives() -> Iterator[bytes]:
    for name in ("data.pkl", "data/0", "byteorder", "version", ".storage_alignment"):
        yield bomb(name, 3 << 30)
        yield bomb(name, 1 << 24, claimed=16)
    yield archive(GOOD, compression=zipfile.ZIP_DEFLATED)
    yield archive({**GOOD, "constants.pkl": programs.empty(), "code/__torch__.py": b"import os"})
    yield overlapping(GOOD)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as twice, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in (
            *GOOD.items(),
            ("data.pkl", programs.proto(2) + programs.reduce_2("os", "system", "true") + b"."),
        ):
            twice.writestr(f"archive/{name}", content)
    yield file.getvalue()
    yield archive(GOOD)[:-30]
    yield b"PK\3\4" + bytes(100)
    yield b"PK\5\6" + bytes(18)
    yield tar(
        {"storages": pickle.dumps(0, 2), "tensors": pickle.dumps(0, 2), "pickle": programs.empty()}
    )
    yield tar({"storages": None})


def overlapping(records: dict[str, bytes]) -> bytes:
    """Many entries of one record."""
    data = archive(records)
    start = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    entries, count = data[start:end] * 200, len(records) * 200
    return (
        data[:start]
        + entries
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(entries), start, 0)
    )


def tar(members: dict[str, bytes | None]) -> bytes:
    """As torch 0.1 saved; a member without content is a link out of the folder."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = len(content or b"")
            made.addfile(info, io.BytesIO(content or b""))
    return file.getvalue()


# --- YAML, JSON, safetensors, npz -----------------------------------------------------------------


def texts(marker: Path) -> Iterator[tuple[str, str, bytes]]:
    """(reader, suffix, content)"""
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
    )
    merges = "a0: &a0 {k: x}\n" + "".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30)
    )
    for content in (
        laughs,
        merges,
        "[" * 100_000,
        "{" * 100_000,
        "- " * 50_000,
        "a: &a [*a]",
        "&a [*a, *a]",
        "? " * 20_000,
        f"!!python/object/apply:os.system [touch {marker}]",
        f"!!python/object/new:os.system [touch {marker}]",
        "!!python/name:os.system",
        "!!python/module:antigravity",
        f"!!python/object/apply:subprocess.Popen [[touch, {marker}]]",
        "a: !!int " + "9" * 100_000,
        "a: 1" + ":1" * 400_000,
        "a: [" + "1," * 100_000 + "]",
        "!!timestamp x",
        "!!binary '=='",
        "x" * (2 << 20),
        "model: {params: {ddconfig: " + "[" * 500 + "]" * 500 + "}}",
        description(ch=32, num_res_blocks=10**9),
        description(n_embed=10**15),
        description(ch=32 * 10**12),
        description(ch_mult=[1] * 10_000),
        description(ch_mult=["x", [1]]),
        "\0",
        "%YAML 9.9\n---\na",
    ):
        yield "yaml", ".yaml", content.encode()
    deep, long = "[" * 200_000, "9" * 200_000
    for content in (
        deep,
        deep + "]" * 200_000,
        '{"a":' * 100_000,
        '{"a":' * 99_000 + "1" + "}" * 99_000,
        long,
        f"[{long}]",
        f'{{"a": {long}}}',
        "[NaN]",
        "[1e999]",
        '{"model": {"_target_": "os.system"}}',
        "\ufeff{}",
        '{"a": "\\ud800"}',
        "[" + "[]," * 200_000 + "[]]",
    ):
        for reader in ("label_json", "mixture", "results", "config"):
            yield reader, ".json", content.encode()
    for header in (
        deep,
        '{"a":' * 100_000,
        "{}",
        '{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}',
        '{"a":{"dtype":"O","shape":[2],"data_offsets":[0,16]}}',
        '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}',
        '{"__metadata__":{"ofa":'
        + json.dumps(deep)
        + '},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        (
            '{"__metadata__":{"ofa":"{\\"shared\\":'
            ' [1]}"},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
        ),
        '{"__metadata__":{"ofa":"[]"},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    ):
        yield (
            "checkpoint",
            ".safetensors",
            struct.pack("<Q", len(header)) + header.encode() + bytes(16),
        )
    for length in (2**63, 99_000_000, 2):
        yield "checkpoint", ".safetensors", struct.pack("<Q", length) + b"{" + bytes(64)
    for content in statistics():
        yield "statistics", ".npz", content


def description(**changed: object) -> str:
    """The ``model.yaml`` of a small VQGAN, with something changed."""
    values = {
        "z_channels": 4,
        "resolution": 16,
        "ch": 32,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [8],
        "in_channels": 3,
        "out_ch": 3,
        "double_z": False,
        "n_embed": 8,
        "embed_dim": 4,
        **changed,
    }
    return json.dumps(
        {
            "model": {
                "target": "x.VQModel",
                "params": {
                    "n_embed": values.pop("n_embed"),
                    "embed_dim": values.pop("embed_dim"),
                    "ddconfig": values,
                },
            }
        }
    )


def statistics() -> Iterator[bytes]:
    def npy(header: str, data: bytes = bytes(64)) -> bytes:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data

    for header in (
        "{'descr': '|O', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
        "(" * 5000,
        "-" * 60_000 + "1",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (4,)}",
        "__import__('os').system('true')",
    ):
        yield archive({"mu.npy": npy(header), "sigma.npy": npy(header)}, prefix="")
    yield archive(
        {
            "mu.npy": programs.proto(2) + programs.reduce_2("os", "system", "true") + b".",
            "sigma.npy": b"",
        },
        prefix="",
    )
    yield bomb("mu.npy", 3 << 30, others={}, prefix="")
    yield bomb("mu.npy", 1 << 28, claimed=128, others={}, prefix="")
    yield programs.proto(2) + programs.reduce_2("os", "system", "true") + b"."
    yield b""
