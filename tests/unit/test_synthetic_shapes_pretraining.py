"""Synthetic shapes for pretraining: files in the columns of upstream, the same from any
call."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa.cli.main import main
from ofa.io.images import decode_image
from ofa.synthetic.shapes import make_split, make_splits
from ofa.synthetic.shapes_check import things_named
from ofa.synthetic.shapes_files import NAMES, ShapesFolder
from ofa.synthetic.shapes_language import ENGLISH
from ofa.synthetic.shapes_phrases import pointing_at
from ofa.tokens.boxes import parse_box
from ofa.tokens.image_codes import text_to_codes

COUNTS = {"train": 12, "val": 3, "test": 4}
WORLD = ["prepare", "synthetic-shapes", "--train", "12", "--val", "3", "--test", "4", "--pretrain"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    assert main([*WORLD, "--out", str(folder)]) == 0
    return folder


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def brightness(images: list[Image.Image]) -> list[np.ndarray]:
    """Stands for a tokenizer: 8 x 8 pixels become their mean gray level."""
    return [np.asarray(image.convert("L").reduce(8)).astype(int) for image in images]


def test_pairs_have_the_eight_columns_and_three_types_of_upstream(world):
    for split, scenes in (("examples", 12), ("val", 3), ("test", 4)):
        found = rows(world / f"vision_language_{split}.tsv")
        assert {len(row) for row in found} == {8} and {row[7] for row in found} == {
            "caption",
            "qa",
            "visual_grounding",
        }
        assert len({row[0] for row in found}) == len(found)
        further = [row[0] for row in found if "_p" in row[0]]
        assert (split == "test") == bool(further) and [
            row[0] for row in found[len(found) - len(further) :]
        ] == further
        assert (
            sum(row[7] == "caption" for row in found) == 2 * scenes
            and sum(row[7] == "qa" for row in found) == 3 * scenes
        )
        for row in found:
            assert decode_image(row[1]).size == (64, 64)
            if row[7] == "qa":
                assert row[3].endswith("?") and row[4].startswith("1.0|!+") and not row[2]
            elif row[7] == "visual_grounding":
                x0, y0, x1, y1 = parse_box(row[4])
                assert row[2].startswith("the ") and 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64


def test_the_tests_name_every_phrase_that_means_a_region(world):
    told: dict[tuple[str, str], list[str]] = {}
    for row in rows(world / "vision_language_test.tsv"):
        if row[7] == "visual_grounding":
            told.setdefault((row[1], row[4]), []).append(row[2])
    scenes = make_splits(1, COUNTS)["test"]
    expected = [
        sorted(ENGLISH.the(phrase) for phrase in pointing_at(scene, thing))
        for scene in scenes
        for thing in scene.things
    ]
    assert sorted(map(sorted, told.values())) == sorted(filter(None, expected))


def test_objects_are_all_things_with_their_boxes_and_numbers(world):
    for row, scene in zip(
        rows(world / "detection_examples.tsv"), make_splits(1, COUNTS)["train"], strict=True
    ):
        parts = [part.split(",") for part in row[2].split("&&")]
        assert [part[5] for part in parts] == [
            f"{thing.color} {thing.shape}" for thing in scene.things
        ]
        assert all(NAMES[int(part[4])] == part[5] for part in parts)
        assert [[float(v) for v in part[:4]] for part in parts] == [
            thing.box_px(64) for thing in scene.things
        ]


def test_texts_tell_of_scenes_that_are_shown_and_of_others(world):
    found = rows(world / "text_examples.tsv")
    assert {len(row) for row in found} == {2} and len(found) == 2 * 2 * 12
    assert sum(row[0].startswith("train texts_") for row in found) == len(found) // 2
    assert all(text == text.lower() and len(text.split()) <= 40 for _, text in found)
    assert len({text for _, text in found}) > 0.9 * len(found)


def test_texts_say_what_is_true_of_their_scene():
    for scene in make_split(1, "told", 60):
        looks = [(thing.color, thing.shape) for thing in scene.things]
        texts = ENGLISH.pretraining_texts(scene)
        assert len(texts) == 2 and texts == ENGLISH.pretraining_texts(scene)
        assert all(set(things_named(text)) <= set(looks) for text in texts)


def test_wrong_examples_are_drawn_from_the_training_rows(world):
    captions = {
        row[2] for row in rows(world / "vision_language_examples.tsv") if row[7] == "caption"
    }
    assert set((world / "negative_sample/all_captions.txt").read_text().splitlines()) == captions
    assert set((world / "negative_sample/object.txt").read_text().splitlines()) <= set(NAMES)
    assert "other" in json.loads((world / "negative_sample/type2ans.json").read_text())


def test_a_second_call_keeps_everything_and_files_for_finetuning_are_those_without_pretraining(
    world, tmp_path
):
    stamps = {path: path.stat().st_mtime_ns for path in world.rglob("*.tsv")}
    assert main([*WORLD, "--out", str(world)]) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert main([*WORLD[:-1], "--out", str(tmp_path)]) == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (
        manifest == json.loads((world / "manifest.json").read_text())
        and not (tmp_path / "text_examples.tsv").exists()
    )


def test_an_interrupted_call_is_continued(world, tmp_path):
    for path in world.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    name = "vision_language_examples.tsv"
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).rename(tmp_path / f"{name}.part")
    (tmp_path / f"{name}.part").write_bytes(content[: len(content) // 2])
    manifest = json.loads((tmp_path / "manifest_pretraining.json").read_text())
    del manifest["files"][name]
    (tmp_path / "manifest_pretraining.json").write_text(json.dumps({**manifest, "finished": False}))
    assert main([*WORLD, "--out", str(tmp_path)]) == 0
    assert (tmp_path / name).read_bytes() == content


def test_codes_are_those_of_the_middle_and_of_the_whole_image(world):
    ShapesFolder(out=str(world), **COUNTS).write_codes(brightness, "brightness")
    scenes = make_splits(1, COUNTS)
    for split, name in (("train", "examples"), ("val", "val"), ("test", "test")):
        middles, wholes = rows(world / f"image_{name}.tsv"), rows(world / f"image_gen_{split}.tsv")
        assert len(middles) == len(wholes) == COUNTS[split]
        for middle, whole, scene in zip(middles, wholes, scenes[split]):
            grid = text_to_codes(whole[1], 256, 64).reshape(8, 8)
            inner = text_to_codes(middle[2], 256, 16).reshape(4, 4)
            assert (grid[2:6, 2:6] == inner).all()  # the stand-in sees 8 x 8 pixels at a time
            assert decode_image(middle[1]).size == (64, 64) and middle[0] == scene.scene_id
            assert sorted(things_named(whole[2])) == sorted(
                (thing.color, thing.shape) for thing in scene.things
            )


def test_further_scenes_to_draw_are_in_no_other_file_and_unlike_those_of_the_tests(world, tmp_path):
    for path in world.glob("caption_*.tsv"):  # the images of the splits
        (tmp_path / path.name).write_bytes(path.read_bytes())
    ShapesFolder(out=str(tmp_path), **COUNTS, drawings=40).write_codes(brightness, "brightness")
    drawn, tested = rows(tmp_path / "image_gen_train.tsv"), rows(tmp_path / "image_gen_test.tsv")
    assert len(drawn) == COUNTS["train"] + 40 and len({row[0] for row in drawn}) == len(drawn)
    assert not {row[2] for row in drawn} & {row[2] for row in tested}
    assert len(rows(tmp_path / "image_examples.tsv")) == COUNTS["train"]


def test_another_tokenizer_makes_the_codes_anew_and_nothing_else(world):
    ShapesFolder(out=str(world), **COUNTS).write_codes(brightness, "brightness")
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).digest() for path in world.glob("*.tsv")
    }
    ShapesFolder(out=str(world), **COUNTS).write_codes(
        lambda images: [255 - grid for grid in brightness(images)], "darkness"
    )
    changed = {
        path.name
        for path in world.glob("*.tsv")
        if digests[path.name] != hashlib.sha256(path.read_bytes()).digest()
    }
    assert changed == {f"image_{split}.tsv" for split in ("examples", "val", "test")} | {
        f"image_gen_{split}.tsv" for split in COUNTS
    }


def test_a_tokenizer_without_pretraining_and_a_size_that_does_not_fit_are_refused(tmp_path, capsys):
    assert main([*WORLD[:-1], "--tokenizer", "nowhere", "--out", str(tmp_path)]) == 2
    assert "add --pretrain" in capsys.readouterr().err
    assert main([*WORLD, "--drawings", "9", "--out", str(tmp_path)]) == 2
    assert "give a --tokenizer" in capsys.readouterr().err
    assert main([*WORLD, "--tokenizer", "nowhere", "--out", str(tmp_path)]) == 2
    assert "nowhere: expected an image tokenizer" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
