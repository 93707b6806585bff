"""Synthetic shapes: scenes, captions, boxes and images fit each other, everywhere and always."""

import hashlib
import json
import random

import numpy as np
import pytest

from ofa.synthetic import shapes as world
from ofa.synthetic.sentences import TASKS, row
from ofa.synthetic.shapes_language import CAPTIONS_PER_SCENE, CHINESE, ENGLISH, Language


@pytest.fixture(scope="module")
def scenes():
    return list(world.make_split(seed=1, split="train", count=300))


def test_a_scene_depends_on_seed_split_and_index_alone(scenes):
    assert world.make_scene(1, "train", 7) == world.make_scene(1, "train", 7)
    others = [
        world.make_scene(2, "train", 7),
        world.make_scene(1, "val", 7),
        world.make_scene(1, "train", 8),
    ]
    assert world.make_scene(1, "train", 7) not in others
    assert np.array_equal(np.asarray(world.render(scenes[7])), np.asarray(world.render(scenes[7])))


def test_the_first_scene_of_seed_one_is_known_by_heart(scenes):
    # Recorded when the world was made: training files stay the same from version to version.
    assert (
        ENGLISH.captions(scenes[0])[0]
        == "two shapes on lilac paper: a brown arrow and an orange square"
    )
    assert [thing.kind for thing in scenes[0].things] == [
        ("large", "brown", "arrow"),
        ("small", "orange", "square"),
    ]


def told(scene: world.Scene, language: Language) -> list:
    expressions = [text for text, _ in language.expressions(scene)]
    return [language.captions(scene), language.questions(scene), expressions]


# Recorded with the first version of these texts, images and rows.
RECORDED = {
    "ac26055ee3ea5ad9": lambda scene: told(scene, ENGLISH),
    "3c4a2d171ba980b5": lambda scene: told(scene, CHINESE),
    "695d4c78ae31845e": lambda scene: [
        ENGLISH.pretraining_texts(scene),
        ENGLISH.complete_caption(scene),
    ],
    "5f57a6f33e57a07f": lambda scene: scene.to_json(64),
}


@pytest.mark.parametrize("digest", RECORDED)
def test_what_is_told_of_the_scenes_of_a_seed_never_changes(digest):
    found = [RECORDED[digest](world.make_scene(1, "recorded", index)) for index in range(60)]
    text = json.dumps(found, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


def test_pixels_of_the_scenes_of_a_seed_never_change():
    images = (world.render(world.make_scene(1, "recorded", index), 16) for index in range(60))
    digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    assert digest.startswith("3c46f7036260cccb")


def test_synthetic_sentences_of_a_seed_never_change():
    splits = ("train", "test")
    found = [row(task, 1, split, n) for task in TASKS for split in splits for n in range(30)]
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    assert digest.startswith("3f49f46fb69edd13")


def test_every_scene_has_five_different_captions_of_at_most_twenty_words(scenes):
    for scene in scenes:
        captions = ENGLISH.captions(scene)
        assert len(set(captions)) == CAPTIONS_PER_SCENE == 5
        assert all(0 < len(caption.split()) <= 20 and "&&" not in caption for caption in captions)


def test_captions_name_the_colors_and_shapes_that_are_there(scenes):
    for scene in scenes:
        colors, shapes = {t.color for t in scene.things}, {t.shape for t in scene.things}
        for caption in ENGLISH.captions(scene):
            words = set(caption.replace(",", "").replace(":", "").split())
            named = {shape for shape in world.SHAPES if words & {shape, ENGLISH.noun(shape, True)}}
            assert words & set(world.COLORS) and words & set(world.COLORS) <= colors
            assert named <= shapes
            assert named or caption.endswith(" shapes")  # "red and blue shapes"


def test_scenes_hold_one_to_four_shapes_apart_from_each_other_and_inside(scenes):
    assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4}
    for scene in scenes:
        for i, thing in enumerate(scene.things):
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
            for other in scene.things[:i]:
                apart = (
                    x0 > other.box[2] or other.box[0] > x1 or y0 > other.box[3] or other.box[1] > y1
                )
                assert apart


@pytest.mark.parametrize("shape", world.SHAPES)
def test_the_box_is_where_the_shape_is_drawn(shape):
    thing = world.Shape(shape, "red", "large", (0.25, 0.375, 0.625, 0.75), (255, 0, 0))
    scene = world.Scene("one", (thing,), "paper", "grey", 0.15, 3)
    empty = world.Scene("none", (), "paper", "grey", 0.15, 3)
    drawn = (np.asarray(world.render(scene, 64)) != np.asarray(world.render(empty, 64))).any(axis=2)
    ys, xs = np.nonzero(drawn)
    found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    # at most a pixel of rounding
    assert np.abs(np.array(found) - np.array(thing.box_px(64))).max() <= 1


@pytest.mark.parametrize("shape", world.SHAPES)
def test_every_shape_is_its_color_within_a_dark_outline(shape):
    thing = world.Shape(shape, "red", "large", (0.25, 0.25, 0.75, 0.75), (255, 0, 0))
    image = np.asarray(
        world.render(world.Scene("one", (thing,), "paper", "grey", 0.15, 3), 96)
    ).astype(int)
    ink, red = image.max(axis=2) < 60, (image == (255, 0, 0)).all(axis=2)
    assert ink.sum() > 100 and red.sum() > 200
    ys, xs = np.nonzero(red)
    around = [
        image[y + dy, x + dx]
        for y, x in zip(ys, xs)
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))
    ]
    # beside the color lies more of it or the outline, never the ground
    assert all(color[1] < 60 for color in around)


def test_a_scene_as_json_names_every_thing_with_its_box_in_pixels(scenes):
    for scene in scenes[:20]:
        record = json.loads(json.dumps(scene.to_json(64)))
        assert (record["id"], record["width"], record["height"]) == (scene.scene_id, 64, 64)
        told = [(o["size"], o["colour"], o["shape"], o["place"]) for o in record["objects"]]
        assert (
            record["background"]["texture"],
            record["background"]["colour"],
            tuple(sorted(told)),
        ) == scene.description()
        for thing, found in zip(scene.things, record["objects"], strict=True):
            assert np.allclose(np.divide(found["box"], 64), thing.box, atol=1e-4)
            assert found["rgb"] == list(thing.rgb)


def test_no_description_of_a_test_scene_occurs_in_training():
    test = {scene.description() for scene in world.make_split(1, "test", 200)}
    train = [scene.description() for scene in world.make_split(1, "train", 2000, test)]
    assert len(train) == 2000 and not test & set(train)
    # Without the rule some would: the test above is not passed by chance.
    assert any(world.make_scene(1, "train", i).description() in test for i in range(20000))


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ((0.1, 0.4), (0.6, 0.5), "to the left of"),
        ((0.6, 0.5), (0.1, 0.4), "to the right of"),
        ((0.5, 0.1), (0.4, 0.7), "above"),
        ((0.4, 0.7), (0.5, 0.1), "below"),
    ],
)
def test_relations_follow_the_axis_of_greater_distance(a, b, expected):
    first, second = (
        world.Shape("star", "red", "small", (x, y, x + 0.2, y + 0.2), (0, 0, 0)) for x, y in (a, b)
    )
    assert ENGLISH.relations(first, second)["relation"] == expected
    assert ENGLISH.relations(second, first)["relation_back"] == expected


def test_things_alike_are_counted():
    things = [
        world.Shape("cross", "red", size, (x, 0.1, x + 0.2, 0.3), (0, 0, 0))
        for x, size in ((0.1, "small"), (0.4, "small"), (0.7, "large"))
    ]
    scene = world.Scene("s", tuple(things), "dots", "pink", 0.15, 1)
    assert ENGLISH.names(scene) == ["three red crosses"]
    assert [name.split()[0] for name in ENGLISH.names(scene, random.Random(0))] == ["two", "a"]
