"""Image fields as broken and unkind files make them."""

import base64
import io
import random
from functools import cache

from fuzz.mutations import mutated_bytes, mutated_text
from PIL import Image

FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "TIFF",
    "WEBP",
    "PPM",
    "TGA",
    "ICO",
    "PCX",
    "EPS",
    "SGI",
    "DIB",
    "PDF",
    "JPEG2000",
    "AVIF",
)
MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "GIF": ("P", "L"),
    "TIFF": ("1", "L", "RGB", "RGBA", "CMYK", "F", "I;16"),
}


@cache
def whole_images() -> tuple[bytes, ...]:
    """Files of every format that can be written here, in several modes; small and not of one
    color."""
    gradient = Image.linear_gradient("L").resize((40, 30))
    found = []
    for name in FORMATS:
        for mode in MODES.get(name, ("RGB",)):
            file = io.BytesIO()
            try:
                gradient.convert(mode).save(file, name)
            except (
                OSError,
                ValueError,
                KeyError,
            ):  # a format or mode that this Pillow cannot write
                continue
            found.append(file.getvalue())
    return tuple(found)


def damaged_image(rng: random.Random) -> str:
    """A field: an image file in base64, damaged before or after it was encoded."""
    whole = rng.choice(whole_images())
    if rng.random() < 0.8:
        whole = mutated_bytes(whole, rng, rng.choice(whole_images()))
    field = base64.b64encode(whole).decode("ascii")
    field = mutated_text(field, rng) if rng.random() < 0.2 else field
    return field.replace("\t", " ").replace("\n", " ")
