"""Small image files that ask a decoder for much memory or time: the worst of each format."""

import json
import os
import resource
import struct
import sys
import time
import zlib
from collections.abc import Iterable

SIDE = 13377  # squared just below the pixel limit


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(width: int, height: int, scans: int = 0, before: bytes = b"") -> bytes:
    """A gray JPEG of three components; each block takes two zero bits.

    Args: scans: AC scans of a progressive file; 0: baseline, -N: with N scans more. before:
        segments in front.
    """
    blocks = -(-width // 8) * -(-height // 8)
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    one_code = bytes([1] + 15 * [0])
    tables = segment(0xDB, b"\0" + 64 * b"\1") + segment(0xC4, b"\x00" + one_code + b"\0")
    if scans <= 0:
        tables += segment(0xC4, b"\x10" + one_code + b"\0")
        scan = segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 0, 63, 0])) + bytes(blocks * 6 // 8 + 1)
        data = scan * (1 - scans)
        return b"\xff\xd8" + before + segment(0xC0, frame) + tables + data + b"\xff\xd9"
    # a run of 16384 empty blocks: 1 + 14 zero bits
    tables += segment(0xC4, b"\x10" + one_code + b"\xe0")
    data = segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 0, 0, 0])) + bytes(blocks * 3 // 8 + 1)
    for scan in range(scans):
        data += segment(0xDA, bytes([1, scan % 3 + 1, 0, 1, 63, 0])) + bytes(
            blocks // 16384 * 15 // 8 + 4
        )
    return b"\xff\xd8" + before + segment(0xC2, frame) + tables + data + b"\xff\xd9"


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def deflated_zeros(count: int) -> bytes:
    """A zlib stream; a megabyte is packed once and repeated."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(count & 0xFFFFF)) + packer.flush()
    # Adler-32 of zeros
    return b"\x78\xda" + (count >> 20) * block + rest + struct.pack(">HH", count % 65521, 1)


def png(
    width: int,
    height: int,
    depth: int = 8,
    color: int = 2,
    before: Iterable[bytes] = (),
    interlaced: int = 0,
) -> bytes:
    """A black PNG. Args: color: type, 0 gray, 2 RGB, 3 palette, 6 RGBA. before: chunks in front of
    the pixels."""
    bits = depth * {0: 1, 2: 3, 3: 1, 6: 4}[color]
    body = deflated_zeros(height * (-(-width * bits // 8) + 1) * (2 if interlaced else 1))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))
    palette = chunk(b"PLTE", bytes(768)) if color == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + b"".join(before)
        + palette
        + chunk(b"IDAT", body)
        + chunk(b"IEND")
    )


def lzw_zeros(count: int) -> bytes:
    """LZW codes of GIF for zeros: each code is one pixel longer than the one before."""
    size, next_code, bits, filled, out = 9, 258, 0, 0, bytearray()

    def put(code: int) -> None:
        nonlocal bits, filled
        bits |= code << filled
        filled += size
        while filled >= 8:
            out.append(bits & 255)
            bits >>= 8
            filled -= 8

    put(256)
    put(0)
    left, run = count - 1, 1
    while left > 0:
        run += 1
        if next_code > 4095:
            put(4095)
            left -= 3839
            continue
        put(next_code)
        left -= run
        next_code += 1
        if next_code == 1 << size and size < 12:
            size += 1
    put(257)
    out.append(bits & 255)
    return bytes(out)


def blocks(data: bytes, size: int = 255) -> bytes:
    return (
        b"".join(
            bytes([len(part := data[at : at + size])]) + part for at in range(0, len(data), size)
        )
        + b"\0"
    )


def gif(
    width: int, height: int, screen: tuple[int, int] | None = None, before: bytes = b""
) -> bytes:
    head = (
        b"GIF89a"
        + struct.pack("<HHBBB", *(screen or (width, height)), 0xF7, 0, 0)
        + bytes(range(256)) * 3
    )
    image = (
        b","
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x08"
        + blocks(lzw_zeros(width * height))
    )
    return head + before + image + b";"


def bmp_rle(width: int, height: int) -> bytes:
    """One pixel per row and an end of line: the rest of the row is filled by the decoder."""
    body = b"\1\0\0\0" * height + b"\0\1"
    head = struct.pack("<IiiHHIIIIII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return (
        b"BM"
        + struct.pack("<IHHI", 14 + 40 + 1024 + len(body), 0, 0, 14 + 40 + 1024)
        + head
        + bytes(1024)
        + body
    )


def tiff(tags: dict[int, tuple[int, int, bytes | int]], data: bytes = b"") -> bytes:
    """A little-endian TIFF. Args: tags: tag -> (type, count, value or bytes that lie elsewhere).
    data: at offset 8."""
    elsewhere, entries, at = b"", b"", 8 + len(data)
    for tag, (kind, count, value) in sorted(tags.items()):
        if isinstance(value, bytes):
            entries += struct.pack("<HHII", tag, kind, count, at + len(elsewhere))
            elsewhere += value
        else:
            entries += struct.pack("<HHII", tag, kind, count, value)
    return (
        b"II*\0"
        + struct.pack("<I", at + len(elsewhere))
        + data
        + elsewhere
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def tiff_strip(
    width: int, height: int, depth: tuple[int, ...] = (8, 8, 8), photometric: int = 2, **more: int
) -> bytes:
    """A black TIFF in one deflated strip, or a tile. Args: more: further tags, as
    ``t322=65536``."""
    data = deflated_zeros(more.pop("unpacked", height * -(-width * sum(depth) // 8)))
    tags = {
        256: (4, 1, width),
        257: (4, 1, height),
        259: (3, 1, 8),
        262: (3, 1, photometric),
        277: (3, 1, len(depth)),
        258: (
            3,
            len(depth),
            struct.pack(f"<{len(depth)}H", *depth) if len(depth) > 2 else depth[0],
        ),
        273: (4, 1, 8),
        278: (4, 1, height),
        279: (4, 1, len(data)),
    }
    tags |= {int(name[1:]): (4, 1, value) for name, value in more.items()}
    if 322 in tags:
        tags = {tag: value for tag, value in tags.items() if tag not in (273, 278, 279)} | {
            324: (4, 1, 8),
            325: (4, 1, len(data)),
        }
    return tiff(tags, data)


class Bits:
    """Bits written from the lowest on."""

    def __init__(self):
        self.value, self.count = 0, 0

    def put(self, value: int, width: int) -> "Bits":
        self.value |= value << self.count
        self.count += width
        return self

    def data(self) -> bytes:
        return self.value.to_bytes(self.count // 8 + 1, "little")


def webp(
    width: int, height: int, alpha: int = 0, canvas: tuple[int, int] | None = None, frames: int = 1
) -> bytes:
    """A lossless WebP of one color: no bit at all per pixel. Args: canvas: of an animation."""
    bits = (
        Bits().put(0x2F, 8).put(width - 1, 14).put(height - 1, 14).put(alpha, 1).put(0, 3).put(0, 3)
    )
    for _ in range(5):
        bits.put(1, 1).put(0, 1).put(0, 1).put(0, 1)  # a prefix code of the single symbol 0
    stream = riff_chunk(b"VP8L", bits.data())
    if canvas:
        size = (canvas[0] - 1).to_bytes(3, "little") + (canvas[1] - 1).to_bytes(3, "little")
        frame = (
            bytes(6)
            + (width - 1).to_bytes(3, "little")
            + (height - 1).to_bytes(3, "little")
            + bytes(4)
            + stream
        )
        stream = (
            riff_chunk(b"VP8X", bytes([2, 0, 0, 0]) + size)
            + riff_chunk(b"ANIM", bytes(6))
            + frames * riff_chunk(b"ANMF", frame)
        )
    return b"RIFF" + struct.pack("<I", len(stream) + 4) + b"WEBP" + stream


def riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def jpeg2000(
    width: int,
    height: int,
    tile: tuple[int, int] | None = None,
    precinct: int | None = None,
    layers: int = 1,
    levels: int = 5,
    packets: int = 4096,
) -> bytes:
    """A JPEG 2000 codestream whose packets are all empty. Args: precinct: exponent of their
    side."""
    wide, high = tile or (width, height)
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, wide, high, 0, 0, 3) + 3 * bytes(
        [7, 1, 1]
    )
    coding = (
        bytes([precinct is not None, 0])
        + struct.pack(">HB", layers, 1)
        + bytes([levels, 4, 4, 0, 1])
    )
    coding += bytes([precinct | precinct << 4] * (levels + 1)) if precinct is not None else b""
    head = (
        b"\xff\x4f"
        + segment(0x51, size)
        + segment(0x52, coding)
        + segment(0x5C, bytes([0x40] + [0x40] * (3 * levels + 1)))
    )
    tiles = -(-width // wide) * -(-height // high)
    parts = b"".join(
        segment(0x90, struct.pack(">HIBB", number, 14 + packets, 0, 1))
        + b"\xff\x93"
        + bytes(packets)
        for number in range(min(tiles, 65535))
    )
    return head + parts + b"\xff\xd9"


def overlapping_tags(count: int, size: int) -> bytes:
    """A TIFF with as many tags, all of the same bytes."""
    data = bytes(size)
    entries = b"".join(
        struct.pack("<HHII", 5000 + number % 60000, 1, size, 8) for number in range(count)
    )
    return (
        b"II*\0"
        + (8 + size).to_bytes(4, "little")
        + data
        + count.to_bytes(2, "little")
        + entries
        + bytes(4)
    )


LARGEST = {  # what is still read, of each format and mode
    "jpeg": lambda: jpeg(SIDE, SIDE),
    "jpeg, progressive": lambda: jpeg(9900, 9900, 8),
    "jpeg, many scans": lambda: jpeg(1400, 1400, 999),
    "png": lambda: png(SIDE, SIDE),
    "png, 16 bit": lambda: png(11900, 11900, 16, 0),
    "png, alpha": lambda: png(11000, 11000, 16, 6),
    "gif": lambda: gif(12900, 12900),
    "gif, comment in single bytes": lambda: gif(8, 8, before=b"!\xfe" + b"\1x" * 49_000 + b"\0"),
    "bmp, runs": lambda: bmp_rle(2048, 2048),
    "tiff, float": lambda: tiff_strip(8700, 8700, (32,), 1, t339=3),
    "webp": lambda: webp(7900, 7900),
    "webp, animation": lambda: webp(2000, 2000, canvas=(2000, 2000), frames=5000),
    "jpeg 2000": lambda: jpeg2000(5400, 5400),
    "jpeg 2000, tiles": lambda: jpeg2000(4000, 4000, tile=(63, 63), packets=32),
    "ppm, text": lambda: b"P3 1180 1180 255 " + b"1 " * 3 * 1180 * 1180,
}
REFUSED = {
    "jpeg, scans behind the last": (lambda: jpeg(1400, 1400, -300), "damaged"),
    "jpeg, huge scans": (lambda: jpeg(SIDE, SIDE, 10), "bytes to decode"),
    "jpeg, scans without end": (lambda: jpeg(2000, 2000, 5000), "scans"),
    "jpeg, many pixels in many scans": (lambda: jpeg(8000, 8000, 100), "pixels in its scans"),
    "jpeg, comments": (lambda: jpeg(8, 8, before=segment(0xFE, b"") * 500_000), "segments"),
    "jpeg, EXIF in parts": (
        lambda: jpeg(8, 8, before=segment(0xE1, b"Exif\0\0abcdefgh") * 200_000),
        "segments",
    ),
    "jpeg, fill bytes": (lambda: jpeg(8, 8, before=b"\xff" * 10_000_000), "segments"),
    "png, 60000 x 60000": (
        lambda: png(8, 8).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)),
        ),
        "3600000000 pixels",
    ),
    "png, one pixel wide": (lambda: png(1, SIDE * SIDE, 1, 0), "on a side"),
    "png, 16 bit and alpha": (lambda: png(SIDE, SIDE, 16, 6), "bytes to decode"),
    "png, texts": (lambda: png(8, 8, before=[chunk(b"tEXt", b"a\0b")] * 200_000), "chunks"),
    "png, empty pixel chunks": (lambda: png(8, 8, before=[chunk(b"IDAT")] * 200_000), "chunks"),
    "png, packed text": (
        lambda: png(8, 8, before=[chunk(b"zTXt", b"a\0\0" + deflated_zeros(1 << 28))]),
        "too large",
    ),
    "png, packed texts": (
        lambda: png(8, 8, before=[chunk(b"zTXt", b"a\0\0" + deflated_zeros(1 << 20))] * 99),
        "Too much",
    ),
    "png, color profile": (
        lambda: png(8, 8, before=[chunk(b"iCCP", b"a\0\0" + deflated_zeros(1 << 28))]),
        "too large",
    ),
    "png, color profiles": (
        lambda: png(8, 8, before=[chunk(b"iCCP", b"a\0\0" + deflated_zeros(1 << 19))] * 999),
        "color profiles",
    ),
    "gif, logical screen": (lambda: gif(8, 8, (65535, 65535)), "too large"),
    "gif, extensions alone": (
        lambda: gif(8, 8, before=b"!\xff\0" * 500_000),
        "parts before the image",
    ),
    "gif, comment in single bytes": (
        lambda: gif(8, 8, before=b"!\xfe" + b"\1x" * 1_000_000 + b"\0"),
        "parts before the image",
    ),
    "gif, stray bytes": (lambda: gif(8, 8, before=bytes(1_000_000)), "parts before the image"),
    "bmp, runs": (lambda: bmp_rle(SIDE, SIDE), "slow form of BMP"),
    "tiff, float": (lambda: tiff_strip(SIDE, SIDE, (32,), 1, t339=3), "bytes to decode"),
    "tiff, tile": (
        lambda: tiff_strip(16, 16, t322=40000, t323=40000, unpacked=1 << 20),
        "pixels in a tile",
    ),
    "tiff, other compression": (lambda: tiff_strip(16, 16, t259=34925), "compression lzma"),
    "tiff, many tags": (lambda: overlapping_tags(60_000, 4), "60,000 tags"),
    "tiff, overlapping tags": (lambda: overlapping_tags(1000, 1 << 20), "bytes of tags"),
    "webp of 28 bytes": (lambda: webp(SIDE, SIDE), "bytes to decode"),
    "webp, canvas": (lambda: webp(8, 8, canvas=(60000, 60000)), "60000 x 60000"),
    "jpeg 2000": (lambda: jpeg2000(SIDE, SIDE), "bytes to decode"),
    "jpeg 2000, tiles": (lambda: jpeg2000(2550, 2550, tile=(10, 10), packets=32), "tiles"),
    "jpeg 2000, precincts": (lambda: jpeg2000(2000, 2000, precinct=1, levels=0), "precincts"),
    "ppm, text": (lambda: b"P3 3000 3000 255 1", "slow form of PPM"),
    "ppm, comment": (lambda: b"P6 #" + b"x" * 10_000_000 + b"\n1 1 255 abc", "header of PPM"),
    "blp": (
        lambda: b"BLP2\1\0\0\0\1\0\0\0" + (20000).to_bytes(4, "little") * 2 + bytes(264),
        "BLP, which is not read",
    ),
    "eps": (
        lambda: (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
        ),
        "EPS or PostScript",
    ),
}
CASES = LARGEST | {f"refused: {name}": make for name, (make, _) in REFUSED.items()}
ACTS_WATCHED = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
)
OTHER_PLUGINS = (
    "PIL.EpsImagePlugin",
    "PIL.BlpImagePlugin",
    "PIL.PsdImagePlugin",
    "PIL.WmfImagePlugin",
)


acts: list[str] = []


def watch(event: str, arguments: tuple) -> None:
    """An audit hook: processes, sockets and files that are opened for writing."""
    writes = (
        event == "open"
        and isinstance(arguments[2], int)
        and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    )
    if event in ACTS_WATCHED or writes:
        acts.append(f"{event} {arguments}"[:200])


def report(name: str) -> dict:
    """What opening a file of ``CASES`` took and did: found, CPU seconds, MB above what the process
    had, acts."""
    from ofa.io.images import open_image

    data = CASES[name]()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        found = str(open_image(data, "a.tsv:7", upright=True).size)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    plugins = [plugin for plugin in OTHER_PLUGINS if plugin in sys.modules]
    return {"found": found, "seconds": seconds, "mb": megabytes, "acts": acts + plugins}


if __name__ == "__main__":
    sys.addaudithook(watch)
    print(json.dumps({name: report(name) for name in sys.argv[1:]}))
