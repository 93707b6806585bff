"""Synthetic words: words, images and splits are the same everywhere, and no word lies in two
splits."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from ofa.cli.main import main
from ofa.errors import UserError
from ofa.synthetic.words import CONTRAST, WordStyle, encode, make_split, make_word, render, split_of


def test_a_word_depends_on_seed_split_and_index_alone():
    style = WordStyle()
    word = make_word(style, "train", 7)
    assert word == make_word(WordStyle(), "train", 7) == list(make_split(style, "train", 8))[7]
    assert word not in (
        make_word(style, "val", 7),
        make_word(style, "train", 8),
        make_word(WordStyle(seed=2), "train", 7),
    )
    assert encode(word, style) == encode(word, style)


def test_the_first_words_of_seed_one_are_known_by_heart():
    # Recorded when the words were made: training files stay the same from version to version.
    assert [word.text for word in make_split(WordStyle(), "train", 4)] == [
        "i8fv",
        "65p6qq",
        "bluc",
        "6asz",
    ]


def test_words_have_the_letters_and_lengths_asked_for_and_one_split():
    style = WordStyle(letters="abc1", shortest=2, longest=5)
    words = {
        split: {word.text for word in make_split(style, split, 150)}
        for split in ("train", "val", "test")
    }
    assert all(
        set(word) <= set("abc1") and 2 <= len(word) <= 5 and split_of(word) == split
        for split in words
        for word in words[split]
    )
    assert (
        not words["train"] & words["test"]
        and not words["val"] & words["test"]
        and not words["train"] & words["val"]
    )


def test_a_word_is_seen_whole_and_with_contrast():
    style = WordStyle()
    for word in make_split(style, "train", 40):
        image = np.asarray(render(word, style)).astype(int)
        assert image.shape == (32, 96, 3)
        ink = np.abs(image - np.asarray(word.paper)).max(-1) > 30
        assert (
            ink.any()
            and not ink[0].any()
            and not ink[-1].any()
            and not ink[:, 0].any()
            and not ink[:, -1].any()
        ), word
        assert abs(np.dot(np.subtract(word.ink, word.paper), (0.299, 0.587, 0.114))) >= CONTRAST


def test_plain_images_of_a_word_differ_in_their_grain_alone():
    style = WordStyle(plain=True, letters="ab", shortest=4, longest=4)
    words = list(make_split(style, "train", 60))
    ((one, two),) = [[word for word in words if word.text == words[0].text][:2]]
    assert (
        np.abs(np.asarray(render(one, style)).astype(int) - np.asarray(render(two, style))).max()
        <= 12
    )


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"letters": "aB"}, "--letters aB: expects small letters"),
        ({"shortest": 4, "longest": 3}, "1 <= shortest <= longest"),
    ],
)
def test_a_style_that_cannot_be_is_one_message(settings, words):
    with pytest.raises(UserError, match=words):
        WordStyle(**settings)


def test_images_too_small_to_read_are_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "synthetic-words", "--out", "nowhere", "--width", "4"])
    assert ended.value.code == 2
    assert "--width: expected an integer of at least 8" in capsys.readouterr().err


def test_the_command_writes_files_of_text_recognition_and_finds_them_complete(tmp_path, capsys):
    words = [
        "prepare",
        "synthetic-words",
        "--out",
        str(tmp_path / "w"),
        "--train",
        "6",
        "--val",
        "2",
        "--test",
        "3",
        "--jobs",
        "1",
    ]
    assert main(words) == 0
    rows = [line.split("\t") for line in (tmp_path / "w/ocr_train.tsv").read_text().splitlines()]
    assert [row[0] for row in rows] == [f"train_{number}" for number in range(6)]
    assert Image.open(io.BytesIO(base64.b64decode(rows[0][1]))).size == (96, 32)
    assert (tmp_path / "w/texts.txt").read_text().splitlines() == [row[2] for row in rows]
    before = (tmp_path / "w/ocr_train.tsv").stat().st_mtime_ns
    assert main(words) == 0 and (tmp_path / "w/ocr_train.tsv").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "w/manifest.json").read_text())["finished"]
    assert main(["doctor", str(tmp_path / "w/ocr_train.tsv"), "--task", "ocr"]) == 0
    assert main([*words[:3], str(tmp_path / "none"), "--letters", "a"]) == 2
    assert (
        "letters enough for words" in capsys.readouterr().err and not (tmp_path / "none").exists()
    )
