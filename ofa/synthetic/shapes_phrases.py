"""Phrases that mean shapes of a scene, and questions about them; without any language yet.

Whether a thing has the attributes of a phrase is decided by the scene, never by how a sentence was
made: questions, boxes and whatever else is asked share one meaning of the words.
"""

import itertools
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

from ofa.synthetic.shapes import COLORS, SHAPES, SIZES, Scene, Shape

SIDES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}  # axis, sign
CLEARLY_ON_SIDE = 0.05  # parts of the side away from the middle
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
        if self.side is None:
            return True
        axis, sign = SIDES[self.side]
        distance = sign * (thing.center[axis] - 0.5)
        return None if abs(distance) < CLEARLY_ON_SIDE else distance > 0

    @property
    def words(self) -> int:
        return 4 - astuple(self).count(None)


def true_phrases(thing: Shape) -> list[Phrase]:
    """Everything that can be said of the thing in one to three words, with and without a side."""
    said = itertools.product(*((None, word) for word in thing.kind), (None, *SIDES))
    return [one for one in itertools.starmap(Phrase, said) if one.fits(thing) and 0 < one.words < 4]


def count(scene: Scene, phrase: Phrase) -> int | None:
    """How many things the phrase fits; None if that may be doubted."""
    fits = [phrase.fits(thing) for thing in scene.things]
    return None if None in fits else fits.count(True)


def pointing_at(scene: Scene, thing: Shape) -> list[Phrase]:
    """The phrases that mean this thing of the scene and no other, short ones first."""
    meaning = (phrase for phrase in true_phrases(thing) if count(scene, phrase) == 1)
    return sorted(meaning, key=lambda phrase: phrase.words)


def pointed_at(scene: Scene) -> Iterator[tuple[Phrase, Shape]]:
    """One phrase for each thing that can be told from the others, from left to right. A place is
    said in a third of them, or if nothing else tells the thing from its twin."""
    rng = scene.rng("expressions")
    for thing in scene.things:
        phrases = pointing_at(scene, thing)
        plain = [phrase for phrase in phrases if phrase.side is None]
        placed = [phrase for phrase in phrases if phrase.side is not None]
        if plain and (not placed or rng.random() < 2 / 3):
            placed = plain
        if placed:
            yield rng.choice(placed), thing


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
    if kind == "number":
        return list(dict.fromkeys(_about_numbers(scene)))
    if kind == "existence":
        return list(dict.fromkeys(_about_existence(scene)))
    unsaid = "side" if kind == "place" else kind
    return [
        Question(kind, getattr(thing, kind), phrase)
        for thing in scene.things
        if kind != "place" or thing.has_clear_place
        for phrase in pointing_at(scene, thing)
        if getattr(phrase, unsaid) is None
    ]


def _about_numbers(scene: Scene) -> Iterator[Question]:
    yield Question("number", NUMBERS[len(scene.things)])
    for phrase in itertools.chain(*map(true_phrases, scene.things)):
        number = count(scene, phrase) if phrase.words == 1 else None
        if number is not None:
            yield Question("number", NUMBERS[number], phrase)


def _about_existence(scene: Scene) -> Iterator[Question]:
    """What is there, and what differs from it in one word and is not there."""
    for color, shape in (thing.look for thing in scene.things):
        for phrase in (Phrase(color=color), Phrase(shape=shape), Phrase(color=color, shape=shape)):
            yield Question("existence", "yes", phrase)
            others = [replace(phrase, color=word) for word in COLORS if phrase.color]
            others += [replace(phrase, shape=word) for word in SHAPES if phrase.shape]
            absent = (other for other in others if count(scene, other) == 0)
            yield from (Question("existence", "no", other) for other in absent)
