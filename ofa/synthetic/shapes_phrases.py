"""Phrases that mean shapes of a scene, and questions about them; without any language yet.

Whether a thing has the attributes of a phrase is decided by the scene, never by how a sentence was
made: questions, boxes and whatever else is asked share one meaning of the words.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ofa.synthetic.shapes import COLORS, SHAPES, SIZES, Scene, Shape

SIDES = {  # axis, sign
    "on the left": (0, -1),
    "on the right": (0, 1),
    "at the top": (1, -1),
    "at the bottom": (1, 1),
}
# so far from a border between two places a thing lies in one of them, as a part of the side
CLEARLY_ON_SIDE, CLEARLY_IN_NINTH = 0.05, 0.04

# how often, in percent
KINDS = {"color": 28, "shape": 28, "number": 16, "place": 10, "size": 12, "existence": 6}
QUESTIONS_PER_SCENE = 3
PLAIN = 4  # a question without a place is so much likelier than one with it
NUMBERS = ("no", "one", "two", "three", "four")
PLACES = "top left,top,top right,left,middle,right,bottom left,bottom,bottom right".split(",")
# Every answer there is, in a fixed order: its place is its label.
ANSWERS = (*COLORS, *SHAPES, *NUMBERS[1:], *PLACES, "yes", "no", *SIZES)


@dataclass(frozen=True)
class Phrase:
    """Attributes that a thing may have; None says nothing."""

    size: str | None = None
    color: str | None = None
    shape: str | None = None
    side: str | None = None

    def fits(self, thing: Shape) -> bool | None:
        """Whether the thing is meant; None if one may think so or not."""
        said = zip((self.size, self.color, self.shape), thing.kind)
        if any(word not in (None, attribute) for word, attribute in said):
            return False
        return True if self.side is None else is_on_side(thing, self.side)

    @property
    def words(self) -> int:
        return 4 - (self.size, self.color, self.shape, self.side).count(None)


def is_on_side(thing: Shape, side: str) -> bool | None:
    """Whether the thing's center lies on that side of the image; None close to the middle."""
    axis, sign = SIDES[side]
    distance = sign * (thing.center[axis] - 0.5)
    return None if abs(distance) < CLEARLY_ON_SIDE else distance > 0


def true_phrases(thing: Shape) -> Iterator[Phrase]:
    """Everything that can be said of the thing in one to three words, with and without a side."""
    sides = [None, *(side for side in SIDES if is_on_side(thing, side))]
    said = itertools.product(*((None, word) for word in thing.kind), sides)
    return (phrase for words in said if 1 <= (phrase := Phrase(*words)).words <= 3)


def count(scene: Scene, phrase: Phrase) -> int | None:
    """How many things the phrase fits; None if that may be doubted."""
    fits = [phrase.fits(thing) for thing in scene.things]
    return None if None in fits else fits.count(True)


def pointing_at(scene: Scene, thing: Shape) -> list[Phrase]:
    """The phrases that mean this thing of the scene and no other, short ones first."""
    meaning = (phrase for phrase in true_phrases(thing) if count(scene, phrase) == 1)
    return sorted(meaning, key=lambda phrase: phrase.words)


def pointed_at(scene: Scene) -> list[tuple[Phrase, Shape]]:
    """One phrase for each thing that can be told from the others, from left to right. A place is
    said in a third of them, or if nothing else tells the thing from its twin."""
    rng, found = scene.rng("expressions"), []
    for thing in scene.things:
        phrases = pointing_at(scene, thing)
        plain = [phrase for phrase in phrases if phrase.side is None]
        placed = [phrase for phrase in phrases if phrase.side is not None]
        if plain and (not placed or rng.random() < 2 / 3):
            placed = plain
        if placed:
            found.append((rng.choice(placed), thing))
    return found


@dataclass(frozen=True)
class Question:
    """A question and its only right answer. Args: kind: one of ``KINDS``. about: what is asked
    about; None: all that is there."""

    kind: str
    answer: str
    about: Phrase | None = None


def questions(scene: Scene) -> list[Question]:
    """Different questions about the scene, the same each time. No answer is frequent: first the
    kind is chosen, then one of the answers possible there, then a question with that answer."""
    rng, found = scene.rng("questions"), list[Question]()
    while len(found) < QUESTIONS_PER_SCENE:
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        possible = [question for question in candidates(scene, kind) if question not in found]
        if possible:  # a number can always be asked for
            answer = rng.choice(sorted({question.answer for question in possible}))
            possible = [question for question in possible if question.answer == answer]
            placed = [bool(question.about and question.about.side) for question in possible]
            found.append(rng.choices(possible, [1 if one else PLAIN for one in placed])[0])
    return found


def candidates(scene: Scene, kind: str) -> list[Question]:
    """All questions of a kind that can be asked of the scene without doubt about the answer."""
    about = {"number": _about_numbers, "existence": _about_existence}
    attributes = functools.partial(_about_attributes, kind=kind)
    return list(dict.fromkeys(about.get(kind, attributes)(scene)))


def _about_attributes(scene: Scene, kind: str) -> Iterator[Question]:
    """Questions for one attribute of a thing that others single out; for a clear place."""
    unsaid, borders = "side" if kind == "place" else kind, (1 / 3, 2 / 3)
    for thing in scene.things:
        least = min(abs(v - border) for v in thing.center for border in borders)
        if kind != "place" or least >= CLEARLY_IN_NINTH:
            for phrase in pointing_at(scene, thing):
                if getattr(phrase, unsaid) is None:
                    yield Question(kind, getattr(thing, kind), phrase)


def _about_numbers(scene: Scene) -> Iterator[Question]:
    yield Question("number", NUMBERS[len(scene.things)])
    for thing in scene.things:
        for phrase in true_phrases(thing):
            number = count(scene, phrase) if phrase.words == 1 else None
            if number is not None:
                yield Question("number", NUMBERS[number], phrase)


def _about_existence(scene: Scene) -> Iterator[Question]:
    """What is there, and what differs from it in one word and is not there."""
    for thing in scene.things:
        named = Phrase(color=thing.color, shape=thing.shape)
        for phrase in (replace(named, shape=None), replace(named, color=None), named):
            yield Question("existence", "yes", phrase)
            for attribute, words in (("color", COLORS), ("shape", SHAPES)):
                if getattr(phrase, attribute) is not None:
                    others = (replace(phrase, **{attribute: word}) for word in words)
                    absent = (other for other in others if count(scene, other) == 0)
                    yield from (Question("existence", "no", other) for other in absent)
