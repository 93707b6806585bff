"""The file of a joint training: what it may say, and one clear message for everything else."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from ofa.errors import UserError
from ofa.task.answers import LabelOptions
from ofa.task.mixture_file import beside, given, parse_members, read_members
from ofa.task.task_spec import TaskOptions


@dataclass
class CountOptions(TaskOptions):
    beam: int = 5
    smooth: float = 0.1
    eval_acc: bool = False
    eval_args: str | None = "{}"


@dataclass
class TemplateOptions(TaskOptions):
    template: str | None = None


SPECS = {
    "count": SimpleNamespace(options=CountOptions, aliases=("number",)),
    "other": SimpleNamespace(options=TaskOptions, aliases=()),
    "template": SimpleNamespace(options=TemplateOptions, aliases=()),
}
COLORS = "[image] what color, [text:name]? -> [text:color]"
COUNTS = "[image] how many -> [text:count]"


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


def test_tasks_in_one_line_are_tasks_of_a_mixture_several_times(tmp_path):
    members = read(tmp_path, {line: {"data": "x"} for line in (COLORS, COUNTS, "other")})
    assert [(member.name, member.task) for member in members] == [
        ("template", "template"),
        ("template_2", "template"),
        ("other", "other"),
    ]
    assert [member.options.get("template") for member in members] == [COLORS, COUNTS, None]


def test_a_mixture_is_said_in_one_line_with_files_and_weights():
    line = f'count=a.tsv,b.tsv*2, number=c, other=d.tsv * 0.5 ,"{COLORS}"=e.tsv'
    count, other, colors = parse_members(line.replace(" number=c,", ""), SPECS)
    assert (count.name, count.weight, count.options) == ("count", 2.0, {"data": "a.tsv,b.tsv"})
    assert (other.name, other.weight, other.options["data"]) == ("other", 0.5, "d.tsv")
    assert (colors.weight, colors.options) == (1.0, {"data": "e.tsv", "template": COLORS})
    with pytest.raises(UserError, match="every task once, found 'count' under two of its names"):
        parse_members(line, SPECS)


def test_a_line_takes_the_answers_beside_the_rows_where_a_task_has_some(tmp_path):
    specs = {**SPECS, "vqa_gen": SimpleNamespace(options=LabelOptions, aliases=("vqa",))}
    line = f"vqa={tmp_path}/train.tsv,{tmp_path}/val.tsv*2, count={tmp_path}/train.tsv"
    assert all("ans2label_file" not in one.options for one in parse_members(line, specs))
    (tmp_path / "trainval_ans2label.json").write_text("{}")
    questions, count = parse_members(line, specs)
    assert questions.options["ans2label_file"] == f"{tmp_path}/trainval_ans2label.json"
    assert questions.weight == 2.0 and "ans2label_file" not in count.options


@pytest.mark.parametrize(
    "line, words",
    [
        ("", "--mixture: expects tasks such as 'caption=train.tsv"),
        ("a.tsv", "--mixture: expects tasks such as"),
        ("x, count=a.tsv", "--mixture: expects tasks such as"),
        ("count=a.tsv*0", "'weight' expects a number above 0.*found 0"),
        ("count=a.tsv*1e5e", "'weight' expects a number above 0"),
        ("count=", "task 'count': expects \"data\""),
        ("cuont=a.tsv", "unknown task 'cuont'.*did you mean count"),
        ("count=a.tsv, count=b.tsv", "every task once, found 'count' twice"),
    ],
)
def test_a_line_that_is_no_mixture_is_one_message(line, words):
    with pytest.raises(UserError, match=words):
        parse_members(line, SPECS)


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
        ("{", r"tasks\.json: expected JSON of task 'joint'"),
        ([], r"one entry of options per task"),
        ({}, r"one entry of options per task"),
        ({"count": 3}, r"one entry of options per task"),
        (
            {"count": {"data": "x"}, "number": {"data": "y"}},
            r"every task once, found 'count' under two of its names",
        ),
        ('{"count": {"data": "x"}, "count": {"data": "y"}}', r"'count' occurs twice"),
        (
            {"cuont": {"data": "x"}},
            r"unknown task 'cuont'; known: count, other; did you mean count\?",
        ),
        ({"template": {"data": "x"}}, r"unknown task 'template'"),
        ({"[image] -> ": {"data": "x"}}, r"tasks\.json: expected"),
        (
            {COUNTS: {"data": "x"}, f"{COUNTS} ": {"data": "y"}},
            r"every task once, found '\[image\] how many",
        ),
        (
            {"count": {"data": "x", "baem": 3}},
            r"task 'count': unknown option 'baem'; known: beam, .*weight.*; did you mean beam\?",
        ),
        ({"count": {"beam": 3}}, r"task 'count': expects \"data\""),
        (
            {"count": {"data": "x", "num_bins": 3}},
            r"'num_bins' is the same for all tasks; give it as --num-bins",
        ),
        ({"count": {"data": "x", "beam": "3"}}, r"option 'beam' expects an integer, found \"3\""),
        ({"count": {"data": "x", "beam": True}}, r"option 'beam' expects an integer, found true"),
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
        ("[" * 100_000, r"tasks\.json: expected JSON of task 'joint'"),
        (
            '{"count": {"data": "x", "weight": %s}}' % ("1" * 5000),
            r"tasks\.json: expected JSON of task 'joint'",
        ),
    ],
)
def test_anything_else_is_one_message_with_file_task_and_option(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"none\.json: expected JSON of task 'joint'.*no readable file"
    ):
        read_members(str(tmp_path / "none.json"), SPECS)


def test_the_command_line_speaks_for_all_tasks_where_it_differs_from_the_defaults():
    found = given(TaskOptions(data="tasks.json", max_src_length=20, num_bins=1000))
    assert found["max_src_length"] == 20 and found["num_bins"] == 1000
    assert "data" not in found and "max_tgt_length" not in found
