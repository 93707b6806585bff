"""Plain sentences about scenes of synthetic shapes, for learning language without images.

A text says some things twice, in other words, so that what is masked in one place can often be told
from another:

    >>> from ofa.synthetic.shapes import make_scene
    >>> texts(make_scene(seed=1, split="train", index=0))[0]
    'an orange square is to the right of a brown arrow. the brown arrow is to the left of the orange
    square'
"""

import random

from ofa.synthetic.shapes import NUMBERS, PLURALS, Scene, Shape, name, names, place, relation

TEXTS_PER_SCENE = 2


def texts(scene: Scene) -> list[str]:
    """Different texts of at most 40 words; the same scene is always told the same."""
    rng = random.Random(f"texts/{scene.scene_id}/{scene.noise_seed}")
    said = _about_all(scene)
    a = rng.choice(scene.things)
    said += [
        f"{name(a)} is {where(a)}, the {a.shape} is {a.color} and lies {where(a)}",
        f"the {a.color} {a.shape} is {a.size}: it is {name(a, size=a.size)}",
    ]
    pairs = [(a, b) for a in scene.things for b in scene.things if a.kind[1:] != b.kind[1:]]
    if pairs:
        a, b = rng.choice(pairs)
        said += [
            f"{name(a)} is {relation(a, b)} {name(b)}. the {b.color} {b.shape} is {relation(b, a)}"
            f" the {a.color} {a.shape}"
        ] * 2
    return rng.sample(list(dict.fromkeys(said)), TEXTS_PER_SCENE)


def _about_all(scene: Scene) -> list[str]:
    """Texts about the background, and about how many things there are."""
    count, ground = NUMBERS[len(scene.things)], f"{scene.backdrop} {scene.texture}"
    noun = "shape" if count == "one" else "shapes"
    found = [
        (
            f"{' and '.join(names(scene))} on {ground}. the ground is {scene.backdrop}, it has"
            f" {scene.texture}"
        ),
        f"{count} {noun}: {' and '.join(names(scene))}, that makes {count} {noun} together",
    ]
    shapes = [thing.shape for thing in scene.things]
    most = max(shapes, key=shapes.count)
    if shapes.count(most) > 1:
        found.append(
            f"{NUMBERS[shapes.count(most)]} of the {count} shapes are"
            f" {PLURALS.get(most, most + 's')}: {' and '.join(names(scene))}"
        )
    return found


def where(thing: Shape) -> str:
    """``at the top left``, ``on the right``, ``in the middle``"""
    spot = place(thing)
    if spot in ("left", "right"):
        return f"on the {spot}"
    return "in the middle" if spot == "middle" else f"at the {spot}"
