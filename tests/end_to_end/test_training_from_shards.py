"""Training from shards: as from the TSV, and a killed run continues in the middle of an epoch as
if nothing had happened."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from pretraining_files import make_files as make_pretraining_files
from pretraining_files import pretraining_flags
from training_runs import ROOT, SMALL, curve, flags, make_files, train

from ofa.data.shard_writer import pack

RECIPE = (
    "--max-epoch=2",
    "--save-interval-updates=4",
    "--keep-interval-updates=1",
    "--disable-validation",
)
UPDATES = {"caption": 12, "unify_task": 12}  # of two epochs of 21 and 24 rows in batches of 4


def as_shards(path: Path) -> str:
    """Four rows to a shard. Returns: a pattern."""
    pack(str(path), str(path.parent / "shards"), path.stem, most_rows=4)
    return str(path.parent / "shards" / f"{path.stem}-*.tar")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Task -> function: options -> command of a training from shards."""
    captions, pretraining = (
        make_files(tmp_path_factory.mktemp("caption")),
        make_pretraining_files(tmp_path_factory.mktemp("unify")),
    )
    captions.tsv = captions.train
    captions.train = as_shards(captions.train)
    for name in ("pairs", "texts", "images", "objects"):
        setattr(pretraining, name, as_shards(Path(getattr(pretraining, name).split(",")[0])))

    def unify(save_dir: Path, *more: str) -> list[str]:
        return [
            *pretraining_flags(
                pretraining,
                f"--user-dir={ROOT / 'ofa'}",
                f"--save-dir={save_dir}",
                "--cpu",
                "--no-epoch-checkpoints",
                "--max-source-positions=128",
                "--max-target-positions=128",
                *SMALL[:-2],
            ),
            *more,
        ]

    return {
        "caption": SimpleNamespace(
            files=captions, command=lambda save_dir, *more: flags(captions, save_dir, *more)
        ),
        "unify_task": SimpleNamespace(files=pretraining, command=unify),
    }


@pytest.mark.parametrize("task", UPDATES)
def test_a_run_from_shards_that_is_killed_in_mid_epoch_goes_on_bit_for_bit(runs, tmp_path, task):
    made = runs[task].command
    whole = train(
        made(tmp_path / "whole", *RECIPE, "--shuffle-buffer=6"), record=tmp_path / "whole.txt"
    )
    assert whole.code == 0, whole.log[-3000:]
    expected = curve(tmp_path / "whole.txt")
    assert len(expected) == UPDATES[task]
    command = made(tmp_path / "killed", *RECIPE, "--shuffle-buffer=6", "--num-workers=2")
    stopped = [train(command, kill_in, record=tmp_path / "killed.txt") for kill_in in (6, 9, None)]
    assert [run.code for run in stopped] == [-signal.SIGKILL, -signal.SIGKILL, 0], stopped[-1].log[
        -3000:
    ]
    assert curve(tmp_path / "killed.txt") == expected


def test_with_the_same_order_a_run_from_shards_is_that_from_the_tsv(runs, tmp_path):
    files = runs["caption"].files
    from_tsv = SimpleNamespace(**{**vars(files), "train": files.tsv})
    curves = []
    for name, source in (("tsv", from_tsv), ("shards", files)):
        done = train(
            flags(
                source,
                tmp_path / name,
                "--max-epoch=1",
                "--disable-validation",
                "--shuffle-buffer=0",
            ),
            record=tmp_path / f"{name}.txt",
        )
        assert done.code == 0, done.log[-3000:]
        curves.append(curve(tmp_path / f"{name}.txt"))
    assert curves[0] == curves[1] and len(curves[0]) == 6


def test_shards_serve_validation_and_what_is_broken_is_one_message(runs, tmp_path):
    folder = Path(runs["caption"].files.train).parent
    both = SimpleNamespace(**{**vars(runs["caption"].files), "valid": folder})
    done = train(flags(both, tmp_path / "both", "--max-epoch=1"))
    assert done.code == 0 and "| valid |" in done.log, done.log[-3000:]
    shard = next(folder.glob("*-000002.tar"))
    data = shard.read_bytes()
    try:
        shard.write_bytes(data[: len(data) // 2])
        broken = train(flags(both, tmp_path / "broken", "--max-epoch=1"))
    finally:
        shard.write_bytes(data)
    errors = [line for line in broken.log.splitlines() if line.startswith("error: ")]
    assert (
        broken.code == 2
        and len(errors) == 1
        and f"{shard}: expected {len(data)} bytes" in errors[0]
        and "Traceback" not in broken.log
    )
