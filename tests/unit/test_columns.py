"""Columns with kinds: what a declaration says about rows, and what follows from it."""

import importlib.metadata
import json
import zlib
from dataclasses import replace

import pytest
from original_data import write_images, write_json_lines

from ofa.doctor.rules import cell_faults
from ofa.doctor.schemas import Settings
from ofa.errors import UserError
from ofa.prepare.annotations import Problems
from ofa.prepare.csv_jsonl import OwnTableOptions, read_own_table
from ofa.task.columns import ID, IMAGE, KINDS, Column, TsvSchema
from ofa.tasks import declared_specs, spec_of
from ofa.tasks.instruction import SPEC as INSTRUCTION

SCHEMA = TsvSchema(
    name="toy",
    columns=(ID, IMAGE, Column("words", aliases=("say",)), Column("more", may_be_absent=True)),
    default_cols="3,0,1",
)


def test_columns_are_found_by_number_name_and_alias():
    assert SCHEMA.numbers() == {"id": 3, "image": 0, "words": 1}
    assert list(SCHEMA.numbers("0,1,2,5")) == ["id", "image", "words", "more"]
    assert SCHEMA.column("say") is SCHEMA.column("words") and SCHEMA.column("nothing") is None
    assert SCHEMA.column("words").public_name == "say"
    assert [column.name for column in SCHEMA.asked] == ["words"]
    assert replace(SCHEMA, default_cols="").default_cols == "0,1,2,3"


@pytest.mark.parametrize("cols", ["0,1", "0,1,2,3,4", "0,x,2", "0,-1,2"])
def test_columns_that_do_not_fit_are_one_message_with_the_usual_ones(cols):
    with pytest.raises(UserError, match=rf"--selected-cols={cols}: .*3,0,1"):
        SCHEMA.numbers(cols)


def test_an_unknown_kind_and_a_name_that_comes_twice_are_refused():
    with pytest.raises(UserError, match="column 'a': expects a kind of id, text, .* found 'texd'"):
        Column("a", "texd")
    with pytest.raises(UserError, match="task 'toy': .* found 'id' twice"):
        TsvSchema(name="toy", columns=(ID, ID))


def test_a_label_is_found_by_its_word_and_by_its_answer():
    column = Column("label", "label", labels={"entailment": "yes", "contradiction": "no"})
    found = [column.label_of(text) for text in ("Entailment", " no ", "perhaps")]
    assert found == ["entailment", "contradiction", None]


@pytest.mark.parametrize("kind", KINDS)
def test_the_doctor_has_rules_for_every_kind(kind):
    assert any(cell_faults("", Column("x", kind, target=True), Settings()))


@pytest.mark.parametrize("cell, wrong", [("0.5", False), ("1", False), ("1.5", True), ("x", True)])
def test_a_confidence_is_a_number_from_0_to_1(cell, wrong):
    column = Column("x", "confidence")
    found = [rule for rule, _ in cell_faults(cell, column, Settings())]
    assert found == ["confidence"] * wrong


def test_a_table_becomes_rows_by_the_kinds_of_the_columns(tmp_path):
    write_images(tmp_path / "photos", {1: "a.jpg"})  # 40 x 30 pixels
    spec = replace(
        INSTRUCTION,
        name="toy",
        columns=(
            *(ID, IMAGE, Column("hints", "texts", may_be_empty=True), Column("sure", "confidence")),
            *(Column("things", "boxes"), Column("kind", "label", target=True)),
        ),
        default_cols="0,5,2,3,4,1",
    )
    things = [{"box": [1, 2, 30, 20], "label": "dog"}, {"box": [0, 0, 9, 9], "label": "cat"}]
    entry = {"image": "a.jpg", "hints": ["x", " y"], "sure": 0.25, "things": things, "kind": "pets"}
    lines = [entry, {**entry, "sure": 2}]
    path = write_json_lines(tmp_path / "t.jsonl", lines)
    photos, problems = (str(tmp_path / "photos"),), Problems(skip=True)
    options = OwnTableOptions(files=(path,), task="toy", images=photos, out=str(tmp_path))
    found = read_own_table(options, problems, spec)
    (group,) = found.files["toy_train.tsv"]
    boxes = "1.0,2.0,30.0,20.0,0,dog&&0.0,0.0,9.0,9.0,1,cat"
    assert [row[:5] for row in group.rows] == [("0", "pets", "x&&y", "0.25", boxes)]
    assert json.loads(found.texts["class2label.json"][0]) == {"pets": 1}
    (message,) = problems.messages
    assert "t.jsonl:2" in message and "from 0 to 1" in message


def test_every_name_and_alias_finds_its_task_alone():
    specs = declared_specs()
    assert {name: spec_of(name).name for spec in specs for name in spec.names} == {
        name: spec.name for spec in specs for name in spec.names
    }
    with pytest.raises(UserError, match="unknown task 'grouding'; .*did you mean grounding?"):
        spec_of("grouding")
    with pytest.raises(UserError, match="unknown task 'template'; .*is the line itself: --task"):
        spec_of("template")


def test_an_alias_of_two_tasks_is_refused_with_both_names(monkeypatch):
    import ofa.tasks

    copy = replace(INSTRUCTION, name="counting")
    monkeypatch.setattr(ofa.tasks, "declared_specs", lambda: [copy, INSTRUCTION])
    assert spec_of("counting") is copy and spec_of("instruction") is INSTRUCTION
    with pytest.raises(UserError, match="'generate' may be counting or instruction"):
        spec_of("generate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_here", "a module {name}, found No module named 'nothing_here'"),
        ("def broken(:", "a module that can be imported, found SyntaxError"),
        ("raise SystemExit(3)", "a module that can be imported, found SystemExit (3)"),
        ("answer = 42", "a SPEC or SPECS of TaskSpec in {name}, found none"),
        ("SPEC = 'counting'", "a SPEC or SPECS of TaskSpec in {name}, found none"),
        ("from ofa.tasks.caption import SPEC", "found 'caption' of tasks/caption.py"),
        (
            "from dataclasses import replace\nfrom ofa.tasks.caption import SPEC\n"
            "SPEC = replace(SPEC, name='joint')",
            "found 'joint' of tasks/fairseq_",
        ),
    ],
)
def test_a_broken_package_is_named_once_and_skipped(tmp_path, monkeypatch, caplog, text, message):
    name = f"package_{zlib.crc32(text.encode())}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    point = importlib.metadata.EntryPoint(name, name, "ofa.tasks")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    known = [spec.name for spec in declared_specs()]
    assert spec_of("caption").name == "caption" and known.count("caption") == 1
    assert caplog.text.count(f"task package {name} is skipped") == 1
    assert message.format(name=name) in caplog.text


def test_an_entry_point_that_names_no_module_is_skipped(monkeypatch, caplog):
    point = importlib.metadata.EntryPoint("odd", "no module: x", "ofa.tasks")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    assert spec_of("caption").name == "caption"
    assert "task package odd is skipped" in caplog.text
