"""Phrases that point at shapes of synthetic shapes: ``the large red circle``, ``the star on the
left``.

A phrase is a handful of attributes. Whether a thing has them is decided by the scene, never by how
a sentence was made, so that questions, boxes (and whatever else is asked of a scene) share one
meaning of the words:

    >>> from ofa.synthetic.shapes import make_scene
    >>> # a large brown arrow and a small orange square
    >>> scene = make_scene(seed=1, split="train", index=0)
    >>> [phrase.text() for phrase in pointing_at(scene, scene.things[0])][:3]
    ['shape on the left', 'arrow', 'brown shape']
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ofa.synthetic.shapes import PLURALS, Scene, Shape

SIDES = {
    "on the left": (0, -1),
    "on the right": (0, 1),
    "at the top": (1, -1),
    "at the bottom": (1, 1),
}  # axis, sign
# so far from the middle a thing lies on a side beyond doubt, as a part of the image's side
CLEARLY = 0.05


@dataclass(frozen=True)
class Phrase:
    """Attributes that a thing may have; None says nothing."""

    size: str | None = None
    color: str | None = None
    shape: str | None = None
    side: str | None = None

    def fits(self, thing: Shape) -> bool | None:
        """Whether the thing is meant; None if one may think so or not."""
        if self.shape not in (None, thing.shape) or self.color not in (None, thing.color):
            return False
        if self.size not in (None, thing.size):
            return False
        return True if self.side is None else is_on_side(thing, self.side)

    def text(self, plural: bool = False) -> str:
        """``large red circle``, ``shapes at the top``."""
        noun = self.shape or "shape"
        noun = PLURALS.get(noun, f"{noun}s") if plural else noun
        return " ".join(word for word in (self.size, self.color, noun, self.side) if word)

    @property
    def words(self) -> int:
        """How much is said."""
        return 4 - (self.size, self.color, self.shape, self.side).count(None)

    def without(self, *attributes: str) -> "Phrase":
        return replace(self, **dict.fromkeys(attributes))


def is_on_side(thing: Shape, side: str) -> bool | None:
    """Whether the thing's center lies on that side of the image; None close to the middle."""
    axis, sign = SIDES[side]
    distance = sign * (thing.center[axis] - 0.5)
    return None if abs(distance) < CLEARLY else distance > 0


def full_phrase(thing: Shape) -> Phrase:
    """All that can be said without a place."""
    return Phrase(thing.size, thing.color, thing.shape)


def true_phrases(thing: Shape) -> Iterator[Phrase]:
    """Everything that can be said of the thing in one to three words, with and without a side."""
    sides = [None, *(side for side in SIDES if is_on_side(thing, side))]
    names = itertools.product((None, thing.size), (None, thing.color), (None, thing.shape))
    for (size, color, shape), side in itertools.product(names, sides):
        phrase = Phrase(size, color, shape, side)
        if 1 <= phrase.words <= 3:
            yield phrase


def count(scene: Scene, phrase: Phrase) -> int | None:
    """How many things the phrase fits; None if that may be doubted."""
    fits = [phrase.fits(thing) for thing in scene.things]
    return None if None in fits else fits.count(True)


def pointing_at(scene: Scene, thing: Shape) -> list[Phrase]:
    """The phrases that mean this thing of the scene and no other, short ones first."""
    return sorted(
        (phrase for phrase in true_phrases(thing) if count(scene, phrase) == 1),
        key=lambda phrase: phrase.words,
    )


def pointed_at(scene: Scene) -> list[tuple[Phrase, Shape]]:
    """One phrase for each thing that can be told from the others, from left to right."""
    rng = random.Random(f"expressions/{scene.scene_id}/{scene.noise_seed}")
    found = []
    for thing in scene.things:
        phrases = pointing_at(scene, thing)
        if phrases:
            # A place is said in a third of the expressions, or if nothing else tells the thing from
            # its twin.
            plain = [phrase for phrase in phrases if phrase.side is None]
            placed = [phrase for phrase in phrases if phrase.side is not None]
            found.append(
                (
                    rng.choice(plain if plain and (not placed or rng.random() < 2 / 3) else placed),
                    thing,
                )
            )
    return found


def expressions(scene: Scene) -> list[tuple[str, Shape]]:
    """The same as referring expressions, ``the large red circle``."""
    return [(f"the {phrase.text()}", thing) for phrase, thing in pointed_at(scene)]
