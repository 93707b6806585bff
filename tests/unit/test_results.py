"""Result files: every row once and in order, whole or not at all."""

import json

import pytest

from ofa.errors import UserError
from ofa.results import merge_predictions, read_predictions, write_json, write_predictions


def entry(row: int) -> dict:
    return {"image_id": f"img{row}", "caption": f"caption {row} é"}


def test_parts_of_several_processes_merge_into_the_order_of_the_file():
    parts = [[(row, entry(row)) for row in range(rank, 7, 3)] for rank in (2, 0, 1)]
    assert merge_predictions(parts, 7) == [entry(row) for row in range(7)]


def test_a_row_that_two_processes_predicted_counts_once():
    assert merge_predictions([[(0, entry(0)), (1, entry(1))], [(1, entry(1))]], 2) == [entry(0), entry(1)]


@pytest.mark.parametrize("rows", ([0, 2], [0, 1, 2, 3]))
def test_a_gap_or_a_foreign_row_is_refused(rows):
    with pytest.raises(UserError, match="each of 3 rows"):
        merge_predictions([[(row, entry(row)) for row in rows]], 3)


def test_the_file_has_the_official_name_and_reads_back(tmp_path):
    path = write_predictions(tmp_path / "new", "test", [entry(0), entry(1)])
    assert path.name == "test_predict.json"
    assert json.loads(path.read_text()) == read_predictions(path) == [entry(0), entry(1)]


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
