"""What an image file may ask of this machine: checked in its headers, before a decoder begins.

A file of 28 bytes can stand for 180 million pixels; tests/unit/test_image_limits.py opens the worst
file of each format.
"""

import re
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image

MAX_PIXELS = 178_956_970  # Pillow's own limit, kept even where another library has lifted it
MAX_PIXELS_ON_DEVICE = 1 << 24  # of an image that is decoded there: several are at once
MAX_SIDE = 65_535  # of a JPEG; beyond it Pillow's row pointers take more memory than the pixels
MAX_BYTES = 1_000_000_000  # that decoding may take
# Pixels times channels where Pillow's decoder is Python (text PPM, BMP with runs): 3 s.
MAX_PYTHON_VALUES = 1 << 22
# Segments and bytes of a JPEG before its first scan: 255 of a color profile, and large metadata.
MAX_SEGMENTS, MAX_HEAD = 500, 16 << 20
MAX_SCANS, MAX_SCANNED = 1000, 2_000_000_000  # scans of a JPEG, and their pixels together
MAX_CHUNKS, MAX_PROFILES = 100_000, 16  # of a PNG
# Bytes of all tags of a TIFF or of EXIF data, which may share them, and parts of a GIF before its
# first image: Pillow before 13 copies the first for each tag, and a comment anew for each part.
MAX_TAG_BYTES, MAX_PARTS = 100_000_000, 50_000
MAX_PPM_HEAD = 1 << 16  # Pillow reads it byte by byte
PPM_HEAD = re.compile(
    rb"P(?:[14](?:(?:\s|#[^\r\n]*[\r\n])+\d+){2}|[^14](?:(?:\s|#[^\r\n]*[\r\n])+[\d.+-]+){3})\s"
)
MAX_TILES, MAX_PIECES = 4096, 500_000  # of JPEG 2000: tiles, and precincts or code blocks

# Bytes per pixel while a format is decoded, besides the image itself; of JPEG 2000 twice that, for
# its decoder is the slowest.
DECODER_BYTES = {"WEBP": 12, "AVIF": 14, "JPEG2000": 30, "TIFF": 4, "GIF": 1}
# ... and of the image in its own mode, with one byte more where gray levels are scaled.
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 3, "I;16B": 3, "I;16L": 3, "I;16N": 3, "I": 5, "F": 5}
MAX_TAGS = 1000  # of a TIFF or of EXIF data: Pillow warns of each that is damaged
TAG_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # by kind
TAG_BYTES |= dict.fromkeys((1, 2, 6, 7), 1)
COMPRESSIONS = (  # of TIFF
    *("raw", "tiff_ccitt", "group3", "group4", "tiff_lzw", "jpeg"),
    *("tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd", "webp"),
)


class ImageTooLarge(ValueError):
    """What a file asks for, and the limit: ``60000 x 60000 pixels, more than 178,956,970``."""


def _limit(found: int, limit: int, what: str) -> None:
    if found > limit:
        raise ImageTooLarge(f"{found:,} {what}, more than {limit:,}")


def check_header(data: bytes) -> None:
    """Raises: ImageTooLarge if the structure alone costs much, before Pillow sees the file."""
    if data.startswith(b"\xff\xd8"):
        _limit(_scan_start(data)[1], MAX_SEGMENTS, "segments before the pixels")
    elif data.startswith(b"\x89PNG"):
        _check_chunks(data)
    elif data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":  # its decoder takes memory at once
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        _limit(width * height, MAX_PIXELS, f"pixels of {width} x {height}")
    elif data.startswith(b"GIF8"):
        _check_extensions(data)
    elif data.startswith((b"II", b"MM")):
        check_tags(data)
    elif data.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")):
        _check_codestream(data)
    elif data.startswith(b"P") and len(data) > MAX_PPM_HEAD:
        if not PPM_HEAD.match(data, 0, MAX_PPM_HEAD):
            raise ImageTooLarge(f"a header of PPM of more than {MAX_PPM_HEAD:,} bytes")


def check_image(image: Image.Image, data: bytes, turned: bool = False) -> None:
    """Refuse an image that is open, but not decoded.

    Args: data: its file. turned: a second copy of it will be made. Raises: ImageTooLarge.
    """
    width, height = image.size
    pixels = width * height
    if pixels > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ImageTooLarge(
            f"{width} x {height} pixels, more than {MAX_PIXELS:,}, or {MAX_SIDE:,} on a side"
        )
    tiles = getattr(image, "tile", [])
    if any(tile[0] in Image.DECODERS for tile in tiles):
        values = pixels * len(image.getbands())
        _limit(values, MAX_PYTHON_VALUES, f"values in a slow form of {image.format}")
    per_pixel = MODE_BYTES.get(image.mode, 4) + DECODER_BYTES.get(image.format or "", 0)
    per_pixel += 4 * (image.mode != "RGB") + 4 * turned
    if image.format in ("JPEG", "MPO"):
        per_pixel += _coefficient_bytes(image, data, pixels)
    if image.format == "TIFF":
        _check_tiff(image)
    _limit(pixels * per_pixel, MAX_BYTES, f"bytes to decode {width} x {height} pixels")


# --- JPEG


def _scan_start(data: bytes) -> tuple[int, int]:
    """Offset of the first scan, and how many segments and stray bytes lead there.

    At most one above the limit. Raises: ImageTooLarge if they are too long.
    """
    at, steps = 2, 0
    while steps <= MAX_SEGMENTS and at + 4 <= len(data) and data[at : at + 2] != b"\xff\xda":
        is_segment = data[at] == 0xFF and data[at + 1] not in (0x00, 0xFF)
        has_length = is_segment and not 0xD0 <= data[at + 1] <= 0xD8 and data[at + 1] != 0x01
        at += 2 + int.from_bytes(data[at + 2 : at + 4]) if has_length else 2 if is_segment else 1
        steps += 1
    if at > MAX_HEAD and steps <= MAX_SEGMENTS:
        _limit(at, MAX_HEAD, "bytes before the pixels")
    return at, steps


def _coefficient_bytes(image: Image.Image, data: bytes, pixels: int) -> int:
    """Bytes per pixel of the coefficients that a JPEG of several scans keeps.

    Raises: ImageTooLarge if there are too many scans. Behind one that holds all components the
    decoder takes no other, and counting would need 5 % of the time of decoding.
    """
    start, _ = _scan_start(data)
    layers = len(getattr(image, "layer", ())) or 3
    if not image.info.get("progressive") and data[start + 4 : start + 5] >= bytes([layers]):
        return 0
    scans = data.count(b"\xff\xda", start)  # pixels have no such bytes: 0 follows each 0xff
    _limit(scans, MAX_SCANS, "scans")
    _limit(scans * pixels, MAX_SCANNED, "pixels in its scans")
    return 2 * layers


# --- PNG


def _check_chunks(data: bytes) -> None:
    at, chunks, profiles = 8, 0, 0
    while at + 8 <= len(data) and chunks <= MAX_CHUNKS:
        chunks += 1
        profiles += data[at + 4 : at + 8] == b"iCCP"  # each is unpacked, up to 1 MB
        at += 12 + int.from_bytes(data[at : at + 4])
    _limit(chunks, MAX_CHUNKS, "chunks")
    _limit(profiles, MAX_PROFILES, "color profiles")


# --- GIF


def _check_extensions(data: bytes) -> None:
    has_palette = len(data) > 10 and data[10] & 0x80
    at, parts = 13 + (3 << (data[10] & 7) + 1 if has_palette else 0), 0
    while at < len(data) and data[at] not in b",;" and parts <= MAX_PARTS:
        parts += 1
        if data[at : at + 1] != b"!":  # a stray byte
            at += 1
            continue
        at += 2
        while at < len(data) and data[at] and parts <= MAX_PARTS:
            at += 1 + data[at]
            parts += 1
        at += 1
    _limit(parts, MAX_PARTS, "parts before the image")


# --- TIFF


def check_tags(data: bytes) -> None:
    """Args: data: a TIFF file, or EXIF data without the word in front. Raises: ImageTooLarge."""
    order, is_big = "<>"[data[:2] == b"MM"], 43 in data[2:4]
    try:
        start = struct.unpack_from(order + ("Q" if is_big else "L"), data, 8 if is_big else 4)[0]
        count = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)[0]
    except (struct.error, OverflowError):
        return  # too short for Pillow as well
    _limit(count, MAX_TAGS, "tags")
    entries = data[start + (8 if is_big else 2) :][: count * (20 if is_big else 12)]
    entry = struct.Struct(order + ("HHQ8x" if is_big else "HHL4x"))
    whole = entries[: len(entries) // entry.size * entry.size]
    total = 0
    for _, kind, values in entry.iter_unpack(whole):
        total += min(values * TAG_BYTES.get(kind, 0), len(data))
    _limit(total, MAX_TAG_BYTES, "bytes of tags")


def _check_tiff(image: Any) -> None:
    compression = str(image.info.get("compression"))
    if compression not in COMPRESSIONS:
        known = ", ".join(COMPRESSIONS)
        raise ValueError(f"the compression {compression}, which is not read; read are {known}")
    wide, high = (image.tag_v2.get(tag, 0) for tag in (322, 323))  # TileWidth, TileLength
    if isinstance(wide, int) and isinstance(high, int):
        most = max(MAX_PIXELS // 8, 4 * image.width * image.height)
        _limit(wide * high, most, "pixels in a tile")


# --- JPEG 2000


def _check_codestream(data: bytes) -> None:
    """Tiles, precincts and code blocks have structures that are made before any data is read."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 44:
        return
    width, height, x0, y0, tile_width, tile_height = struct.unpack_from(">6I", data, at + 8)
    components = struct.unpack_from(">H", data, at + 40)[0]
    width, height = max(0, width - x0), max(0, height - y0)
    tiles = -(-width // max(1, tile_width)) * -(-height // max(1, tile_height))
    _limit(tiles, MAX_TILES, "tiles")
    for marker, body in _coding_segments(data, at + 2):
        is_cod = marker == 0x52
        smallest = _piece_bits(body if is_cod else body[1 + (components > 256) :], is_cod)
        levels = (width * height * 4 // 3 >> smallest) + 33 * tiles  # all resolutions of them
        _limit(levels * min(components, 4), MAX_PIECES, "precincts or code blocks")


def _coding_segments(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each COD (0x52) and COC (0x53), of the whole and of parts of tiles."""
    part_end = parts = 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker == 0x90:  # SOT: a part of a tile
            parts += 1
            _limit(parts, 4 * MAX_TILES, "parts of tiles")
            size = int.from_bytes(data[at + 6 : at + 10])
            part_end = at + size if size else len(data)
        elif marker == 0x93:  # SOD: its packets
            at = part_end if part_end > at else len(data)
            continue
        elif marker in (0x52, 0x53):
            yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _piece_bits(body: bytes, is_cod: bool) -> int:
    """Logarithm of the pixels of the smallest code block or precinct."""
    start = 5 if is_cod else 1
    if len(body) < start + 5:
        return 0
    block = (body[start + 1] & 15) + 2 + (body[start + 2] & 15) + 2
    precincts = [(byte & 15) + (byte >> 4) for byte in body[start + 5 :]] if body[0] & 1 else []
    return min([block, *precincts])
