"""Questions about scenes of synthetic shapes, with answers that the scene decides.

    >>> from ofa.synthetic.shapes import make_scene
    >>> scene = make_scene(seed=1, split="train", index=0)
    >>> candidates(scene, "color")[0].text, candidates(scene, "color")[0].answer
    ('what color is the large shape?', 'brown')

Questions are chosen so that no answer is frequent: first what is asked about, then one of the
answers that are possible there, then a question with that answer.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ofa.synthetic.shapes import COLORS, NUMBERS, SHAPES, SIZES, Scene, Shape, place
from ofa.synthetic.shapes_expressions import Phrase, count, full_phrase, pointing_at, true_phrases

# how often, in percent
KINDS = {"color": 28, "shape": 28, "number": 16, "place": 10, "size": 12, "existence": 6}
QUESTIONS_PER_SCENE = 3
PLAIN = 4  # a question without a place is so much likelier than one with it
CLEARLY = 0.04  # a center so close to the border of a ninth of the image is not asked for


@dataclass(frozen=True)
class Question:
    """A question of one of the ``KINDS`` and its only right answer.

    Args: placed: a thing is told by its place. about: what is asked about; None: all that is there.
    """

    kind: str
    text: str
    answer: str
    placed: bool = False
    about: Phrase | None = field(default=None, compare=False, repr=False)


def questions(scene: Scene) -> list[Question]:
    """Different questions about the scene; the same scene is always asked the same."""
    rng = random.Random(f"questions/{scene.scene_id}/{scene.noise_seed}")
    found: list[Question] = []
    while len(found) < QUESTIONS_PER_SCENE:
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        possible = [question for question in candidates(scene, kind) if question not in found]
        if possible:  # a number can always be asked for
            answer = rng.choice(sorted({question.answer for question in possible}))
            possible = [question for question in possible if question.answer == answer]
            found.append(
                rng.choices(possible, [1 if question.placed else PLAIN for question in possible])[0]
            )
    return found


def answers() -> list[str]:
    """Every answer there is, in a fixed order; its place in the list is its label."""
    places = [
        " ".join(filter(None, (row, column))) or "middle"
        for row in ("top", "", "bottom")
        for column in ("left", "", "right")
    ]
    return [*COLORS, *SHAPES, *NUMBERS[1:], *places, "yes", "no", *SIZES]


def candidates(scene: Scene, kind: str) -> list[Question]:
    """All questions of a kind that can be asked of the scene without doubt about the answer."""
    if kind == "number":
        found = _about_numbers(scene)
    elif kind == "existence":
        found = _about_existence(scene)
    else:
        found = (
            question for thing in scene.things for question in _about_thing(scene, thing, kind)
        )
    return list(dict.fromkeys(found))


def _about_thing(scene: Scene, thing: Shape, kind: str) -> Iterator[Question]:
    """Questions for one attribute of a thing that other attributes single out."""
    for phrase in pointing_at(scene, thing):
        text, placed = phrase.text(), phrase.side is not None
        if kind == "color" and phrase.color is None:
            yield Question(kind, f"what color is the {text}?", thing.color, placed, phrase)
        if kind == "shape" and phrase.shape is None:
            yield Question(kind, f"what is the {text}?", thing.shape, placed, phrase)
        if kind == "size" and phrase.size is None:
            yield Question(kind, f"is the {text} large or small?", thing.size, placed, phrase)
        if kind == "place" and not placed and _is_clearly_placed(thing):
            yield Question(kind, f"where is the {text}?", place(thing), about=phrase)


def _is_clearly_placed(thing: Shape) -> bool:
    return all(abs(v - border) >= CLEARLY for v in thing.center for border in (1 / 3, 2 / 3))


def _about_numbers(scene: Scene) -> Iterator[Question]:
    yield Question("number", "how many shapes are there?", NUMBERS[len(scene.things)])
    said = [phrase for thing in scene.things for phrase in true_phrases(thing) if phrase.words == 1]
    for phrase in dict.fromkeys(said):
        number = count(scene, phrase)
        if number is not None:
            text = f"how many {phrase.text(plural=True)} are there?"
            yield Question("number", text, NUMBERS[number], phrase.side is not None, phrase)


def _about_existence(scene: Scene) -> Iterator[Question]:
    """``is there a red star?``: what is there, and what differs from something that is there in
    one word."""
    for thing in scene.things:
        for phrase in (
            Phrase(color=thing.color),
            Phrase(shape=thing.shape),
            full_phrase(thing).without("size"),
        ):
            yield Question("existence", _is_there(phrase), "yes", about=phrase)
            for other in _one_word_off(phrase):
                if count(scene, other) == 0:
                    yield Question("existence", _is_there(other), "no", about=other)


def _is_there(phrase: Phrase) -> str:
    text = phrase.text()
    return f"is there {'an' if text[0] in 'aeiou' else 'a'} {text}?"


def _one_word_off(phrase: Phrase) -> Iterable[Phrase]:
    for attribute, words in (("color", COLORS), ("shape", SHAPES)):
        if getattr(phrase, attribute) is not None:
            yield from (
                replace(phrase, **{attribute: word})
                for word in words
                if word != getattr(phrase, attribute)
            )
