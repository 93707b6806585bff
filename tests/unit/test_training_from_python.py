"""``ofa.train`` and ``OFA.finetune``: options become flags, and a run comes back."""

import io
import json
import signal
from types import SimpleNamespace

import pytest
import yaml

from ofa.checkpoints.header import Header
from ofa.errors import UserError
from ofa.inference import training
from ofa.inference.api import OFA
from ofa.inference.training import flags_of_options, train
from ofa.io.atomic import replacing


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The commands that are run; in place of running they leave their files in ``tmp_path/run``."""
    ran = []

    def run(words, stderr):
        ran.append(words[3:])
        folder = tmp_path / "run"
        (folder / "results").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoint_best.pt").touch()
        if run.writes_scores and words[3] == "evaluate":
            with replacing(folder / "results/val_scores.json") as file:
                json.dump({"scores": {"CIDEr": 2.5}}, file)
        config = {"data": run.data, "disable_validation": run.disable_validation}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return SimpleNamespace(wait=wait, stderr=io.BytesIO(run.printed))

    def wait():
        if run.interrupts:
            run.interrupts -= 1
            raise KeyboardInterrupt
        return run.status

    run.status, run.options, run.interrupts, run.writes_scores = 0, {}, 0, True
    run.printed = b""
    run.data, run.disable_validation = f"{tmp_path}/data/train.tsv,{tmp_path}/data/val.tsv", False
    monkeypatch.setattr(training, "read_header", lambda path: Header(run.options))
    monkeypatch.setattr(training.subprocess, "Popen", run)
    return SimpleNamespace(ran=ran, run=run)


def test_a_run_has_its_best_checkpoint_scores_and_page(tmp_path, commands):
    run = train("caption", tmp_path / "data", tmp_path / "run", size="nano", max_epoch=3)
    first, second = commands.ran
    assert first[:2] == ["train", "caption"] and first[-2:] == ["--size=nano", "--max-epoch=3"]
    assert second[1:3] == [str(run.checkpoint), str(tmp_path / "data/val.tsv")]
    assert run.checkpoint == tmp_path / "run/checkpoint_best.pt"
    assert run.scores == {"CIDEr": 2.5} and run.page == tmp_path / "run/report.html"


@pytest.mark.parametrize("uses_ema", [True, False])
def test_the_weights_that_chose_the_best_checkpoint_are_scored(tmp_path, commands, uses_ema):
    commands.run.options = {"uses_ema": uses_ema}
    train("caption", tmp_path / "data", tmp_path / "run")
    assert ("--ema" in commands.ran[1]) == uses_ema


@pytest.mark.parametrize("data, disabled", [("train.tsv", False), ("train.tsv,val.tsv", True)])
def test_a_training_without_validation_rows_has_no_scores(tmp_path, commands, data, disabled):
    commands.run.data, commands.run.disable_validation = data, disabled
    run = train("caption", tmp_path / "data", tmp_path / "run")
    assert run.scores == {} and run.page is None and len(commands.ran) == 1


def test_options_have_pythons_spelling():
    given = {"start": "a.pt", "auto": False, "lr": [1e-3, 1e-4], "bf16": True, "cpu": False}
    expected = ["--from=a.pt", "--no-auto", "--lr=0.001,0.0001", "--bf16"]
    assert flags_of_options(given, "caption") == expected


def test_an_option_of_several_values_by_name_is_json():
    given = {"eval_args": {"beam": 5, "no_repeat_ngram_size": None}}
    expected = ['--eval-args={"beam": 5, "no_repeat_ngram_size": null}']
    assert flags_of_options(given, "caption") == expected


@pytest.mark.parametrize("name", ["save_dir", "out", "data"])
def test_an_option_that_an_argument_decides_is_refused(tmp_path, commands, name):
    with pytest.raises(UserError, match=f"found '{name}'"):
        flags_of_options({name: "elsewhere"}, "caption")


def test_a_training_on_the_cpu_is_evaluated_there(tmp_path, commands):
    train("caption", tmp_path / "data", tmp_path / "run", cpu=True)
    assert commands.ran[1][-2:] == ["--device", "cpu"]


def test_scores_of_an_earlier_evaluation_are_not_taken(tmp_path, commands):
    train("caption", tmp_path / "data", tmp_path / "run")
    commands.run.writes_scores = False
    assert train("caption", tmp_path / "data", tmp_path / "run").scores == {}


@pytest.mark.parametrize(
    "name, meant",
    [
        ("max_epcoh", "max_epoch"),
        ("siez", "size"),
        ("learning_rate", "lr"),
        ("epochs", "max_epoch"),
        ("from_", "start"),
    ],
)
def test_an_unknown_option_is_an_error_before_anything_runs(tmp_path, commands, name, meant):
    with pytest.raises(UserError, match=f"found '{name}'; did you mean {meant}[?]"):
        train("caption", tmp_path / "data", tmp_path / "run", **{name: 3})
    assert commands.ran == []


@pytest.mark.parametrize(
    "printed, message",
    [
        ("", "^ofa train: ended with status 2; what it printed is above$"),
        ("warning: slow\nerror: data: expected a folder\n", "^ofa train: data: expected a folder$"),
        ("ofa train: error: argument --size: no\n", "^ofa train: argument --size: no$"),
    ],
)
def test_a_training_that_fails_says_why(tmp_path, commands, capsys, printed, message):
    commands.run.status, commands.run.printed = 2, printed.encode()
    with pytest.raises(UserError, match=message):
        train("caption", tmp_path / "data", tmp_path / "run")
    assert capsys.readouterr().err == printed


def test_a_training_that_fails_names_its_log_if_there_is_one(tmp_path, commands):
    commands.run.status = 2
    (tmp_path / "run").mkdir()
    (tmp_path / "run/train.log").touch()
    with pytest.raises(UserError, match="above; its log is .*run/train.log$"):
        train("caption", tmp_path / "data", tmp_path / "run")


def test_several_tasks_are_trained_by_their_file(tmp_path, commands):
    commands.run.data = f"{tmp_path}/joint.json"
    assert train("joint", tmp_path / "joint.json", tmp_path / "run").page is None
    assert commands.ran[0][1:4] == ["joint", "--data", f"{tmp_path}/joint.json"]


@pytest.mark.parametrize("status", [130, -signal.SIGINT, 0])
def test_an_interrupt_lets_the_training_save_before_it_is_raised(tmp_path, commands, status):
    commands.run.status, commands.run.interrupts = status, 2
    with pytest.raises(KeyboardInterrupt):
        train("caption", tmp_path / "data", tmp_path / "run")
    assert commands.run.interrupts == 0 and len(commands.ran) == 1  # waited for its end


def test_a_model_is_finetuned_from_its_checkpoint_and_vocabulary(tmp_path, commands):
    model = SimpleNamespace(
        checkpoint=SimpleNamespace(path="a.pt", bpe=SimpleNamespace(folder=tmp_path / "bpe"))
    )
    OFA.finetune(model, tmp_path / "data", "caption", tmp_path / "run", max_epoch=2)  # type: ignore[arg-type]
    words = commands.ran[0][-3:]
    assert words == ["--from=a.pt", f"--bpe-dir={tmp_path}/bpe", "--max-epoch=2"]
