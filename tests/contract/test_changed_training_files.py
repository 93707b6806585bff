"""What a checkpoint notes of training files of each kind, and which change of them it finds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from caption_files import caption, caption_flags, make_vocabulary, write_tsv
from fairseq_setup import configuration, task_with_data
from pretraining_files import make_files, pretraining_flags

from ofa.data.shard_writer import pack

# Options of one task are in the file of the mixture.
JOINT_OWN = ("--selected-cols", "--eval-cider", "--eval-args", "--task")


def noted(flags: list[str]) -> Callable[[], list[str]]:
    """Function -> what changed of the training files since their rows were opened."""
    from ofa.trainer.fairseq_resume import changes, opened_files

    cfg = configuration(flags)
    task = task_with_data(cfg)
    stored = json.loads(json.dumps(opened_files(task, task.dataset("train"), 1, {})))
    return lambda: changes(task.training_files(), stored)


def change_a_byte(path: Path, place: bytes) -> None:
    content = path.read_bytes()
    assert content.count(place) == 1
    path.write_bytes(content.replace(place, bytes([place[0] ^ 1]) + place[1:]))


def append_first_row(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content + content[: content.index(b"\n") + 1])


@pytest.fixture
def vocabulary(tmp_path):
    return make_vocabulary(tmp_path / "vocabulary")


@pytest.fixture
def shards(tmp_path, vocabulary):
    """Flags of a training from three shards."""
    write_tsv(tmp_path / "rows.tsv", [caption(number) for number in range(6)])
    valid = write_tsv(tmp_path / "valid.tsv", [caption(number) for number in range(3)], joined=True)
    pack(str(tmp_path / "rows.tsv"), str(tmp_path / "shards"), "rows", most_rows=2)
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 3
    return caption_flags(f"{tmp_path}/shards,{valid}", vocabulary)


def test_another_content_of_one_shard_is_found(shards, tmp_path):
    found = noted(shards)
    assert found() == []
    change_a_byte(tmp_path / "shards/rows-000001.tar", caption(2).encode())
    (change,) = found()
    assert "expected the 6 rows (" in change
    assert "found other content of the same size: 6 rows" in change


def test_a_shard_that_was_added_is_found(shards, tmp_path):
    found = noted(shards)
    write_tsv(tmp_path / "rows.tsv", [caption(number) for number in range(8)])
    for path in (tmp_path / "shards").iterdir():
        path.unlink()
    pack(str(tmp_path / "rows.tsv"), str(tmp_path / "shards"), "rows", most_rows=2)
    assert len(found()) == 1 and "found more of them at its end: 8 rows" in found()[0]


def test_a_changed_file_of_one_task_of_a_mixture_is_found_and_named(tmp_path, vocabulary):
    for name in ("one", "other"):
        write_tsv(tmp_path / f"{name}.tsv", [caption(number) for number in range(4)])
    write_tsv(tmp_path / "valid.tsv", [caption(number) for number in range(3)], joined=True)
    members = {
        "caption": {"data": "one.tsv,valid.tsv", "selected_cols": "0,4,2"},
        "refcoco": {"data": "other.tsv,valid.tsv", "selected_cols": "0,4,2,3"},
    }
    (tmp_path / "tasks.json").write_text(json.dumps(members))
    flags = caption_flags(f"{tmp_path}/tasks.json", vocabulary)
    found = noted([*(flag for flag in flags if not flag.startswith(JOINT_OWN)), "--task=joint"])
    assert found() == []
    append_first_row(tmp_path / "other.tsv")
    (change,) = found()
    assert "other.tsv: expected the 4 rows" in change
    assert "found more of them at its end: 5 rows" in change


@pytest.mark.parametrize("kind", ["pairs", "texts", "images", "objects"])
def test_a_changed_file_of_a_pretraining_is_found_and_named(tmp_path, kind):
    files = make_files(tmp_path / "pretraining")
    found = noted(pretraining_flags(files))
    assert found() == []
    append_first_row(files.folder / f"{kind}.tsv")
    (change,) = found()
    assert f"{kind}.tsv: expected the " in change and "found more of them at its end" in change
