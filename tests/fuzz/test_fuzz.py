"""The short run of the fuzzer; the long one is ``python tests/fuzz/run.py``."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.guard import Guard  # noqa: E402
from fuzz.run import Report, run  # noqa: E402

from ofa.errors import UserError  # noqa: E402


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard()


def test_damaged_input_becomes_a_value_or_one_clear_error(tmp_path, guard, monkeypatch):
    monkeypatch.setenv("OFA_INDEX_DIR", str(tmp_path / "indices"))
    report = run(tmp_path, rows=4000, files=3000, images=600, seed=1, guard=guard, quiet=True)
    assert not report.faults, "\n".join(report.faults[:10])
    outcomes = {outcome for _, outcome in report.outcomes}
    assert outcomes == {"value", "UserError"}


def test_the_guard_notes_processes_sockets_and_files_elsewhere(tmp_path, guard):
    inside, elsewhere = tmp_path / "inside", tmp_path / "elsewhere"
    inside.mkdir()
    elsewhere.write_text("precious")
    with guard.watching(inside) as seen:
        (inside / "fine").write_text("fine")
        elsewhere.read_text()
    assert seen == []
    with guard.watching(inside) as seen:
        subprocess.run(["true"], check=True)
        socket.socket().close()
        elsewhere.write_text("changed")
        elsewhere.unlink()
    assert [
        any(name in event for event in seen)
        for name in ("subprocess", "socket", "writing", "os.remove")
    ] == [True] * 4


@pytest.mark.parametrize(
    "error, outcome",
    [
        (UserError("a.tsv:3: expected a caption, found none"), "UserError"),
        (UserError("expected a caption, found none"), "fault"),
        (UserError("a.tsv:3: expected a caption\nfound none"), "fault"),
        (ValueError("a.tsv:3"), "fault"),
        (RecursionError(), "fault"),
    ],
)
def test_only_a_user_error_of_one_line_that_names_the_place_is_right(error, outcome):
    def read():
        raise error

    report = Report()
    report.try_reading("kind", "repeat", read, ["a.tsv:3"])
    assert dict(report.outcomes) == {("kind", outcome): 1}
