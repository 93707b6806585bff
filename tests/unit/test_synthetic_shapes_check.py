"""The checker sees what is drawn, says no to what is not, and reads captions."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa import cli
from ofa.cli.main import main
from ofa.io.json_files import read_yaml
from ofa.metrics.clip_score import load_scorer
from ofa.synthetic.shapes import COLORS, SHAPES, Scene, Shape, make_split, render
from ofa.synthetic.shapes_check import compare, look_at, things_named
from ofa.synthetic.shapes_language import ENGLISH


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return list(make_split(seed=1, split="checked", count=40))


@pytest.fixture(scope="module")
def images(scenes) -> list[Image.Image]:
    return [render(scene) for scene in scenes]


def test_nearly_all_things_of_true_images_are_seen(scenes, images):
    checks = list(map(compare, images, map(ENGLISH.complete_caption, scenes)))
    assert sum(one.right for one in checks) / sum(one.named for one in checks) >= 0.97
    assert sum(len({*one}) == 1 for one in checks) / len(checks) >= 0.95


def test_boxes_are_where_the_things_are(scenes, images):
    for scene, seen in zip(scenes[:10], map(look_at, images[:10])):
        for thing in scene.things:
            corners = [
                np.abs(np.subtract(one.box, thing.box)).max()
                for one in seen
                if one.look == (thing.color, thing.shape)
            ]
            assert min(corners) < 0.06  # of the side, 4 pixels


def test_captions_of_other_images_are_hardly_ever_right(scenes, images):
    texts = list(map(ENGLISH.complete_caption, scenes))
    checks = list(map(compare, images, texts[1:] + texts[:1]))
    assert sum(one.right for one in checks) / sum(one.named for one in checks) <= 0.05
    assert not any(len({*one}) == 1 for one in checks)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_told_from_the_others_in_every_color(shape):
    colors = list(COLORS)[SHAPES.index(shape) % 2 :: 2]  # every second one, for time
    scenes = [
        Scene(
            color,
            (Shape(shape, color, "large", (0.3, 0.3, 0.7, 0.7), COLORS[color]),),
            "stripes",
            "mint",
            0.15,
            3,
        )
        for color in colors
    ]
    assert [[one.look for one in seen] for seen in map(look_at, map(render, scenes))] == [
        [(color, shape)] for color in colors
    ]


def test_nothing_is_seen_on_bare_ground():
    grounds = [
        Scene("s", (), texture, backdrop, 0.15, 3)
        for texture, backdrop in (("paper", "tan"), ("checks", "lilac"), ("specks", "pink"))
    ]
    assert [look_at(render(ground)) for ground in grounds] == [[], [], []]


def test_shapes_without_the_right_outline_or_fill_are_not_taken_for_others():
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8))
    assert look_at(noise) == []


def test_images_of_another_size_are_looked_at_as_well(scenes):
    seen = look_at(render(scenes[0], 128))
    assert Counter(one.look for one in seen) == Counter(
        (thing.color, thing.shape) for thing in scenes[0].things
    )


def test_captions_are_read_as_they_are_written(scenes):
    for scene in scenes:
        expected = Counter((thing.color, thing.shape) for thing in scene.things)
        assert Counter(things_named(", ".join(ENGLISH.names(scene)))) == expected
        assert Counter(things_named(ENGLISH.complete_caption(scene))) == expected
        assert all(
            set(things_named(caption)) <= set(expected) for caption in ENGLISH.captions(scene)
        )
    assert things_named("three big black crosses beside a shape") == [("black", "cross")] * 3


def test_scores_of_the_pretraining_demo_put_the_image_first_that_fits(scenes, images):
    plan = read_yaml(Path(cli.__file__).parent / "templates/pretraining.yaml")
    scorer = load_scorer(class_name=plan["texts"]["scorer"].split()[1])
    texts = list(map(ENGLISH.complete_caption, scenes[:6]))
    fitting, other = scorer.score(images[:6], texts), scorer.score(images[1:7], texts)
    assert fitting.dtype == np.float64 and (fitting > other).all() and fitting.min() > 0.5
    assert scorer.score(images[:1], ["hello"]).tolist() == [0.0]


@pytest.mark.parametrize("name", ["../secret.png", "{root}/secret.png", "a\0.png", 7, None])
def test_a_result_file_names_no_images_elsewhere(tmp_path, capsys, name):
    folder = tmp_path / "drawn"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "secret.png")
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    entries = [
        {"caption": "a small red circle", "files": ["a.png"]},
        {
            "caption": "a small red circle",
            "files": [name.format(root=tmp_path) if isinstance(name, str) else name],
        },
    ]
    (folder / "draw_predict.json").write_text(json.dumps(entries))
    assert main(["synthetic-shapes", "check", str(folder / "draw_predict.json")]) == 2
    assert "draw_predict.json: entry 2: expects the name of a file below" in capsys.readouterr().err
    if isinstance(name, str) and name.endswith("secret.png"):
        assert (
            main(
                [
                    "synthetic-shapes",
                    "check",
                    str(folder / "draw_predict.json"),
                    "--gen-images-path",
                    str(tmp_path),
                ]
            )
            == 0
        )


def test_an_entry_without_an_image_is_named(tmp_path, capsys):
    path = tmp_path / "draw_predict.json"
    path.write_text('[{"caption": "a small red circle", "files": []}]')
    assert main(["synthetic-shapes", "check", str(path)]) == 2
    assert f"{path}: entry 1: expects files of images" in capsys.readouterr().err
