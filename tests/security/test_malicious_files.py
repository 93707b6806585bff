"""Thousands of malicious files, every reader: nothing runs or is written, within small bounds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import malicious_files
import pytest
import torch

from ofa.errors import UserError
from ofa.io.safe_load import load_checkpoint

HERE = Path(__file__).resolve().parent
READERS = {
    "checkpoint",
    "mapped",
    "clip",
    "vqgan",
    "vq_vae",
    "source",
    "folder",
    "complete",
    "label",
    "frequencies",
    "index",
    "plain",
    "yaml",
    "label_json",
    "mixture",
    "results",
    "config",
    "statistics",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder, path = (
        tmp_path_factory.mktemp("malicious"),
        tmp_path_factory.mktemp("report") / "report.json",
    )
    found = os.environ.get("PYTHONPATH", "")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(HERE.parents[1]), str(HERE), *([found] if found else [])]
        ),
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "read_malicious_files.py"), str(folder), str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(path.read_text())


def test_every_reader_gets_some_of_at_least_a_hundred_files(report):
    assert report["files"] >= 4000
    assert {outcome.split()[0] for outcome in report["outcomes"]} == READERS


def test_nothing_that_a_file_names_is_imported_called_or_written(report):
    assert report["happened"] == [] and not report["marker"]


def test_the_files_work_and_the_watch_sees_it(report):
    """Python's own unpickler, given one of the files."""
    assert report["control"] == ["pickle.find_class", "os.system", True]


def test_every_file_is_a_value_or_one_line_for_the_user(report):
    assert report["wrong"] == []


def test_files_that_call_something_are_refused(report):
    """Read are harmless ones: a TSV with a bad index is indexed anew, a list of lists is one."""
    values = {
        outcome.split()[0]: count
        for outcome, count in report["outcomes"].items()
        if outcome.endswith("value")
    }
    assert (
        values.keys() <= {"index", "plain", "results"}
        and values["plain"] < 5
        and values["results"] < 5
    )


@pytest.mark.parametrize("mapped", [False, True])
def test_the_same_checkpoints_without_a_lie_are_read(tmp_path, mapped):
    for name, content in {
        "new": malicious_files.new_file(malicious_files.tensor()),
        "old": malicious_files.old_file(malicious_files.tensor(view=b"N")),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert load_checkpoint(tmp_path / name, mapped=mapped)["model"]["a"].equal(torch.zeros(2))


REASONS = {
    0: "is compressed",
    10: "is compressed",
    11: "TorchScript",
    12: "inside of another record",
    13: "lies inside|is there twice",
    17: "tar archive",
}


def test_archives_that_lie_are_refused_for_what_they_are(tmp_path):
    for number, content in enumerate(malicious_files.archives()):
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(
            UserError,
            match=REASONS.get(number, REASONS[0] if number < 10 else "damaged|tar archive"),
        ):
            load_checkpoint(tmp_path / "a.pt")


def test_tensors_that_lie_are_refused_for_what_they_are(tmp_path):
    for lie in malicious_files.LIES:
        for content in (
            malicious_files.new_file(malicious_files.tensor(**lie)),
            malicious_files.old_file(malicious_files.tensor(**lie, view=b"N")),
        ):
            (tmp_path / "a.pt").write_bytes(content)
            # torch 2.10 asserts where 2.11 names the storage key
            with pytest.raises(
                UserError,
                match=(
                    r"a (tensor|storage) of|data/\.\./version|longer"
                    r" than|FloatStorage|NoSuchStorage|storage key|AssertionError"
                ),
            ):
                load_checkpoint(tmp_path / "a.pt")


def test_no_file_takes_a_gigabyte_or_five_seconds(report):
    assert report["peak_mb"] < 1000
    assert report["slowest"][0] < 5, report["slowest"]
