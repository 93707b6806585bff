"""The file of a joint training: what it may say, and one clear message for everything else."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from ofa.errors import UserError
from ofa.task.mixture_file import beside, given, metric_names, read_members
from ofa.task.task_spec import TaskOptions


@dataclass
class CountOptions(TaskOptions):
    beam: int = 5
    smooth: float = 0.1
    eval_acc: bool = False
    eval_args: str | None = "{}"


SPECS = {
    "count": SimpleNamespace(options=CountOptions, aliases=("number",)),
    "other": SimpleNamespace(options=TaskOptions, aliases=()),
}


def read(tmp_path, content) -> list:
    path = tmp_path / "tasks.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_members(str(path), SPECS)


def test_tasks_come_with_weight_and_options_in_the_order_of_the_file(tmp_path):
    for name in ("a.tsv", "b.tsv"):
        (tmp_path / name).touch()
    other, count = read(
        tmp_path,
        {
            "other": {"data": "a.tsv"},
            "count": {
                "data": "a.tsv,b.tsv",
                "weight": 0.5,
                "smooth": 1,
                "eval_acc": True,
                "eval_args": {"beam": 3},
            },
        },
    )
    assert (other.name, other.weight, other.options) == (
        "other",
        1.0,
        {"data": str(tmp_path / "a.tsv")},
    )
    assert (count.name, count.weight) == ("count", 0.5)
    assert count.options == {
        "data": f"{tmp_path / 'a.tsv'},{tmp_path / 'b.tsv'}",
        "smooth": 1.0,
        "eval_acc": True,
        "eval_args": '{"beam": 3}',
    }


def test_files_are_looked_for_beside_the_file_and_other_words_stay(tmp_path):
    (tmp_path / "answers.json").touch()
    path = str(tmp_path / "tasks.json")
    assert beside(path, "answers.json") == str(tmp_path / "answers.json")
    assert (
        beside(path, "0,4,2") == "0,4,2"
        and beside(path, 3) == 3
        and beside(path, "/nowhere/x.tsv") == "/nowhere/x.tsv"
    )


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", r"tasks\.json: .*expects JSON"),
        ([], r"one entry of options per task"),
        ({}, r"one entry of options per task"),
        ({"count": 3}, r"one entry of options per task"),
        (
            {"count": {"data": "x"}, "number": {"data": "y"}},
            r"every task once, found 'count' under two of its names",
        ),
        ('{"count": {"data": "x"}, "count": {"data": "y"}}', r"'count' occurs twice"),
        ({"cuont": {"data": "x"}}, r"unknown task 'cuont'; known: count, other"),
        (
            {"count": {"data": "x", "baem": 3}},
            r"task 'count': unknown option 'baem'; known: beam, .*weight",
        ),
        ({"count": {"beam": 3}}, r"task 'count': expects \"data\""),
        (
            {"count": {"data": "x", "num_bins": 3}},
            r"'num_bins' is the same for all tasks; give it as --num-bins",
        ),
        ({"count": {"data": "x", "beam": "3"}}, r"option 'beam' expects int, found \"3\""),
        ({"count": {"data": "x", "beam": True}}, r"option 'beam' expects int, found true"),
        (
            {"count": {"data": "x", "eval_acc": 1}},
            r"option 'eval_acc' expects true or false, found 1",
        ),
        (
            {"count": {"data": "/dev/zero"}},
            r"'data' expects files and folders of this machine, found '/dev/zero'",
        ),
        (
            {"count": {"data": "a.tsv,https://host/b.tsv"}},
            r"'data' expects files and folders of this machine",
        ),
        (
            {"count": {"data": "../../proc/self/environ,/proc/self/environ"}},
            r"'data' expects files and folders",
        ),
        ({"count": {"data": 7}}, r"option 'data' expects null or text, found 7"),
        ({"count": {"data": "x", "weight": 0}}, r"'weight' expects a number above 0.*found 0"),
        (
            {"count": {"data": "x", "weight": "2"}},
            r"'weight' expects a number above 0.*found \"2\"",
        ),
        *(
            (
                f'{{"count": {{"data": "x", "weight": {weight}}}}}',
                r"'weight' expects a number above 0",
            )
            for weight in ("1e400", "NaN", "1e30", "1" * 400, "-1", "true")
        ),
        ("[" * 100_000, r"tasks\.json: .*expects JSON"),
        ('{"count": {"data": "x", "weight": %s}}' % ("1" * 5000), r"tasks\.json: .*expects JSON"),
    ],
)
def test_anything_else_is_one_message_with_file_task_and_option(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: task 'joint' expects a JSON file"):
        read_members(str(tmp_path / "none.json"), SPECS)


def test_the_command_line_speaks_for_all_tasks_where_it_differs_from_the_defaults():
    found = given(TaskOptions(data="tasks.json", max_src_length=20, num_bins=1000))
    assert found["max_src_length"] == 20 and found["num_bins"] == 1000
    assert "data" not in found and "max_tgt_length" not in found


def test_metrics_keep_their_names_unless_two_tasks_use_the_same():
    names = metric_names({"a": ["score", "cider"], "b": ["score"]})
    assert names == {("a", "score"): "a_score", ("a", "cider"): "cider", ("b", "score"): "b_score"}
