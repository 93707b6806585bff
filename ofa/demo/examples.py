"""Images to try a model with when none is at hand: scenes of synthetic shapes, and what to
ask about them."""

import itertools
from functools import cache

from PIL import Image

from ofa.synthetic.shapes import Scene, make_scene, render
from ofa.synthetic.shapes_language import ENGLISH, drawing_caption
from ofa.tasks import caption, refcoco

SEED, SPLIT = 5, "demo"
SIDE = 256  # pixels


def example_image(number: int) -> Image.Image:
    """Args: number: from 0, without an end. The same number is always the same image."""
    return render(scene_of(number), SIDE)


def questions_about(number: int, language: str = "en") -> dict[str, str]:
    """What to ask about an example, by method of ``OFA``; statements are true of every other
    example alone."""
    scene = scene_of(number)
    stated = scene if number % 2 == 0 else scene_of(number + 1)
    region = ENGLISH.expressions(scene)[0][0]
    prompt = caption.PROMPTS[language] if number % 2 else refcoco.PROMPTS[language].format(region)
    return {
        "answer": ENGLISH.questions(scene)[0][0],
        "ground": region,
        "entails": ENGLISH.captions(stated)[0],
        "draw": drawing_caption(scene),
        "generate": prompt.strip(),
    }


@cache
def scene_of(number: int) -> Scene:
    """The scene of an example: of all scenes those in which there is something to tell apart."""
    scenes = (make_scene(SEED, SPLIT, index) for index in itertools.count())
    telling = (scene for scene in scenes if len(scene.things) > 1 and ENGLISH.expressions(scene))
    return next(itertools.islice(telling, number, None))
