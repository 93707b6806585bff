"""Which files of a folder are images: one list of suffixes for all commands."""

import logging
from pathlib import Path

from ofa.errors import UserError

logger = logging.getLogger(__name__)

# How files of the formats of ``ofa.io.images`` are called, in lower case.
IMAGE_SUFFIXES = tuple(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .avif"
    " .jp2 .j2k .jpf .jpx .j2c .jpc".split()
)
SKIPPED_NAMES = 5  # in the message about the others of a folder


def list_images(folder: str | Path, may_be_empty: bool = False) -> list[Path]:
    """The image files of a folder by name.

    One warning counts and names the other files; hidden ones (``._a.jpg``) are ignored.
    Raises: UserError if there are no images, unless that may be.
    """
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(Path(folder).iterdir()):
        if not is_hidden(path.name):
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
            (images if is_image else others).append(path)
    if not images and not may_be_empty:
        known = ", ".join(IMAGE_SUFFIXES)
        raise UserError(f"{folder}: expected image files ({known}), found none in this folder")
    if others:
        more = f" and {len(others) - SKIPPED_NAMES} more" if len(others) > SKIPPED_NAMES else ""
        names = ", ".join(path.name for path in others[:SKIPPED_NAMES]) + more
        message = "%s: %d entries that are no image files are skipped: %s"
        logger.warning(message, folder, len(others), names)
    return images


def is_hidden(name: str) -> bool:
    """``.DS_Store``, ``._a.jpg`` of a Mac, and the folder of them in a ZIP archive."""
    return name.startswith(".") or name == "__MACOSX"
