"""Images with a model's replies drawn on them."""

import os
from pathlib import Path

from PIL import Image

from ofa.errors import UserError
from ofa.inference.predictions import Answer, Region
from ofa.inference.requests import Request
from ofa.io.atomic import replacing
from ofa.io.paths import path_below
from ofa.report.draw_boxes import GIVEN, PREDICTED, Mark, draw_boxes


class AnnotatedImageWriter:
    """Writes one annotated JPEG per request into a folder, ``NAME.jpg``; a name that comes again
    gets a number."""

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.used: set[str] = set()

    def draw(self, request: Request, image: Image.Image, reply: Answer | Region) -> str:
        """Returns: path of the file. Raises: UserError if it would lie among the images
        themselves."""
        source = request.image or Path(request.name)
        if os.path.realpath(source.parent) == os.path.realpath(self.folder):
            raise UserError(
                f"--draw {self.folder}: expects another folder than that of the image"
                f" {source}, which could be overwritten; choose another"
            )
        name, number = source.stem, 1
        while name in self.used:
            number += 1
            name = f"{source.stem}_{number}"
        self.used.add(name)
        path = path_below(self.folder, f"{name}.jpg", request.where)
        with replacing(path, "wb") as file:
            annotated(request, image, reply).save(file, format="JPEG", quality=92)
        return str(path)


def annotated(request: Request, image: Image.Image, reply: Answer | Region) -> Image.Image:
    """The image with the boxes of the request and the reply, and what was asked and answered
    above it."""
    asked = next((word for word in request.words.values() if isinstance(word, str)), "")
    marks = [Mark(word, "", GIVEN) for word in request.words.values() if isinstance(word, list)]
    if isinstance(reply, Region):
        label = f"{asked} {reply.probability:.2f}".strip()
        return draw_boxes(image, [*marks, Mark(reply.box, label, PREDICTED)])
    if reply.region is not None:
        marks.append(Mark(reply.region.box, "", PREDICTED))
    if reply.objects:
        found = [Mark(region.box, name, PREDICTED) for region, name in reply.objects]
        return draw_boxes(image, [*marks, *found], heading=asked)
    between = " " if not asked or asked.endswith("?") else ": "
    return draw_boxes(image, marks, heading=f"{asked}{between}{reply}".strip())
