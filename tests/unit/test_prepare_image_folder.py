"""``ofa prepare image-folder``: images sorted into classes become files of ``image_classify``."""

import json

import pytest
from original_data import write_images

from ofa.cli.main import main


def run(folder, *words) -> int:
    paths = [str(word).replace("@", f"{folder}/") for word in words]
    return main(["prepare", "image-folder", *paths, "--out", str(folder / "out")])


def labels(folder, split: str) -> list[list[str]]:
    """Number and words of the class of each row."""
    lines = (folder / f"out/image_classify_{split}.tsv").read_text().splitlines()
    return [line.split("\t")[1:] for line in lines]


def test_folders_of_classes_become_rows_and_one_fraction_validates(tmp_path, caplog):
    names = {1: "001.red_rose/a.jpg", 2: "001.red_rose/b.jpg", 3: "002.Lily/c.jpg"}
    write_images(tmp_path / "flowers", names)
    assert run(tmp_path, "@flowers", "--val-fraction", "0.3") == 0
    rows = labels(tmp_path, "train") + labels(tmp_path, "val")
    assert sorted(rows) == [["1", "Lily"], ["2", "red rose"], ["2", "red rose"]]
    assert "no validation part" not in caplog.text
    assert json.loads((tmp_path / "out/class2label.json").read_text()) == {"Lily": 1, "red rose": 2}


def test_folders_called_as_splits_hold_the_classes(tmp_path):
    names = {1: "Train/rose/a.jpg", 2: "valid/rose/b.jpg", 3: "test/lily/c.jpg"}
    write_images(tmp_path / "flowers", names)
    assert run(tmp_path, "@flowers") == 0
    found = [labels(tmp_path, split) for split in ("train", "val", "test")]
    assert found == [[["2", "rose"]], [["2", "rose"]], [["1", "lily"]]]


def test_images_of_a_test_split_may_lie_in_no_class(tmp_path):
    write_images(tmp_path / "flowers", {1: "train/rose/a.jpg", 2: "test/b.jpg", 3: "test/c.jpg"})
    assert run(tmp_path, "@flowers") == 0
    assert labels(tmp_path, "test") == [["", ""], ["", ""]]


@pytest.mark.parametrize(
    "name, content",
    [
        ("names.json", '{"1": "pink primrose", "2": "rose"}'),
        ("names.txt", "1 pink primrose\n2 rose"),
    ],
)
def test_lists_name_files_and_classes_whose_words_stand_in_a_file(tmp_path, name, content):
    write_images(tmp_path / "jpg", {1: "a.jpg", 2: "b.jpg"})
    (tmp_path / "train.txt").write_text("a.jpg 1\nb 2\n")
    (tmp_path / name).write_text(content)
    words = ["--train", "@train.txt", "--images", "@jpg", "--class-names", f"@{name}"]
    assert run(tmp_path, *words) == 0
    assert labels(tmp_path, "train") == [["1", "pink primrose"], ["2", "rose"]]


@pytest.mark.parametrize(
    "names, words, message",
    [
        ({1: "a.jpg"}, ["@f"], "expected one sub-folder per class, found no sub-folder"),
        ({1: "rose/a.jpg"}, ["@none"], "none: expected a folder of images"),
        (
            {1: "val/x/a.jpg", 2: "dev/x/b.jpg"},
            ["@f"],
            "expected one folder for val, found dev and",
        ),
        ({1: "rose/a.jpg"}, [], "expected a folder with a folder per class, found none"),
        ({1: "rose/a.jpg"}, ["@f", "--class-names", "@c.txt"], "found 'rose'; did you mean roses?"),
        ({1: "rose/a.jpg"}, ["@f", "--class-names", "@d.txt"], "d.txt:2: expected a new class"),
        (
            {1: "rose/a.jpg"},
            ["@f", "--class-names", "@e.json"],
            "words of class 'rose', found null",
        ),
    ],
)
def test_a_wrong_folder_or_file_is_one_message(tmp_path, capsys, names, words, message):
    write_images(tmp_path / "f", names)
    (tmp_path / "c.txt").write_text("roses many roses\n")
    (tmp_path / "d.txt").write_text("rose a rose\nrose another\n")
    (tmp_path / "e.json").write_text('{"rose": null}')
    assert run(tmp_path, *words) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_doctor_finds_no_fault_in_what_was_made(tmp_path):
    write_images(
        tmp_path / "flowers", {1: "train/rose/a.jpg", 2: "val/rose/b.jpg", 3: "test/c.jpg"}
    )
    assert run(tmp_path, "@flowers") == 0 and main(["doctor", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    "folders, words",
    [
        (("1_cat", "2_cat"), ["1 cat", "2 cat"]),
        (("7_up", "cola"), ["7 up", "cola"]),
        (("1_red_rose", "2.red rose"), ["1 red rose", "2.red rose"]),
        (("1_rose", "2_lily"), ["lily", "rose"]),
    ],
)
def test_numbers_of_folders_go_only_where_the_classes_stay_apart(tmp_path, folders, words):
    write_images(tmp_path / "f", {n: f"{name}/a.jpg" for n, name in enumerate(folders, 1)})
    assert run(tmp_path, "@f") == 0
    assert list(json.loads((tmp_path / "out/class2label.json").read_text())) == words


def test_a_split_that_is_given_goes_before_the_sub_folder(tmp_path):
    write_images(tmp_path / "f", {1: "train/rose/a.jpg", 2: "val/rose/b.jpg", 3: "dev/rose/c.jpg"})
    write_images(tmp_path / "other", {4: "lily/d.jpg"})
    assert run(tmp_path, "@f", "--val", "@f/dev", "--test", "@other") == 0
    found = [labels(tmp_path, split) for split in ("train", "val", "test")]
    assert found == [[["2", "rose"]], [["2", "rose"]], [["1", "lily"]]]


def test_two_folders_of_training_images_are_one_message(tmp_path, capsys):
    write_images(tmp_path / "f", {1: "rose/a.jpg"})
    assert run(tmp_path, "@f", "--train", "@f") == 2
    assert "expected sub-folders train, val or test with --train" in capsys.readouterr().err


def test_folders_of_classes_without_images_are_named(tmp_path, capsys):
    (tmp_path / "f/rose").mkdir(parents=True)
    assert run(tmp_path, "@f") == 2
    assert f"{tmp_path}/f: expected image files in the folders" in capsys.readouterr().err
