"""``ofa doctor`` on the environment, vocabulary folders and checkpoints."""

import json
import shutil

import pytest
import torch
from caption_files import make_vocabulary

from ofa.cli.main import main
from ofa.doctor import environment
from ofa.doctor.assets import files_of
from ofa.tokens.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return make_vocabulary(tmp_path_factory.mktemp("vocabulary"))


def checkpoint(path, rows: int, value: float = 0.5, **args):
    weights = {
        "encoder.embed_tokens.weight": torch.full((rows, 4), value),
        "encoder.x": torch.ones(2),
    }
    torch.save({"model": weights, "cfg": {"model": {"arch": "ofa_nano"} | args}}, path)
    return str(path)


def test_the_environment_of_the_tests_is_sound(capsys, tmp_path):
    assert main(["doctor", "--json", str(tmp_path / "r.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("environment:python ok - 3.")
    names = {
        check["name"] for check in json.loads((tmp_path / "r.json").read_text())["environment"]
    }
    assert {
        "python",
        "torch",
        "fairseq",
        "libraries",
        "java",
        "disk",
        "temporary",
        "processor",
    } <= names


@pytest.mark.parametrize(
    "name, value, check, state",
    [
        ("PYTHON", (9, 0), "python", "fault"),
        ("LIBRARIES", ("ofa_no_such",), "libraries", "fault"),
        ("FREE_DISK", 1e18, "disk", "note"),
        ("OPEN_FILES", 10**9, "open-files", "note"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(monkeypatch, name, value, check, state):
    monkeypatch.setattr(environment, name, value)
    found = {entry.name: entry for entry in environment.check_environment()}
    if check == "open-files" and check not in found:
        pytest.skip("no limit on open files here")
    assert found[check].state == state and found[check].fix


def test_a_machine_without_java_has_a_note(monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    found = {entry.name: entry for entry in environment.check_environment()}
    assert found["java"].state == "note" and "METEOR" in found["java"].fix


def test_fairseq_of_the_other_name_is_a_fault(monkeypatch):
    monkeypatch.setattr(environment.importlib.metadata, "version", lambda name: "0.12.2")
    found = {entry.name: entry for entry in environment.check_environment()}
    assert found["fairseq"].state == "fault" and "overwrite" in found["fairseq"].found


def test_a_driver_without_a_cuda_build_is_a_fault(monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = {entry.name: entry for entry in environment.check_environment()}
    assert found["gpu"].state == "fault"


def test_a_vocabulary_folder_without_dictionary_is_a_fault(vocabulary, tmp_path, capsys):
    broken = shutil.copytree(vocabulary, tmp_path / "v")
    (broken / "dict.txt").unlink()
    assert main(["doctor", str(broken)]) == 1
    assert f"{broken}:1:* vocabulary - " in capsys.readouterr().out


def test_tables_of_folders_in_a_folder_are_found(tmp_path):
    for name in ("a.tsv", "vqa/b.tsv", "vqa/deep/c.tsv", ".hidden/d.tsv", "words/e.tsv", "f/g.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "words/dict.txt").touch()  # a vocabulary
    found = [str(tmp_path / name) for name in ("a.tsv", "vqa/b.tsv", "vqa/deep/c.tsv")]
    assert files_of(str(tmp_path)) == found


def test_a_sound_vocabulary_folder_has_no_faults(vocabulary, capsys):
    assert main(["doctor", str(vocabulary)]) == 0
    assert "no faults" in capsys.readouterr().out


def test_a_sound_checkpoint_fits_its_vocabulary(vocabulary, tmp_path, capsys):
    path = checkpoint(tmp_path / "a.pt", len(Vocabulary.from_folder(vocabulary)))
    assert main(["doctor", path, "--bpe-dir", str(vocabulary)]) == 0
    assert "2 tensors: no faults, no notes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [{"code_dict_size": 10**9}, {"num_bins": "many"}, {"code_dict_size": -1}]
)
def test_options_that_no_vocabulary_has_are_a_fault_and_take_no_memory(
    vocabulary, tmp_path, capsys, options
):
    path = checkpoint(tmp_path / "a.pt", 10, **options)
    assert main(["doctor", path, "--bpe-dir", str(vocabulary)]) == 1
    assert "options that say code_dict_size and num_bins" in capsys.readouterr().out


@pytest.mark.parametrize(
    "make, rule, words",
    [
        (
            lambda p: checkpoint(p, 10),
            "checkpoint-vocabulary",
            "encoder.embed_tokens.weight of 10 entries",
        ),
        (lambda p: checkpoint(p, 9512, float("nan")), "checkpoint-weights", "1 tensors with NaN"),
        (lambda p: p.write_bytes(b"PK\x03\x04 damaged"), "checkpoint", "damaged or incomplete"),
        (lambda p: torch.save({"model": {"x": torch.ones(1)}}, p), "checkpoint", "an OFA model"),
        (lambda p: None, "checkpoint", "no such file"),
    ],
)
def test_a_damaged_checkpoint_is_a_fault(vocabulary, tmp_path, capsys, make, rule, words):
    path = tmp_path / "a.pt"
    make(path)
    assert main(["doctor", str(path), "--bpe-dir", str(vocabulary)]) == 1
    out = capsys.readouterr().out
    assert f"{path}:1:* {rule} - " in out and words in out


def test_a_dictionary_of_another_source_and_its_unknown_pieces_are_named(
    vocabulary, tmp_path, capsys
):
    broken = shutil.copytree(vocabulary, tmp_path / "v")
    lines = (broken / "dict.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    # the bytes and few others
    (broken / "dict.txt").write_text("".join(lines[:280]), encoding="utf-8")
    path = tmp_path / "text.tsv"
    path.write_text("1\tthere is a red cube\n", encoding="utf-8")
    assert main(["doctor", str(path), "--bpe-dir", str(broken)]) == 1
    out = capsys.readouterr().out
    assert f"{broken}:1:* vocabulary-pieces - " in out and "text.tsv:1:1 unknown-pieces - " in out
