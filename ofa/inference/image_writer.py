"""Drawn images as files: ``all_results/000012_a_red_circle_0.png`` (every sample, best first),
``top1/000012_a_red_circle.png``. The number is the row of the file, so that equal captions do not
overwrite each other; the words are there for the eye.
"""

import re
from pathlib import Path

from PIL import Image

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.image_grid import EVERY, REFERENCE
from ofa.io.paths import path_below
from ofa.task.prediction import Prediction

BEST = "top1"
LONGEST = 80  # bytes of the caption in a name: file systems allow 255 in all


class ImageWriter:
    """The folder of a run's images. Raises: UserError if it cannot be made or written."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            for name in (EVERY, BEST):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
                probe = self.folder / name / ".write_test"
                probe.touch()
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"--gen-images-path {folder}: expects a folder for images that can be written,"
                f" found none ({error.strerror}); give another, or change its permissions"
            ) from None

    def keep(self, row: int, prediction: Prediction, reference: Image.Image | None = None) -> str:
        """Write the images of a row, beside them the true one; its predictions know their files
        afterwards, and no longer the images. Returns: what the names of its files begin with."""
        stem = f"{row:06d}_{safe_words(prediction.text)}".rstrip("_")
        if prediction.image is not None:
            self.write(f"{BEST}/{stem}.png", prediction.image)
        for number, one in enumerate((prediction, *prediction.others)):
            if one.image is not None:
                one.file = self.write(f"{EVERY}/{stem}_{number}.png", one.image)
                one.image = None
        if reference is not None:
            self.write(f"{REFERENCE}/{stem}.png", reference)
        return stem

    def write(self, name: str, image: Image.Image) -> str:
        """Returns: path of the file."""
        path = path_below(self.folder, name)
        with replacing(path, "wb") as file:
            image.save(file, "PNG")
        return str(path)


def safe_words(text: str) -> str:
    """Letters and digits of a text, ``_`` between them, short enough for a file name."""
    words = re.sub(r"\W+", "_", text).strip("_")
    return words.encode("utf-8")[:LONGEST].decode("utf-8", "ignore").rstrip("_")
