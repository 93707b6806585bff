"""Pictures with a model's replies drawn on them."""

from collections import Counter
from pathlib import Path

from PIL import Image

from ofa.io.atomic import replacing
from ofa.drawing import GIVEN, PREDICTED, Mark, draw_boxes
from ofa.prediction_requests import Request
from ofa.replies import Answer, Region


class Drawer:
    """Writes one annotated JPEG per request into a folder, ``NAME.jpg``; a name that comes again gets a number."""

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.used: Counter[str] = Counter()

    def draw(self, request: Request, picture: Image.Image, reply: Answer | Region) -> str:
        """Returns: path of the file."""
        stem = request.image.stem
        self.used[stem] += 1
        path = self.folder / f"{stem}{'' if self.used[stem] == 1 else f'_{self.used[stem]}'}.jpg"
        with replacing(path, "wb") as file:
            annotated(request, picture, reply).save(file, format="JPEG", quality=92)
        return str(path)


def annotated(request: Request, picture: Image.Image, reply: Answer | Region) -> Image.Image:
    """The picture with the boxes of the request and the reply, and what was asked and answered above it."""
    marks = [Mark(request.words["region"], "", GIVEN)] if "region" in request.words else []
    if isinstance(reply, Region):
        label = f"{request.words.get('text', '')} {reply.probability:.2f}".strip()
        return draw_boxes(picture, [*marks, Mark(reply.box, label, PREDICTED)])
    if reply.region is not None:
        marks.append(Mark(reply.region.box, "", PREDICTED))
    asked = next((request.words[name] for name in ("question", "hypothesis", "instruction") if name in request.words), "")
    between = " " if not asked or asked.endswith("?") else ": "
    return draw_boxes(picture, marks, heading=f"{asked}{between}{reply}".strip())
