"""Seeded damage: texts, files and images as careless programs, broken disks and unkind people
make them."""

import random
from collections.abc import Callable

# What has broken readers before: numbers at and beyond every limit, values that other programs
# write for "nothing", separators of our own formats, control characters, characters that are digits
# or spaces for Python alone, halves of longer encodings.
WORDS = (
    "",
    " ",
    "  ",
    "nan",
    "NaN",
    "None",
    "null",
    "inf",
    "-inf",
    "Infinity",
    "1e400",
    "-1e400",
    "1e39",
    "1e-400",
    "-1",
    "0",
    "00",
    "1_000",
    "0x10",
    "1.0",
    ".5",
    "5.",
    "+3",
    "99999999999999999999",
    "9" * 400,
    "2147483648",
    "-2147483649",
    "18446744073709551616",
    "true",
    "[]",
    "{}",
    "{'answer': 'yes'}",
    '{"a": 1}',
    "&&",
    "|!+",
    "&&&&",
    "|!+|!+",
    "1.0|!+",
    "|!+yes",
    "0.5|!+yes&&0.5|!+yes",
    ",",
    ",,,",
    "1,2,3",
    "1,2,3,4,5",
    "0,0,0,0",
    "9,9,1,1",
    "-5,-5,3,3",
    "nan,0,1,1",
    "0,0,inf,1",
    "1e39,0,1e39,9",
    "<bin_3>",
    "<bin_99999>",
    "<code_1>",
    "<mask>",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<image>",
    "{}",
    "{0}",
    "{text}",
    "%s",
    "%",
    "\\",
    "\\n",
    "\\x00",
    "\x00",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "\u200b",
    "\u202e",
    "\ud7ff",
    "\U0010ffff",
    "\U0001f600",
    "e\u0301",
    "\u0661\u0662",
    "\uff11",
    "\u00b2",
    "\u2167",
    "\u0130",
    "\ufb01",
    "ẞ",
    "你好",
    "？",
    "../../etc/passwd",
    "/dev/zero",
    "CON",
    "a/b",
    "~",
    "$(id)",
    "`id`",
    "; id",
    "'",
    '"',
    "b''",
    "data:image/png;base64,",
    "http://127.0.0.1:9/",
    "a" * 300,
    "a " * 300,
    "\r",
    "\r\n",
    "\x0b",
    "\x0c",
    "\x1c",
    "caption",
    "qa",
    "visual_grounding",
    "yes",
    "no",
    "maybe",
    "0.6|!+yes&&1.0|!+no",
    "1.0|!+a",
    "2|!+yes",
    "-1|!+yes",
    "nan|!+yes",
    "1e400|!+yes",
    "inf|!+yes",
)
BYTES = (
    b"",
    b"\x00",
    b"\xff",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\x80",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\n",
    b"\r\n",
    b"\t",
    b"\x7f" * 8,
    b"\xff" * 8,
    b"\x00" * 64,
)


def mutated_text(text: str, rng: random.Random) -> str:
    """One or a few changes of a text: words of the list above, cuts, doublings, moved and
    foreign characters."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = rng.choice(TEXT_CHANGES)(text, rng)
    return text


def mutated_bytes(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """One or a few changes of a file. Args: other: another file, whose parts are mixed in."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(BYTE_CHANGES)(data, rng, other)
    return data


def _span(length: int, rng: random.Random) -> tuple[int, int]:
    """Start and stop of a part, most often a short one."""
    start = rng.randint(0, length)
    return start, min(length, start + min(rng.choice((1, 1, 2, 4, 16, 256)), length))


def _replace(text: str, rng: random.Random) -> str:
    return rng.choice(WORDS)


def _insert(text: str, rng: random.Random) -> str:
    place = rng.randint(0, len(text))
    return text[:place] + rng.choice(WORDS) + text[place:]


def _cut(text: str, rng: random.Random) -> str:
    start, stop = _span(len(text), rng)
    return text[:start] + text[stop:]


def _double(text: str, rng: random.Random) -> str:
    start, stop = _span(len(text), rng)
    return text[:stop] + text[start:stop] * rng.choice((1, 2, 40)) + text[stop:]


def _overwrite(text: str, rng: random.Random) -> str:
    start, stop = _span(len(text), rng)
    return text[:start] + rng.choice(WORDS) + text[stop:]


def _character(text: str, rng: random.Random) -> str:
    place = rng.randint(0, len(text))
    code = rng.choice(
        (
            rng.randrange(32),
            rng.randrange(0x250),
            rng.randrange(0xD800),
            0x10000 + rng.randrange(0x20000),
        )
    )
    return text[:place] + chr(code) + text[place + 1 :]


def _flip(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place = rng.randrange(len(data)) if data else 0
    return (
        data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
        if data
        else b"\x00"
    )


def _overwrite_bytes(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start, stop = _span(len(data), rng)
    return data[:start] + rng.choice((rng.choice(BYTES), rng.randbytes(stop - start))) + data[stop:]


def _write_text(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start, stop = _span(len(data), rng)
    return data[:start] + rng.choice(WORDS).encode("utf-8", "replace") + data[stop:]


def _cut_end(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _cut_bytes(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start, stop = _span(len(data), rng)
    return data[:start] + data[stop:]


def _double_bytes(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start, stop = _span(len(data), rng)
    return data[:stop] + data[start:stop] * rng.choice((1, 2, 40)) + data[stop:]


def _mix(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start, stop = _span(len(other), rng)
    place = rng.randint(0, len(data))
    return data[:place] + other[start:stop] + data[place:]


def _number(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A count or a size in a header becomes zero, negative or huge."""
    width = rng.choice((2, 4, 8))
    place = rng.randint(0, max(0, len(data) - width))
    value = rng.choice(
        (
            0,
            1,
            (1 << (8 * width - 1)) - 1,
            1 << (8 * width - 1),
            (1 << 8 * width) - 1,
            rng.getrandbits(8 * width),
        )
    )
    return (
        data[:place] + value.to_bytes(width, rng.choice(("little", "big"))) + data[place + width :]
    )


TEXT_CHANGES: tuple[Callable[[str, random.Random], str], ...] = (
    _replace,
    _insert,
    _cut,
    _double,
    _overwrite,
    _character,
)
BYTE_CHANGES: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (
    _flip,
    _flip,
    _overwrite_bytes,
    _write_text,
    _cut_end,
    _cut_bytes,
    _double_bytes,
    _mix,
    _number,
)
