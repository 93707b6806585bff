"""Images to try a model with when none is at hand: scenes of synthetic shapes, and what to
ask about them."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from PIL import Image

from ofa.synthetic.shapes import Scene, captions, make_scene, render
from ofa.synthetic.shapes_expressions import expressions
from ofa.synthetic.shapes_pretraining import drawing_caption
from ofa.synthetic.shapes_questions import questions

SEED, SPLIT = 5, "demo"
SIDE = 256  # pixels


@dataclass(frozen=True)
class Example:
    """Args: texts: what to ask, by method of ``OFA``; statements are true of every other example
    alone."""

    image: Image.Image
    texts: Mapping[str, str]


def example(number: int) -> Example:
    """Args: number: from 0, without an end. The same number is always the same example."""
    scene = scene_of(number)
    stated = scene if number % 2 == 0 else scene_of(number + 1)
    return Example(
        render(scene, SIDE),
        {
            "answer": questions(scene)[0].text,
            "ground": expressions(scene)[0][0],
            "entails": captions(stated)[0],
            "draw": drawing_caption(scene),
        },
    )


@cache
def scene_of(number: int) -> Scene:
    """The scene of an example: of all scenes those in which there is something to tell apart."""
    scenes = (make_scene(SEED, SPLIT, index) for index in itertools.count())
    telling = (scene for scene in scenes if len(scene.things) > 1 and expressions(scene))
    return next(itertools.islice(telling, number, None))
