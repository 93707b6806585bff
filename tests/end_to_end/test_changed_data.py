"""Training data that changed between a kill and the same command again: the run says what
changed, and continues only when told to."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from caption_files import caption, write_tsv
from training_runs import curve, flags, make_files, train

from ofa.io.safe_load import load_checkpoint

RECIPE = (
    "--max-epoch=2",
    "--save-interval-updates=4",
    "--keep-interval-updates=1",
    "--disable-validation",
)
ROWS = 21


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Files, and the folder of a run that was killed in update 5 of the 6 of its first epoch."""
    files = make_files(tmp_path_factory.mktemp("data"), rows=ROWS)
    files.run = files.folder / "run"
    assert train(flags(files, files.run, *RECIPE), 5).code == -signal.SIGKILL
    return files


@pytest.fixture
def resumed(killed, tmp_path):
    """Function (training rows, further options) -> how a copy of the killed run ends when it
    resumes with them."""

    def resume(rows: list | Path, *more: str):
        if not (tmp_path / "run").exists():
            shutil.copytree(killed.run, tmp_path / "run")
        path = rows if isinstance(rows, Path) else write_tsv(tmp_path / "train.tsv", rows)
        resume.record = tmp_path / "record.txt"
        command = flags(killed, tmp_path / "run", *RECIPE, *more)
        return train([f"{path},{killed.valid}", *command[1:]], record=resume.record)

    return resume


def rows(count: int, first: int = 0) -> list:
    return [caption(number) for number in range(first, first + count)]


CHANGES = {
    "appended": (lambda: rows(ROWS + 4), "found more of them at its end: 25 rows"),
    "shorter": (lambda: rows(ROWS - 6), "found a shorter file: 15 rows"),
    "another": (lambda: rows(ROWS + 4, first=100), "found other content: 25 rows"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_ends_the_run_before_it_trains(resumed, change):
    make, found = CHANGES[change]
    done = resumed(make())
    errors = [line for line in done.log.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1 and "Traceback" not in done.log, done.log[-3000:]
    assert (
        f"train.tsv: expected the {ROWS} rows (" in errors[0]
        and found in errors[0]
        and "--allow-changed-data" in errors[0]
    )
    assert not resumed.record.exists()


@pytest.mark.parametrize("change, updates", [("appended", range(5, 15)), ("shorter", range(5, 10))])
def test_a_run_resumes_with_changed_data_when_told_to(resumed, change, updates):
    """Four updates are done: of 7 in an epoch of 25 rows; of 4 in an epoch of 15, the last of
    which is made again."""
    make, found = CHANGES[change]
    done = resumed(make(), "--allow-changed-data")
    assert (
        done.code == 0 and found in done.log and "resuming as --allow-changed-data says" in done.log
    ), done.log[-3000:]
    assert list(curve(resumed.record)) == list(updates)
    assert resumed(resumed.record.parent / "train.tsv").code == 0  # the run knows the new data now


def test_the_same_size_with_other_content_is_noticed(resumed, killed, tmp_path):
    content = bytearray(Path(killed.train).read_bytes())
    content[content.index(b" ") - 1] ^= 1  # a letter of the first caption
    (tmp_path / "same_size.tsv").write_bytes(content)
    done = resumed(tmp_path / "same_size.tsv")
    assert done.code == 2 and "found other content of the same size" in done.log, done.log[-3000:]


def test_a_copy_under_another_name_is_the_same_data(resumed, killed, tmp_path):
    shutil.copy(killed.train, tmp_path / "moved.tsv")
    assert resumed(tmp_path / "moved.tsv").code == 0


def test_one_more_file_is_noticed(resumed, killed, tmp_path):
    more = write_tsv(tmp_path / "more.tsv", rows(8))
    done = resumed(Path(f"{killed.train},{more}"))
    assert (
        done.code == 2
        and "expected 1 file for train as before, found 2 files for train" in done.log
    ), done.log[-3000:]


def test_a_checkpoint_that_does_not_know_its_data_resumes(killed, tmp_path):
    shutil.copytree(killed.run, tmp_path / "run")
    for path in (tmp_path / "run").glob("*.pt"):
        content = load_checkpoint(path)
        del content["extra_state"]["training_data"]
        torch.save(content, path)
    command = flags(killed, tmp_path / "run", *RECIPE)
    longer = write_tsv(tmp_path / "longer.tsv", rows(ROWS + 4))
    assert train([f"{longer},{killed.valid}", *command[1:]]).code == 0
