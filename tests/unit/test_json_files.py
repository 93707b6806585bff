"""JSON and YAML of others: values, or one line that names the file."""

import json

import pytest

from ofa.errors import UserError
from ofa.io.json_files import load_json, parse_json, read_json, read_yaml


@pytest.mark.parametrize(
    "text",
    ['{"a": [1, 2.5, null, true, "\\u00e4"], "b": {}}', "[]", '"text"', "3", "[NaN, Infinity]"],
)
def test_values_are_those_of_the_json_module(text):
    assert repr(load_json(text)) == repr(json.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "[" * 101 + "]" * 101,
        '{"a":' * 101 + "1" + "}" * 101,
        "9" * 5000,
        "{",
        "",
        "\ufeff{}",
    ],
)
def test_what_is_no_json_or_nested_too_deeply_is_one_line_with_the_place(text):
    with pytest.raises(
        UserError, match="rows.jsonl:3: expected an object, found damaged JSON"
    ) as error:
        parse_json(text, "rows.jsonl:3", "an object")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_hundred_levels_are_read():
    assert load_json("[" * 100 + "]" * 100)


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(UserError, match="a.json: expected a JSON object, found a list"):
        read_json(tmp_path / "a.json", "a JSON object", kind=dict)
    with pytest.raises(UserError, match="b.json: expected JSON, found no readable file"):
        read_json(tmp_path / "b.json")


def test_yaml_with_aliases_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &x {b: [1, 2.5, yes]}\nc: *x\nd: {<<: *x, e: text}\n")
    inner = {"b": [1, 2.5, True]}
    assert read_yaml(tmp_path / "a.yaml") == {"a": inner, "c": inner, "d": {**inner, "e": "text"}}


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)
)


@pytest.mark.parametrize(
    "text, words",
    [
        (LAUGHS, "more than 10000 values"),
        ("[" * 5000, "nested more than 100 deep"),
        ("&a [*a]", "contains itself"),
        ("a: [", "while parsing"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: !!int x", ""),
        ("a: 1" + ":1" * 400_000, "a value of more than 10000 characters"),
        ("\0", ""),
    ],
)
def test_yaml_of_anything_else_is_one_line(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(
        UserError,
        match=f"a.yaml: expected YAML with plain values only, found something else .*{words}",
    ) as error:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(error.value)
