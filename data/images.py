"""Image fields of a TSV: base64 text -> PIL image in RGB -> float32[3, S, S].

As in the release: an image is converted by ``convert("RGB")`` (transparency is dropped, not blended) and
squashed to a square, its aspect not kept. The EXIF orientation is not applied unless asked for: the
released checkpoints saw pixels as they lie in the file; broken EXIF data never matters then. Two things
differ from the release on purpose: a truncated image is refused instead of filled with grey, and 16-bit
grey levels are scaled to 8 bits instead of being clipped to white.
"""

import base64
import binascii
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from ofa.errors import UserError, place

if TYPE_CHECKING:
    from torchvision import transforms

OFA_MEAN = OFA_STD = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_PIXELS = 178_956_970  # PIL's own limit, kept even where another library has lifted it
URL_SAFE = bytes.maketrans(b"-_", b"+/")


def decode_image(field: str | bytes, where: str = "", upright: bool = False) -> Image.Image:
    """Image in RGB of a base64 field.

    Args:
        field: base64 of an image file, standard or URL-safe alphabet, padded or not.
        where: ``file:row`` for messages. upright: turn the image as its EXIF orientation says.
    Raises: UserError if the field is no base64, no image, truncated or absurdly large.
    """
    return open_image(decode_base64(field, where), where, upright)


def decode_base64(field: str | bytes, where: str = "") -> bytes:
    """Bytes of a base64 field. Raises: UserError with what the field looks like instead."""
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
        return f"{start[:12]}...: Python's notation of bytes; write b64encode(data).decode(), not str()"
    if text.startswith(b"data:"):
        return f"{start!r}...: a data URL; keep only what follows its comma"
    if text[:1] in (b'"', b"'"):
        return f"{start[:12]}...: a quoted field; write the TSV without quoting"
    if len(text) < 300 and (b"." in text or b" " in text):
        return f"{start!r}: a path or a sentence; is --selected-cols right (columns count from 0)?"
    return f"{start!r}... ({error}); was the field cut off, or is --selected-cols wrong?"


def open_image(data: bytes, where: str = "", upright: bool = False) -> Image.Image:
    """Image in RGB of the bytes of an image file (any format and mode that PIL reads; the first frame).

    Raises: UserError as ``decode_image``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's remarks on palettes, EXIF and size; errors still raise
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            image.load()
            if upright:
                image = _upright(image)
            return to_rgb(image)
    except Image.DecompressionBombError as error:
        finding = f"a far too large one ({error}); make it smaller than {MAX_PIXELS:,} pixels"
    except Image.UnidentifiedImageError:
        finding = (
            f"{len(data)} bytes that are none (they begin with {data[:8]!r}); export the image as JPEG or PNG"
        )
    except Exception as error:  # PIL's decoders raise nearly anything on damaged data
        reason = str(error) or type(error).__name__
        finding = f"a truncated or damaged one ({reason}); export it again, or remove the row"
    raise UserError(f"{place(where)}expects a whole image, found {finding}")


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB version of an image of any mode; 16-bit and float grey levels are scaled to 0..255."""
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image, dtype=np.float64)
        if image.mode.startswith("I") or grey.max(initial=0) > 255:
            grey = grey / 257  # 65535 -> 255
        elif grey.max(initial=0) <= 1:
            grey = grey * 255
        image = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8), mode="L")
    elif image.mode == "La":  # grey with premultiplied alpha: PIL converts it to LA alone
        image = image.convert("LA")
    return image.convert("RGB")


def image_transform(
    size: int, mean: tuple[float, ...] = OFA_MEAN, std: tuple[float, ...] = OFA_STD
) -> "transforms.Compose":
    """PIL image in RGB -> float32[3, size, size], normalised; picklable.

    Squashed to a square by PIL's bicubic filter: matches the released checkpoints
    (tests/parity/test_images.py). ``--imagenet-default-mean-and-std`` takes IMAGENET_MEAN and IMAGENET_STD.
    """
    from torchvision import transforms  # seconds to import, and decoding needs none of it
    from torchvision.transforms import InterpolationMode

    return transforms.Compose(
        [
            transforms.Resize((size, size), interpolation=InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(mean=mean, std=std),
        ]
    )


def encode_image(data: bytes) -> str:
    """Image file -> TSV field (standard alphabet)."""
    return base64.b64encode(data).decode("ascii")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data: the orientation is unknown, the pixels are fine
        return image
