"""Grounding rows for tests: a square of one color on a gray image, and where it is."""

import base64
import io
import random
from pathlib import Path

from PIL import Image

COLORS = ("red", "green", "blue", "white", "black", "yellow", "purple")
SIZE = (48, 36)


def scene(number: int) -> tuple[Image.Image, str, tuple[int, int, int, int]]:
    """Image, text and box of a row, decided by its number."""
    draw = random.Random(number)
    side = draw.randint(12, 20)
    x, y = draw.randint(0, SIZE[0] - side), draw.randint(0, SIZE[1] - side)
    color = COLORS[number % len(COLORS)]
    image = Image.new("RGB", SIZE, "grey")
    image.paste(Image.new("RGB", (side, side), color), (x, y))
    return image, f"the {color} square", (x, y, x + side, y + side)


def encoded(image: Image.Image) -> str:
    """Base64 of a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_rows(path: Path, numbers: range, **changes: str) -> Path:
    """Columns ``uniq-id, image-id, text, box, image``. Args: changes: a value for a column of
    every row (``box``, ``text``)."""
    lines = []
    for number in numbers:
        image, text, box = scene(number)
        row = {
            "id": f"{number}_1",
            "image_id": f"img{number}",
            "text": text,
            "box": ",".join(map(str, box)),
            "image": encoded(image),
        }
        lines.append("\t".join((row | changes).values()))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_questions(path: Path, numbers: range) -> Path:
    """Columns ``uniq-id, image-id, question, box, answers, image``: what color is the square,
    or the ground around it?"""
    lines = []
    for number in numbers:
        image, text, box = scene(number)
        region, answer = (box, text.split()[1]) if number % 2 else ((0, 0, *SIZE), "grey")
        lines.append(
            "\t".join(
                (
                    f"{number}",
                    f"img{number}",
                    "What color is it?",
                    ",".join(map(str, region)),
                    f"1.0|!+{answer}",
                    encoded(image),
                )
            )
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
