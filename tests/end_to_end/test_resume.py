"""A run that is killed, interrupted or out of disk space continues as if nothing had happened."""

import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faults import NOISE
from training_runs import curve, flags, log_lines, make_files, train

from ofa.cli.main import main
from ofa.io.safe_load import load_checkpoint

RECIPE = (
    "--max-epoch=3",
    "--save-interval-updates=4",
    "--keep-interval-updates=1",
    "--store-ema",
    "--ema-fp32",
    "--ema-decay=0.9",
    "--ema-update-freq=2",
)
UPDATES = {1: 18, 2: 9}  # of three epochs of 21 rows in batches of 4, by --update-freq


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def undisturbed(files):
    """Function: --update-freq -> a run that nothing happened to."""
    runs: dict[int, SimpleNamespace] = {}

    def of(update_freq: int) -> SimpleNamespace:
        if update_freq not in runs:
            folder, record = (
                files.folder / f"undisturbed{update_freq}",
                files.folder / f"undisturbed{update_freq}.txt",
            )
            done = train(
                flags(files, folder, *RECIPE, f"--update-freq={update_freq}"), record=record
            )
            assert done.code == 0, done.log[-3000:]
            runs[update_freq] = SimpleNamespace(folder=folder, curve=curve(record), log=done.log)
            assert len(runs[update_freq].curve) == UPDATES[update_freq]
        return runs[update_freq]

    return of


def tensors(value, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint by the place where it is stored; averages of the log are left
    out."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, (list, tuple))
        else ()
    )
    return {
        k: v
        for key, part in parts
        if key != "metrics"
        for k, v in tensors(part, f"{name}.{key}").items()
    }


def assert_same_end(one: Path, other: Path, name: str = "checkpoint_last.pt") -> None:
    """Weights, moving averages and optimizer of two checkpoints are equal, bit for bit."""
    first, second = (tensors(load_checkpoint(folder / name)) for folder in (one, other))
    assert first.keys() == second.keys() and any(".ema." in key for key in first)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.parametrize("workers, update_freq", [(0, 1), (2, 1), (0, 2), (2, 2)])
def test_a_killed_run_goes_on_bit_for_bit(files, undisturbed, workers, update_freq):
    expected = undisturbed(update_freq)
    folder, record = (
        files.folder / f"killed{workers}{update_freq}",
        files.folder / f"killed{workers}{update_freq}.txt",
    )
    command = flags(
        files, folder, *RECIPE, f"--update-freq={update_freq}", f"--num-workers={workers}"
    )
    runs = [
        train(command, kill_in, record=record)
        for kill_in in (UPDATES[update_freq] // 3 + 1, UPDATES[update_freq] - 1, None)
    ]
    assert [run.code for run in runs] == [-signal.SIGKILL, -signal.SIGKILL, 0], runs[-1].log[-3000:]
    assert curve(record) == expected.curve
    assert_same_end(folder, expected.folder)
    assert_same_end(folder, expected.folder, "checkpoint_best.pt")
    for tag in ("train_inner", "train", "valid"):
        assert (
            {line for run in runs for line in log_lines(run.log, tag)}
            == set(log_lines(expected.log, tag))
            != set()
        )


@pytest.mark.parametrize(
    "number, workers, stop_in", [(signal.SIGINT, 0, 7), (signal.SIGTERM, 2, 12)]
)
def test_a_signal_saves_after_the_update_and_ends_cleanly(
    files, undisturbed, number, workers, stop_in
):
    folder, record = files.folder / f"signal{number}", files.folder / f"signal{number}.txt"
    command = flags(files, folder, *RECIPE, f"--num-workers={workers}")
    stopped = train(command, stop_in, number, record)
    assert stopped.code == 128 + number and "Traceback" not in stopped.log, stopped.log[-3000:]
    assert f"{number.name}: saving after this update" in stopped.log
    assert (
        load_checkpoint(folder / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"]
        == stop_in
    )
    assert (folder / "interrupted").is_file()
    assert train(command, record=record).code == 0
    assert curve(record) == undisturbed(1).curve and not (folder / "interrupted").exists()
    assert_same_end(folder, undisturbed(1).folder)


def test_a_finished_run_is_left_as_it_is(files, undisturbed):
    run = undisturbed(1)
    stamps = {path: path.stat().st_mtime_ns for path in run.folder.glob("*.pt")}
    again = train(flags(files, run.folder, *RECIPE))
    assert again.code == 0 and "nothing left to do" in again.log
    assert stamps == {path: path.stat().st_mtime_ns for path in run.folder.glob("*.pt")}


def test_the_last_epoch_is_saved_and_scored_whatever_the_intervals_say(files, tmp_path):
    folder = tmp_path / "run"
    intervals = ("--save-interval=2", "--validate-interval=5", "--max-epoch=3")
    done = train(
        [*(word for word in flags(files, folder) if word != "--no-epoch-checkpoints"), *intervals]
    )
    assert done.code == 0, done.log[-3000:]
    assert (
        load_checkpoint(folder / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"]
        == UPDATES[1]
    )
    assert {path.name for path in folder.glob("*.pt")} == {
        "checkpoint_last.pt",
        "checkpoint_best.pt",
        "checkpoint2.pt",
    }
    assert len(log_lines(done.log, "valid")) == 1


@pytest.mark.parametrize("damage", ["truncated", "empty", "overwritten"])
def test_a_damaged_last_checkpoint_falls_back_to_the_newest_readable_one(
    files, undisturbed, tmp_path, damage
):
    folder, record = tmp_path / "run", tmp_path / "run.txt"
    command = flags(files, folder, *RECIPE)
    assert train(command, 18).code == -signal.SIGKILL
    last = folder / "checkpoint_last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2 : len(content) // 2 + len(NOISE)] = NOISE
    last.write_bytes(
        {"truncated": content[: len(content) // 3], "empty": b"", "overwritten": bytes(content)}[
            damage
        ]
    )
    done = train(command, record=record)
    assert done.code == 0, done.log[-3000:]
    assert re.search(r"skipping a damaged checkpoint: .*checkpoint_last\.pt", done.log)
    assert re.search(r"falling back to .*checkpoint_(3_16|best)\.pt.*update 16", done.log)
    assert curve(record) == {update: undisturbed(1).curve[update] for update in (17, 18)}
    assert_same_end(folder, undisturbed(1).folder)


def test_when_no_checkpoint_can_be_read_the_run_does_not_silently_start_over(files, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("checkpoint_last.pt", "checkpoint_1_5.pt"):
        (folder / name).write_bytes(b"PK torn")
    done = train(flags(files, folder, *RECIPE))
    errors = [line for line in done.log.splitlines() if line.startswith("error: ")]
    assert (
        done.code == 2
        and len(errors) == 1
        and "only damaged ones" in errors[0]
        and "FRESH=1" in errors[0]
    )
    assert "Traceback" not in done.log


def test_a_full_disk_stops_with_a_message_and_keeps_the_previous_checkpoint(
    files, undisturbed, tmp_path
):
    folder, record = tmp_path / "run", tmp_path / "run.txt"
    command = flags(files, folder, *RECIPE)
    assert train(command, 6, record=record).code == -signal.SIGKILL
    before = (folder / "checkpoint_last.pt").read_bytes()
    full = train(command, record=record, largest_file=len(before) // 2)
    assert full.code == 2 and "Traceback" not in full.log
    assert re.search(
        r"^error: .*checkpoint.*\.pt: expected to write a checkpoint, found .*run the same command",
        full.log,
        re.M,
    )
    assert (folder / "checkpoint_last.pt").read_bytes() == before and not list(folder.glob(".*"))
    assert train(command, record=record).code == 0
    assert curve(record) == undisturbed(1).curve
    assert_same_end(folder, undisturbed(1).folder)


def test_the_upstream_reset_flags_apply_to_the_first_start_only(files, undisturbed, tmp_path):
    start = tmp_path / "start.pt"
    shutil.copy(undisturbed(1).folder / "checkpoint_last.pt", start)
    command = flags(
        files,
        tmp_path / "run",
        *RECIPE,
        f"--restore-file={start}",
        "--reset-optimizer",
        "--reset-dataloader",
        "--reset-meters",
        "--reset-lr-scheduler",
    )
    first, again = tmp_path / "first.txt", tmp_path / "again.txt"
    assert train(command, 6, record=first).code == -signal.SIGKILL
    assert curve(first).keys() == set(range(1, 7))
    done = train(command, 8, record=again)
    assert done.code == -signal.SIGKILL and curve(again).keys() == {5, 6, 7, 8}, done.log[-3000:]
    assert curve(again)[6] == curve(first)[6]
    other = train(
        [word for word in command if not word.startswith("--reset")],
        3,
        record=tmp_path / "other.txt",
    )
    assert "holds another run" in other.log


def test_a_run_starts_from_a_safetensors_file_as_from_the_checkpoint_it_was_made_of(
    files, undisturbed, tmp_path
):
    start = undisturbed(1).folder / "checkpoint_last.pt"
    assert (
        main(["convert", str(start), "--to", "ofa", "--out", str(tmp_path / "start.safetensors")])
        == 0
    )
    resets = ("--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler")
    curves = []
    for path in (start, tmp_path / "start.safetensors"):
        name = f"from{path.suffix}"
        train(
            flags(files, tmp_path / name, *RECIPE, f"--restore-file={path}", *resets),
            3,
            record=tmp_path / f"{name}.txt",
        )
        curves.append(curve(tmp_path / f"{name}.txt"))
    assert curves[0] == curves[1] and curves[0].keys() == {1, 2, 3}


@pytest.mark.parametrize("precision", ["--fp16", "--bf16", "--memory-efficient-fp16"])
def test_master_weights_and_loss_scale_survive_a_kill(files, tmp_path, precision):
    recipe = (
        "--max-update=8",
        "--save-interval-updates=4",
        "--disable-validation",
        precision,
        "--fp16-scale-window=3",
        "--store-ema",
        "--ema-fp32",
    )
    for name, kills in (("whole", [None]), ("killed", [7, None])):
        for kill in kills:
            done = train(
                flags(files, tmp_path / name, *recipe), kill, record=tmp_path / f"{name}.txt"
            )
            assert done.code == (0 if kill is None else -signal.SIGKILL), done.log[-3000:]
    assert curve(tmp_path / "whole.txt") == curve(tmp_path / "killed.txt")
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
