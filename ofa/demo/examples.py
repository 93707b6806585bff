"""Images to try a model with when none is at hand: scenes of synthetic shapes, and what to
ask about them."""

import itertools
from functools import cache

from PIL import Image

from ofa.synthetic.shapes import Scene, captions, make_scene, render
from ofa.synthetic.shapes_expressions import expressions
from ofa.synthetic.shapes_pretraining import drawing_caption
from ofa.synthetic.shapes_questions import questions
from ofa.tasks import caption, refcoco

SEED, SPLIT = 5, "demo"
SIDE = 256  # pixels


def example_image(number: int) -> Image.Image:
    """Args: number: from 0, without an end. The same number is always the same image."""
    return render(scene_of(number), SIDE)


def example_text(number: int, key: str, language: str = "en") -> str:
    """What to ask about an example, nothing if there is nothing special.

    Args: key: method of ``OFA``; statements are true of every other example alone.
    """
    scene = scene_of(number)
    if key == "answer":
        return questions(scene)[0].text
    if key == "ground":
        return expressions(scene)[0][0]
    if key == "entails":
        return captions(scene if number % 2 == 0 else scene_of(number + 1))[0]
    if key == "draw":
        return drawing_caption(scene)
    if key == "generate" and number % 2:
        return caption.PROMPTS[language].strip()
    if key == "generate":
        return refcoco.PROMPTS[language].format(expressions(scene)[0][0]).strip()
    return ""


@cache
def scene_of(number: int) -> Scene:
    """The scene of an example: of all scenes those in which there is something to tell apart."""
    scenes = (make_scene(SEED, SPLIT, index) for index in itertools.count())
    telling = (scene for scene in scenes if len(scene.things) > 1 and expressions(scene))
    return next(itertools.islice(telling, number, None))
