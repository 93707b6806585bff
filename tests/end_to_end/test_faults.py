"""Kills, full disks, truncated and corrupted checkpoints, at thirty points: nothing is lost at any.

The same command after the fault ends with the weights, the samples and the losses of a run to which
nothing happened, bit for bit. What a fault may cost is the updates since the last save, which are
made again.
"""

import json
import math
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faults import FULL, KILL, NOISE, WriteFault, become, cut, flip_a_bit, overwrite
from training_runs import curve, flags, make_files, train

from ofa.errors import UserError
from ofa.io.safe_load import load_checkpoint

RECIPE = ("--max-epoch=1", "--save-interval-updates=2", "--keep-interval-updates=2")
UPDATES = 6  # 21 rows in batches of 4
# Files that a run writes: 1 to 3 after update 2 (checkpoint_1_2.pt, its copies best and last), 4 to
# 6 after update 4, 7 and 8 after update 6 (best and last).
SAVED_BY_FILE = {0: 0, 1: 2, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 6, 8: 6}
MB = 1_000_000

KILLS_BETWEEN_SAVES = (1, 3, 4, 6)  # in the middle of these updates
WRITE_FAULTS = [
    (KILL, 1, "open"),
    (KILL, 1, "write", 4 * MB),
    (KILL, 1, "renamed"),
    (KILL, 3, "write", 4 * MB),
    (KILL, 4, "write", 6 * MB),
    (KILL, 4, "sync"),
    (KILL, 4, "rename"),
    (KILL, 5, "rename"),
    (KILL, 8, "write", 1 * MB),
    (FULL, 1, "open"),
    (FULL, 1, "write", 4 * MB),
    (FULL, 3, "write", 4 * MB),
    (FULL, 4, "write", 0),
    (FULL, 4, "sync"),
    (FULL, 5, "rename"),
    (FULL, 8, "write", 5 * MB),
]
DAMAGES = {
    "cut to nothing": cut(0),
    "cut to one byte": cut(0, 1),
    "cut to 300 bytes": cut(0, 300),
    "cut in half": cut(0.5),
    "without its last byte": cut(1, -1),
    "another beginning": overwrite(0, NOISE),
    "noise in the middle": overwrite(0.5, NOISE),
    "one bit flipped": flip_a_bit,
    "another end": overwrite(1, NOISE),
    "a page of a web server": become(b"<!DOCTYPE html><title>404 Not Found</title>"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def undisturbed(files):
    """The end of a run to which nothing happened."""
    folder, record = files.folder / "undisturbed", files.folder / "undisturbed.txt"
    done = train(flags(files, folder, *RECIPE), record=record)
    assert done.code == 0, done.log[-3000:]
    assert updates_of(folder / "checkpoint_last.pt") == UPDATES == len(curve(record))
    return SimpleNamespace(
        curve=curve(record), weights=load_checkpoint(folder / "checkpoint_last.pt")["model"]
    )


@pytest.fixture(scope="module")
def killed_in_update_5(files):
    """A run with checkpoints of updates 2 and 4."""
    folder = files.folder / "killed"
    assert train(flags(files, folder, *RECIPE), stop_in=5).code == -signal.SIGKILL
    return folder


@pytest.fixture(scope="module")
def table():
    """One line per fault, printed at the end (``pytest -s``)."""
    lines: list[str] = []
    yield lines
    print(
        f"\n{'fault':<44}{'newest whole checkpoint':<25}after the same command\n" + "\n".join(lines)
    )
    print(f"{len(lines)} faults")


@pytest.fixture
def run(files, tmp_path):
    """Folder, record and command of a run of its own; the checkpoints are deleted after the
    test."""
    folder = tmp_path / "run"
    yield SimpleNamespace(
        folder=folder, record=tmp_path / "run.txt", command=flags(files, folder, *RECIPE)
    )
    shutil.rmtree(folder, ignore_errors=True)


def updates_of(path: Path) -> int:
    return load_checkpoint(path)["optimizer_history"][-1]["num_updates"]


def newest_whole(folder: Path) -> int:
    """Updates of the newest checkpoint that can be read; 0 if there is none."""
    found = [0]
    for path in folder.glob("checkpoint*.pt"):
        try:
            found.append(updates_of(path))
        except UserError:
            pass
    return max(found)


def assert_nothing_is_lost(run, undisturbed, table, fault: str) -> str:
    """The same command again reaches the end of the undisturbed run. Returns: what it printed."""
    saved = newest_whole(run.folder)
    again = train(run.command, record=run.record)
    assert again.code == 0, again.log[-3000:]
    expected = {
        update: batches
        for update, batches in undisturbed.curve.items()
        if update in curve(run.record)
    }
    assert curve(run.record) == expected and set(range(saved + 1, UPDATES + 1)) <= expected.keys()
    weights = load_checkpoint(run.folder / "checkpoint_last.pt")["model"]
    assert [
        name
        for name in undisturbed.weights
        if not torch.equal(undisturbed.weights[name], weights[name])
    ] == []
    assert not list(run.folder.glob(".*")), "what was half written is gone"
    table.append(f"{fault:<44}{f'update {saved}':<25}equal, bit for bit")
    return again.log


@pytest.mark.parametrize("update", KILLS_BETWEEN_SAVES)
def test_a_kill_between_saves_costs_the_updates_since_the_last(run, undisturbed, table, update):
    assert train(run.command, stop_in=update, record=run.record).code == -signal.SIGKILL
    assert newest_whole(run.folder) == (update - 1) // 2 * 2
    assert_nothing_is_lost(run, undisturbed, table, f"killed in update {update}")
    assert curve(run.record) == undisturbed.curve


@pytest.mark.parametrize("fault", WRITE_FAULTS, ids=lambda fault: " ".join(map(str, fault)))
def test_a_fault_while_a_checkpoint_is_written_leaves_those_before_it(
    run, undisturbed, table, fault
):
    what, file, moment, *_ = fault
    failed = train(run.command, record=run.record, prepare=WriteFault(*fault))
    if what == KILL:
        assert failed.code == -signal.SIGKILL
    else:
        assert (
            failed.code == 2
            and "Traceback" not in failed.log
            and "No space left on device" in failed.log
        )
        assert not list(run.folder.glob(".*")), "a process that lives cleans up itself"
    # all of them can be read
    whole = [updates_of(path) for path in run.folder.glob("checkpoint*.pt")]
    assert max(whole, default=0) == SAVED_BY_FILE[file if moment == "renamed" else file - 1]
    assert_nothing_is_lost(
        run, undisturbed, table, f"{what}, file {file}: {moment} {' '.join(map(str, fault[3:]))}"
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_newest_whole_one(
    run, undisturbed, table, killed_in_update_5, damage
):
    shutil.copytree(killed_in_update_5, run.folder, copy_function=os.link)
    DAMAGES[damage](run.folder / "checkpoint_last.pt")
    with pytest.raises(UserError, match="checkpoint_last.pt: expected a checkpoint"):
        load_checkpoint(run.folder / "checkpoint_last.pt")
    log = assert_nothing_is_lost(run, undisturbed, table, f"checkpoint_last.pt: {damage}")
    assert (
        "skipping a damaged checkpoint: " in log
        and "the newest readable checkpoint (update 4)" in log
    )


def test_a_loss_that_is_not_finite_ends_the_run_with_the_samples_it_came_from(run, undisturbed):
    failed = train([*run.command, "--lr=1e30"], record=run.record)
    errors = [line for line in failed.log.splitlines() if line.startswith("error: ")]
    assert failed.code == 2 and len(errors) == 1 and "Traceback" not in failed.log, failed.log[
        -3000:
    ]
    losses = {n: float.fromhex(batches[0][2]) for n, batches in curve(run.record).items()}
    update = max(losses)  # the only one with such a loss: the weights did not follow it
    assert [n for n, loss in losses.items() if not math.isfinite(loss)] == [update]
    ids = undisturbed.curve[update][0][0]
    found = (
        f"update {update}, rank 0: expected finite numbers, found the loss nan, in samples"
        f" {', '.join(ids)} ("
    )
    assert found in errors[0]
    written = json.loads((run.folder / f"nonfinite_update{update}_rank0.json").read_text())
    assert (written["update"], written["rank"], written["samples"]) == (update, 0, ids)


def test_the_points_are_thirty():
    assert len(KILLS_BETWEEN_SAVES) + len(WRITE_FAULTS) + len(DAMAGES) == 30
