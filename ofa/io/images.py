"""The one place where an image file is opened: base64 -> bytes -> PIL image in RGB, within bounds.

As upstream, transparency is dropped, not blended, and pixels of a TSV are taken as they lie in the
file. Unlike upstream, a truncated image is refused instead of filled with gray, and 16-bit gray
levels are scaled to 8 bits. Only formats with a decoder of their own are read: EPS starts programs.
"""

import base64
import binascii
import errno
import importlib
import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError, features  # noqa: F401

from ofa.errors import UserError, place
from ofa.io.image_limits import (
    MAX_PIXELS_ON_DEVICE,
    ImageTooLarge,
    check_header,
    check_image,
    check_tags,
)

# MPO, which phones write, is read by the plugin of JPEG. The plugins are imported here: a name that
# is not registered would make Pillow load all of them.
Image.preinit()
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"]
for _format, _feature in {"WebP": "webp", "Avif": "avif", "Jpeg2K": "jpg_2000"}.items():
    if features.check(_feature):
        importlib.import_module(f"PIL.{_format}ImagePlugin")
        FORMATS.append("JPEG2000" if _format == "Jpeg2K" else _format.upper())

# how image files begin that are kept as they are, by suffix
SUFFIXES = re.compile(
    rb"(?P<jpg>\xff\xd8\xff)|(?P<png>\x89PNG\r\n\x1a\n)|(?P<gif>GIF8)|(?P<tif>II\*\0|MM\0\*)"
    rb"|(?P<webp>RIFF....WEBP)",
    re.DOTALL,
)
# Beginnings of files that are taken for images, and are not read.
OTHERS = {
    b"%!PS": "EPS or PostScript",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"%PDF": "PDF",
    b"8BPS": "PSD",
    b"BLP": "BLP",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"\1\0\0\0": "EMF",
    b"\0\0\1\0": "ICO",
    b"\0\0\2\0": "CUR or TGA",
    b"DDS ": "DDS",
    b"SIMPLE": "FITS",
    b"\xd0\xcf\x11\xe0": "FPX",
    b"icns": "ICNS",
    b"qoif": "QOI",
    b"gimp xcf": "XCF",
    b"\x0a\5\1": "PCX",
    b"\x8aMNG": "MNG",
    b"\xff\x0a": "JPEG XL",
    b"GRIB": "GRIB",
    b"\x89HDF": "HDF5",
    b"<svg": "SVG",
    b"<": "HTML or XML (an error page, or SVG?)",
    b"PK": "a ZIP archive",
    b"\x1f\x8b": "gzip",
}
URL_SAFE = bytes.maketrans(b"-_", b"+/")
ORIENTATION = 0x0112  # the tag of EXIF and TIFF
METADATA = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # that may hold it
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPED = 5  # from this orientation on, width and height change places
MAX_FILE = 1 << 30  # bytes
ROWS = 256  # converted at a time

# --- base64


def suffix_of(data: bytes) -> str | None:
    """``jpg``, ``png``, ``gif``, ``tif`` or ``webp``, by the first 12 bytes or more of a file."""
    start = SUFFIXES.match(data)
    return start and start.lastgroup


def encode_image(data: bytes) -> str:
    """Image file -> TSV field (standard alphabet)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(field: str | bytes, where: str = "") -> bytes:
    """Bytes of a base64 field, standard or URL-safe alphabet, padded or not. Raises: UserError."""
    text = field.encode("utf-8") if isinstance(field, str) else field
    standard = text.translate(URL_SAFE, b"\r").rstrip(b"=")
    try:
        data = binascii.a2b_base64(standard + b"=" * (-len(standard) % 4), strict_mode=True)
        if data:
            return data
        finding = "an empty field; leave the row out, or give a grey image and its mask"
    except binascii.Error as error:
        finding = _base64_finding(text, error)
    raise UserError(f"{place(where)}expects an image file in base64, found {finding}")


def _base64_finding(text: bytes, error: Exception) -> str:
    start = text[:40].decode("utf-8", "replace")
    if text[:2] in (b"b'", b'b"'):
        remedy = "write b64encode(data).decode(), not str()"
        return f"{start[:12]}...: Python's notation of bytes; {remedy}"
    if text.startswith(b"data:"):
        return f"{start!r}...: a data URL; keep only what follows its comma"
    if text[:1] in (b'"', b"'"):
        return f"{start[:12]}...: a quoted field; write the TSV without quoting"
    if len(text) < 300 and (b"." in text or b" " in text):
        return f"{start!r}: a path or a sentence; is --selected-cols right (columns count from 0)?"
    return f"{start!r}... ({error}); was the field cut off, or is --selected-cols wrong?"


# --- opening a file


def read_image_file(path: str | Path) -> bytes:
    """The bytes of a regular file: a pipe or a device, which links may lead to, need not end.

    Raises: OSError, also for a name that no file can have, and for more than ``MAX_FILE`` bytes.
    """
    try:
        status = os.stat(path)
    except ValueError:  # a zero byte
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > MAX_FILE:
        raise OSError(errno.EFBIG, f"more than {MAX_FILE:,} bytes", str(path))
    return Path(path).read_bytes()


def decode_image(field: str | bytes, where: str = "", upright: bool = False) -> Image.Image:
    """Image in RGB of a base64 field.

    Args: where: ``file:row`` for messages. upright: turned as its EXIF orientation says.
    Raises: UserError if the field is no base64, no image, truncated or absurdly large.
    """
    return open_image(decode_base64(field, where), where, upright)


def open_image(data: bytes, where: str = "", upright: bool = False) -> Image.Image:
    """As ``decode_image``, of the bytes of a file (any mode that Pillow reads; the first frame)."""
    with _one_message(data, where):
        image, orientation = _opened(data, turns=upright, decode=True)
        image.info.pop("transparency", None)  # it is dropped, and Pillow would warn of that
        rgb = image if image.mode == "RGB" else to_rgb(image)
        if orientation != 1:
            rgb = rgb.transpose(TURNS[orientation])
        return Image.Image()._new(rgb.im)  # pixels alone: no metadata, no file, no copy


class UndecodedJpeg(Image.Image):
    """An image in RGB that is decoded when somebody asks for its pixels.

    Attributes: file: JPEG, in RGB or gray levels. where: for messages.
    """

    def __init__(self, file: bytes, size: tuple[int, int], where: str) -> None:
        super().__init__()
        self.file, self.where = file, where
        self._size, self._mode = size, "RGB"

    def load(self) -> Any:
        if self._im is None:
            self._im = open_image(self.file, self.where).im
        return super().load()


def open_undecoded(field: str | bytes, where: str = "") -> Image.Image:
    """As ``decode_image``, but what another decoder may be given comes as an `UndecodedJpeg`: a
    JPEG as most are, within all limits by its header, that ends with its last marker."""
    data = decode_base64(field, where)
    with _one_message(data, where):
        image, _ = _opened(data, turns=False, decode=False)
        width, height = image.size
        usual = image.format == "JPEG" and image.mode in ("RGB", "L")
        if usual and data.endswith(b"\xff\xd9") and width * height <= MAX_PIXELS_ON_DEVICE:
            return UndecodedJpeg(data, image.size, where)
    return open_image(data, where)


def decode_jpegs(files: list[Any], device: Any) -> list[Any]:
    """uint8[3, H, W] of files uint8[bytes] that ``open_undecoded`` let pass, on their device: by
    nvJPEG on a GPU of NVIDIA. Raises: RuntimeError if the decoder does not take one."""
    from torchvision.io import ImageReadMode, decode_jpeg  # half a second of imports

    decoder = device if device.type == "cuda" else "cpu"
    return decode_jpeg(files, ImageReadMode.RGB, decoder)


def image_header(data: bytes, where: str = "", whole: bool = False) -> tuple[tuple[int, int], int]:
    """Width and height of the stored pixels, and the EXIF orientation to apply (1: none).

    Args: whole: decode the file to its end; else a truncated file may pass.
    Raises: UserError as ``decode_image``.
    """
    with _one_message(data, where):
        image, orientation = _opened(data, turns=True, decode=whole)
        return image.size, orientation


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height after turning."""
    return (size[1], size[0]) if orientation >= SWAPPED else size


def upright_box(
    box: tuple[float, ...], size: tuple[int, int], orientation: int
) -> tuple[float, ...]:
    """A box xyxy of stored pixels in those of the upright image. Args: size: as stored."""
    (x0, y0, x1, y1), (width, height) = box, size
    if orientation in (2, 3, 7, 8):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 6, 7):
        y0, y1 = height - y1, height - y0
    return (y0, x0, y1, x1) if orientation >= SWAPPED else (x0, y0, x1, y1)


def upright_file(data: bytes, where: str = "", lossless: bool = False) -> bytes:
    """The file itself if its pixels are upright, else one that shows what a viewer shows.

    PNG and WebP keep every pixel; other formats become a PNG. A JPEG is encoded again with its own
    quantization tables, turned as well: photos of quality 88 change by 0.1 to 0.4 gray levels on
    average where the sides are multiples of 16, as cameras write them, else by 1.5 (with the
    tables of quality 95: 1.5 to 3). With ``lossless`` it becomes a PNG too.
    Raises: UserError as ``decode_image``.
    """
    with _one_message(data, where):
        if _opened(data, turns=True, decode=False)[1] == 1:
            return data
        image, orientation = _opened(data, turns=True, decode=True)
        turned = image.transpose(TURNS[orientation])
        for name in METADATA:
            turned.info.pop(name, None)
        file = io.BytesIO()
        if image.format in ("JPEG", "MPO") and not lossless:
            turned.save(file, "JPEG", **_jpeg_options(image, swapped=orientation >= SWAPPED))
        elif image.format == "WEBP":
            turned.save(file, "WEBP", lossless=True, exact=True, quality=50)
        elif image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            turned.save(file, "PNG")
        else:
            to_rgb(turned).save(file, "PNG")
        return file.getvalue()


def _jpeg_options(image: Any, swapped: bool) -> dict:
    """Args: swapped: the axes change places, also those of the tables and of the subsampling."""
    tables = [image.quantization[number] for number in sorted(image.quantization)]
    if swapped:
        tables = [[table[8 * (at % 8) + at // 8] for at in range(64)] for table in tables]
    factors = image.layer[0][1:3] if len(image.layer) == 3 else (1, 1)
    subsampling = {(2, 2): 2, (2, 1): 0 if swapped else 1}.get(factors, 0)
    icc = image.info.get("icc_profile")
    return {"qtables": tables, "subsampling": subsampling, **({"icc_profile": icc} if icc else {})}


@contextmanager
def _one_message(data: bytes, where: str) -> Iterator[None]:
    """Whatever opening raises becomes a UserError."""
    try:
        yield
        return
    except (ImageTooLarge, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        finding = f"a far too large one ({error}); make it smaller"
    except UnidentifiedImageError:
        other = _other_format(data)
        bytes_found = f"{len(data)} bytes that are none (they begin with {data[:8]!r})"
        finding = (
            f"{f'{other}, which is not read' if other else bytes_found}; export the image as JPEG"
            f" or PNG (read are {', '.join(FORMATS)})"
        )
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        reason = str(error) or type(error).__name__
        finding = f"a truncated or damaged one ({reason}); export it again, or remove the row"
    raise UserError(f"{place(where)}expects a whole image, found {finding}")


def _other_format(data: bytes) -> str:
    """Name of a format that is not read, or ""."""
    if data[4:8] == b"ftyp":
        return {b"avif": "AVIF", b"avis": "AVIF"}.get(data[8:12], "HEIC or a video")
    if data.startswith(b"\0\0\0\x0cjP") or data.startswith(b"\xff\x4f\xff\x51"):
        return "JPEG 2000"
    return next((name for start, name in OTHERS.items() if data.startswith(start)), "")


_lock = threading.RLock()
_lenient = False


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_new_lock)  # another thread may have held it


@contextmanager
def _strict() -> Iterator[None]:
    """Truncated files raise, even where another library has told Pillow to fill them with gray."""
    with _lock:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _opened(data: bytes, turns: bool, decode: bool) -> tuple[ImageFile.ImageFile, int]:
    """The image of a file, within all limits; its orientation, 1 unless ``turns``."""
    global _lenient
    check_header(data)
    _lenient |= ImageFile.LOAD_TRUNCATED_IMAGES
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    orientation = _orientation(image) if turns else 1
    check_image(image, data, turned=orientation != 1)
    if decode:
        with _strict() if _lenient else nullcontext():
            image.load()
    return image, orientation


def _orientation(image: Image.Image) -> int:
    """EXIF orientation that a decoded image still needs. Pillow turns a TIFF itself."""
    if image.format == "TIFF" or not any(name in image.info for name in METADATA):
        return 1
    try:
        check_tags(image.info.get("exif", b"").removeprefix(b"Exif\0\0"))
        orientation = image.getexif().get(ORIENTATION, 1)
        return orientation if orientation in TURNS else 1
    except Exception:  # broken EXIF data: the orientation is unknown, the pixels are fine
        return 1


# --- pixels


def upright_image(image: Image.Image) -> Image.Image:
    """RGB version of an open image, turned if it has an EXIF orientation.

    An image that is not decoded yet may be given by several threads at once.
    """
    with _lock:
        image.load()
        orientation = _orientation(image)
    rgb = to_rgb(image)
    for name in METADATA:
        rgb.info.pop(name, None)  # lest somebody turns it again
    return rgb if orientation == 1 else rgb.transpose(TURNS[orientation])


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB version of an image of any mode; 16-bit and float gray levels are scaled to 0..255."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(image), mode="L")
    elif image.mode == "La":  # gray with premultiplied alpha: PIL converts it to LA alone
        image = image.convert("LA")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """uint8[H, W] of other gray levels, some rows at a time: float64 takes 8 bytes a pixel."""
    width, height = image.size
    strips = [(0, top, width, min(top + ROWS, height)) for top in range(0, height, ROWS)]
    largest = 65535
    if image.mode.startswith("F"):
        largest = max(np.nanmax(np.asarray(image.crop(strip)), initial=0) for strip in strips)
    divisor = 257 if largest > 255 else 1  # 65535 -> 255
    factor = 255 if largest <= 1 else 1
    out = np.empty((height, width), np.uint8)
    for strip in strips:
        gray = np.asarray(image.crop(strip)).astype(np.float64) * factor / divisor
        out[strip[1] : strip[3]] = np.clip(np.rint(np.nan_to_num(gray)), 0, 255)
    return out
