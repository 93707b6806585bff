"""Result files: every row once and in order, whole or not at all."""

import json

import pytest

from ofa.errors import UserError
from ofa.task.results import (
    check_folder,
    merge_predictions,
    prediction_of,
    read_predictions,
    write_json,
    write_predictions,
)


def entry(row: int) -> dict:
    return {"image_id": f"img{row}", "caption": f"caption {row} é"}


def test_parts_of_several_processes_merge_into_the_order_of_the_file():
    parts = [[(row, entry(row)) for row in range(rank, 7, 3)] for rank in (2, 0, 1)]
    assert merge_predictions(parts, 7) == [entry(row) for row in range(7)]


def test_a_row_that_two_processes_predicted_counts_once():
    assert merge_predictions([[(0, entry(0)), (1, entry(1))], [(1, entry(1))]], 2) == [
        entry(0),
        entry(1),
    ]


@pytest.mark.parametrize("rows", ([0, 2], [0, 1, 2, 3]))
def test_a_gap_or_a_foreign_row_is_refused(rows):
    with pytest.raises(UserError, match="each of 3 rows"):
        merge_predictions([[(row, entry(row)) for row in rows]], 3)


def test_the_file_has_upstreams_name_and_reads_back(tmp_path):
    path = write_predictions(tmp_path / "new", "test", [entry(0), entry(1)])
    assert path.name == "test_predict.json"
    assert json.loads(path.read_text()) == read_predictions(path) == [entry(0), entry(1)]


def test_a_file_in_place_of_the_folder_of_results_is_named(tmp_path):
    (tmp_path / "results").touch()
    for folder in (tmp_path / "results", tmp_path / "results/val"):
        with pytest.raises(UserError, match="found the file .*/results; give another --out"):
            check_folder(folder)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "scores.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    assert json.loads(path.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_result_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text("[1, ")
    with pytest.raises(UserError, match="x.json"):
        read_predictions(tmp_path / "x.json")


@pytest.mark.parametrize("subset", ["../test", "/tmp/test", "a\0b", "a\\b"])
def test_a_subset_that_is_no_file_name_is_refused(tmp_path, subset):
    with pytest.raises(UserError, match="--gen-subset: expects the name of a file"):
        write_predictions(tmp_path / "in", subset, [])


def test_images_lie_below_the_result_file_or_in_the_folder_that_is_named(tmp_path):
    results, other = tmp_path / "results", tmp_path / "drawn"
    entry = {"caption": "a cat", "files": ["images/0.png", str(results / "images/1.png")]}
    best = prediction_of(entry, "r.json: entry 1", results)
    assert [best.file, best.others[0].file] == [
        str(results / "images" / f"{number}.png") for number in (0, 1)
    ]
    assert prediction_of(
        {"caption": "a cat", "files": ["../drawn/0.png"]}, "", results, [other]
    ).file == str(other / "0.png")


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/passwd", "images/../../secret.png", "a\0.png", "", None, 7, ["a.png"]],
)
@pytest.mark.parametrize("images", [[], ["drawn"]])
def test_a_result_file_names_no_images_elsewhere(tmp_path, name, images):
    with pytest.raises(UserError, match="^r.json: entry 1: expects the name of a file below"):
        prediction_of(
            {"caption": "a cat", "files": [name]},
            "r.json: entry 1",
            tmp_path / "results",
            [tmp_path / folder for folder in images],
        )


@pytest.mark.parametrize(
    "more",
    [
        {"score": "high"},
        {"score": 1e400},
        {"score": [1]},
        {"score": True},
        {"score": 10**400},
        {"bins": ["x"]},
        {"bins": "12"},
        {"bins": [1e400]},
        {"others": 3},
        {"others": [3]},
        {"files": ["a.png"], "scores": ["x"]},
        {"files": ["a.png"], "scores": 7},
        {"box": [1, 2, 3, 1e400], "answer": None},
        {"box": [True] * 4, "answer": None},
    ],
)
def test_values_that_are_no_numbers_are_one_message(more):
    entry = {"answer": "yes"} | more
    entry = {key: value for key, value in entry.items() if value is not None}
    with pytest.raises(UserError, match="^r.json: entry 1: expects"):
        prediction_of(entry, "r.json: entry 1")
