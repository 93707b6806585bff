"""Trainings of three updates on a real GPU."""

import pytest
import torch
from training_runs import curve, flags, make_files, train

from ofa.devices import has_bf16

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("gpu"))


def losses(files, name: str, *more: str) -> list:
    """What the updates of a training record."""
    folder, record = files.folder / name, files.folder / f"{name}.txt"
    given = [flag for flag in flags(files, folder, *more) if flag != "--cpu"]
    done = train([*given, "--max-update=3"], record=record)
    assert done.code == 0, done.log[-3000:]
    return curve(record)


@pytest.mark.parametrize("precision", ["--bf16", "--fp16"])
def test_three_updates_in_16_bits(files, precision):
    if precision == "--bf16" and not has_bf16("cuda"):
        pytest.skip("no bfloat16 here")
    assert len(losses(files, precision.strip("-"), precision)) == 3
    assert (files.folder / precision.strip("-") / "checkpoint_last.pt").exists()


def test_a_training_that_is_killed_and_resumed_is_the_undisturbed_one(files):
    expected = losses(files, "whole", "--save-interval-updates=2")
    folder, record = files.folder / "parts", files.folder / "parts.txt"
    given = [flag for flag in flags(files, folder) if flag != "--cpu"]
    given += ["--max-update=3", "--save-interval-updates=2"]
    assert train(given, stop_in=3, record=record).code != 0
    assert train(given, record=record).code == 0
    found = curve(record)
    assert found.keys() == expected.keys() == {1, 2, 3}
    for number, batches in found.items():
        for (rows, pixels, loss), (*same, right) in zip(batches, expected[number], strict=True):
            assert [rows, pixels] == same
            # sums on a GPU have no fixed order
            assert float.fromhex(loss) == pytest.approx(float.fromhex(right), rel=1e-3)
