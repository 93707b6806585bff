"""``--compile``: a training and an evaluation by what torch.compile writes are those without."""

import json
import signal
from functools import partial

import pytest
import torch
from light_compiler import compile_lightly, compiled_lightly
from training_runs import curve, flags, make_files, train

from ofa.inference.options import EvaluationOptions

# torch.compile draws other random numbers
WITHOUT_CHANCE = "--dropout=0 --encoder-drop-path-rate=0 --decoder-drop-path-rate=0".split()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"), rows=12)


def losses(record) -> list[float]:
    return [float.fromhex(loss) for batches in curve(record).values() for *_, loss in batches]


@pytest.fixture(scope="module")
def runs(files, tmp_path_factory):
    """Losses and last checkpoint of four updates; compiled from the second on, by a resumed run
    that is stopped and resumed in its turn."""
    folder = tmp_path_factory.mktemp("runs")
    more = [*WITHOUT_CHANCE, "--max-update=4", "--disable-validation"]
    found = train(flags(files, folder / "plain", *more), record=folder / "plain.jsonl")
    assert found.code == 0, found.log
    run = partial(train, record=folder / "compiled.jsonl")
    compiled = flags(files, folder / "compiled", *more)
    assert run(compiled, stop_in=1, number=signal.SIGTERM).code == 143
    compiled, prepare = [*compiled, "--compile"], partial(compile_lightly, str(folder / "cache"))
    assert run(compiled, stop_in=2, number=signal.SIGTERM, prepare=prepare).code == 143
    found = run(compiled, prepare=prepare)
    assert found.code == 0, found.log
    assert any((folder / "cache").rglob("*.cpp"))
    return {
        name: (losses(folder / f"{name}.jsonl"), folder / name / "checkpoint_last.pt")
        for name in ("plain", "compiled")
    }


def test_losses_are_those_without_also_after_a_resume(runs):
    (expected, _), (found, _) = runs.values()
    assert len(expected) == 4
    assert found == pytest.approx(expected, rel=1e-5)


def test_checkpoints_have_the_same_names(runs):
    plain, compiled = (torch.load(path, weights_only=False)["model"] for _, path in runs.values())
    assert list(plain) == list(compiled)


def test_an_evaluation_predicts_the_same_texts(runs, files, tmp_path):
    from ofa.inference.evaluate import evaluate

    found = []
    with compiled_lightly(str(tmp_path / "cache")):
        for compiles in (False, True):
            out = tmp_path / str(compiles)
            paths = {"checkpoint": str(runs["plain"][1]), "data": str(files.valid)}
            evaluate(EvaluationOptions(**paths, out=str(out), device="cpu", compile=compiles))
            found.append(json.loads((out / "valid_predict.json").read_text()))
    assert any((tmp_path / "cache").rglob("*.cpp"))
    assert found[0] == found[1] and len(found[0]) == 7
