"""Questions and boxes of synthetic shapes: the scene decides them, beyond doubt, and no
constant answer does well."""

import re
from collections import Counter

import pytest

from ofa.synthetic import shapes as world
from ofa.synthetic.shapes_language import ENGLISH
from ofa.synthetic.shapes_phrases import ANSWERS, KINDS, QUESTIONS_PER_SCENE, candidates, questions

SINGULAR = {ENGLISH.noun(shape, True): shape for shape in world.SHAPES} | {"shapes": "shape"}
ON_SIDES = ("on the left", "on the right", "at the top", "at the bottom")


@pytest.fixture(scope="module")
def scenes():
    return list(world.make_split(seed=1, split="train", count=400))


def meant(scene: world.Scene, text: str) -> list[world.Shape]:
    """The things that a phrase means, read word by word; a side has to be clear for everything
    it is said of."""
    side = next((side for side in ON_SIDES if text.endswith(side)), "")
    words = [SINGULAR.get(word, word) for word in text.removesuffix(side).split()]
    assert all(word in {"shape", *world.SHAPES, *world.COLORS, *world.SIZES} for word in words), (
        text
    )
    things = [
        thing for thing in scene.things if all(word in ("shape", *thing.kind) for word in words)
    ]
    if not side:
        return things
    axis, low = (0, "left") if "left" in side or "right" in side else (1, "top")
    for thing in things:
        assert abs(thing.center[axis] - 0.5) > 0.049, f"{text}: a thing lies in the middle"
    return [thing for thing in things if (thing.center[axis] < 0.5) == (low in side)]


def expected_answer(scene: world.Scene, text: str) -> str:
    """The answer, worked out from the words of the question and the scene alone."""
    if match := re.fullmatch(r"how many (.*?) are there\?", text):
        return ["zero", "one", "two", "three", "four"][len(meant(scene, match[1]))]
    if match := re.fullmatch(r"is there an? (.*)\?", text):
        return "yes" if meant(scene, match[1]) else "no"
    forms = {
        "color": r"what color is the (.*)\?",
        "size": r"is the (.*) large or small\?",
        "place": r"where is the (.*)\?",
        "shape": r"what is the (.*)\?",
    }
    attribute, match = next(
        (name, match) for name, form in forms.items() if (match := re.fullmatch(form, text))
    )
    (thing,) = meant(scene, match[1])  # one thing, no other
    if attribute != "place":
        # the question does not tell it
        assert getattr(thing, attribute) not in text.split("large or small")[0].split()
        return getattr(thing, attribute)
    column, row = (
        ("left", "", "right")[int(thing.center[0] * 3)],
        ("top", "", "bottom")[int(thing.center[1] * 3)],
    )
    return f"{row} {column}".strip() or "middle"


def test_an_independent_reading_of_every_possible_question_finds_the_same_answer(scenes):
    for scene in scenes[:120]:
        for kind in KINDS:
            for question in candidates(scene, kind):
                assert question.answer == expected_answer(scene, ENGLISH.ask(question)), (
                    scene.scene_id,
                    question,
                )
                assert question.answer in ANSWERS


def test_a_place_is_asked_for_only_if_it_is_clear(scenes):
    for scene in scenes:
        for question in candidates(scene, "place"):
            (thing,) = meant(scene, ENGLISH.phrase(question.about))
            assert all(abs(v - border) > 0.039 for v in thing.center for border in (1 / 3, 2 / 3))


def test_a_scene_is_always_asked_the_same_different_questions(scenes):
    for scene in scenes[:50]:
        asked = questions(scene)
        assert asked == questions(scene)
        assert len(set(asked)) == len(asked) == QUESTIONS_PER_SCENE
        assert all(
            len(text.split()) <= 10 and "&&" not in text for text, _ in ENGLISH.questions(scene)
        )
    assert questions(scenes[0]) != questions(world.make_scene(2, "train", 0))


def test_all_kinds_are_asked_and_no_answer_is_frequent(scenes):
    asked = [question for scene in scenes for question in questions(scene)]
    kinds = Counter(question.kind for question in asked)
    for kind, percent in KINDS.items():
        assert abs(100 * kinds[kind] / len(asked) - percent) < 6
    given = Counter(question.answer for question in asked)
    assert given.most_common(1)[0][1] < 0.12 * len(asked)
    assert set(given) == set(ANSWERS)
    assert abs(given["yes"] - given["no"]) < 0.2 * (given["yes"] + given["no"])


def test_the_question_alone_does_not_tell_the_answer(scenes):
    """The best answer to each question text is right for less than half of the questions that
    are asked more than once."""
    by_text: dict[str, Counter] = {}
    for scene in scenes:
        for text, answer in ENGLISH.questions(scene):
            by_text.setdefault(text, Counter())[answer] += 1
    repeated = [counts for counts in by_text.values() if sum(counts.values()) >= 5]
    assert len(repeated) > 20
    assert sum(max(counts.values()) for counts in repeated) < 0.5 * sum(
        sum(counts.values()) for counts in repeated
    )


def test_an_expression_means_exactly_the_thing_whose_box_it_gets(scenes):
    for scene in scenes:
        found = ENGLISH.expressions(scene)
        for text, thing in found:
            assert meant(scene, text.removeprefix("the ")) == [thing]
        assert len({text for text, _ in found}) == len(found)
        assert found == ENGLISH.expressions(scene)


def test_nearly_every_thing_gets_an_expression_and_some_say_a_place(scenes):
    texts = [text for scene in scenes for text, _ in ENGLISH.expressions(scene)]
    assert 0.95 * sum(len(scene.things) for scene in scenes) < len(texts)
    placed = sum(text.endswith(ON_SIDES) for text in texts)
    assert 0.2 < placed / len(texts) < 0.45


def test_no_constant_box_does_well(scenes):
    boxes = [thing.box for scene in scenes for _, thing in ENGLISH.expressions(scene)]

    def overlap(a, b):
        sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
        area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        return sides[0] * sides[1] / (sum(area) - sides[0] * sides[1])

    best = max(sum(overlap(box, other) >= 0.5 for other in boxes) for box in boxes[::5])
    assert best < 0.12 * len(boxes)


def test_answers_are_different_and_their_numbers_never_change():
    # Recorded when the questions were made: a model's answer set stays the same from version to
    # version.
    assert len(set(ANSWERS)) == len(ENGLISH.answers()) == 37
    assert [ENGLISH.answers()[i] for i in (0, 12, 20, 24, 28, 33, 35)] == [
        "red",
        "circle",
        "one",
        "top left",
        "middle",
        "yes",
        "small",
    ]
