"""Synthetic shapes in Chinese says of the same scenes what is true of them."""

import json

import pytest

from ofa.cli.main import main
from ofa.synthetic.shapes import BACKDROPS, COLORS, SHAPES, make_split
from ofa.synthetic.shapes_language import CHINESE, ENGLISH
from ofa.synthetic.shapes_phrases import Phrase, questions
from ofa.task.text import is_chinese


@pytest.fixture(scope="module")
def scenes():
    return list(make_split(seed=1, split="train", count=300))


def test_the_first_scene_of_seed_one_is_known_by_heart(scenes):
    assert CHINESE.captions(scenes[0])[0] == "一个橙色的小正方形和一个棕色的大箭头"
    assert CHINESE.captions(scenes[0]) == CHINESE.captions(scenes[0])


def test_every_scene_has_five_different_captions_that_name_only_what_is_there(scenes):
    names = sorted(map(CHINESE.word, (*COLORS, *BACKDROPS)), key=len, reverse=True)
    for scene in scenes:
        captions = CHINESE.captions(scene)
        assert len(set(captions)) == 5 and all(
            is_chinese(text) and len(text) <= 70 and "&&" not in text for text in captions
        )
        there = {
            CHINESE.word(word)
            for word in (scene.backdrop, *(thing.color for thing in scene.things))
        }
        shapes = {CHINESE.word(thing.shape) for thing in scene.things}
        for text in captions:
            assert {shape for shape in map(CHINESE.word, SHAPES) if shape in text} <= shapes
            for color in names:  # the long names first: one is part of another
                assert color not in text or color in there
                text = text.replace(color, "")


def test_expressions_and_questions_are_the_english_ones_in_other_words(scenes):
    for scene in scenes:
        assert [thing for _, thing in CHINESE.expressions(scene)] == [
            thing for _, thing in ENGLISH.expressions(scene)
        ]
        texts = [text for text, _ in CHINESE.expressions(scene)]
        assert len(set(texts)) == len(texts)
        for (text, answer), asked in zip(CHINESE.questions(scene), questions(scene), strict=True):
            assert text.endswith("？") and answer in CHINESE.answers()
            if asked.kind == "color":
                assert answer == CHINESE.word(asked.answer) and text.endswith("是什么颜色？")


def test_phrases_say_place_color_size_and_shape_in_chinese_order():
    assert CHINESE.phrase(Phrase("large", "red", "circle", "left")) == "左边的红色的大圆形"
    assert CHINESE.phrase(Phrase(size="small")) == "小图形"


def test_the_command_writes_chinese_files_with_the_english_images(tmp_path, capsys):
    size = ["--train", "6", "--val", "2", "--test", "2", "--size", "16", "--jobs", "1"]
    for language in ("zh", "en"):
        assert (
            main(
                [
                    "prepare",
                    "synthetic-shapes",
                    "--language",
                    language,
                    "--out",
                    str(tmp_path / language),
                    *size,
                ]
            )
            == 0
        )
    for name in ("caption_stage2_train.tsv", "refcoco_train.tsv", "vqa_train.tsv"):
        ours, theirs = (
            [
                line.split("\t")
                for line in (tmp_path / which / name).read_text(encoding="utf-8").splitlines()
            ]
            for which in ("zh", "en")
        )
        assert [(row[0], row[-1]) for row in ours] == [(row[0], row[-1]) for row in theirs]
        assert all(is_chinese(row[2]) for row in ours) and not any(
            is_chinese(row[2]) for row in theirs
        )
    assert {"红色", "没有", "左上角"} <= json.loads(
        (tmp_path / "zh/ans2label.json").read_text(encoding="utf-8")
    ).keys()
    scene = json.loads((tmp_path / "zh/scenes.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert is_chinese(scene["captions"][0]) and scene["objects"][0]["shape"].isascii()
    assert (
        main(
            [
                "prepare",
                "synthetic-shapes",
                "--language",
                "zh",
                "--pretrain",
                "--out",
                str(tmp_path / "no"),
                *size,
            ]
        )
        == 2
    )
    assert "--pretrain: the texts of pretraining are English" in capsys.readouterr().err
