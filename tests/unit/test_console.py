"""What a person sees of a training, from the lines and records that the training prints."""

import importlib.util
import io
import json
import os
import subprocess
import sys

import pytest

from ofa.io.terminal import styled
from ofa.trainer.console import CONSOLE, MODULE, SPEAKERS, Console, Ticks, finish, learned, tell

RUN = {"first": 0, "updates": 40, "epochs": 4, "metric": "cider", "maximize": True}
INNER = (
    "2026-11-30 03:31:40 | INFO | train_inner | epoch 002:      3 / 10 loss=5.911, nll_loss=5.7,"
    " ppl=52.1, accuracy=31.2, wps=200, ups=2, wpb=100, bsz=4, num_updates={update}, lr=0.001,"
    " gnorm=1.2, train_wall=3, memory=0.87, wall=9"
)
TRAIN = (
    "2026-11-30 03:31:41 | INFO | train | epoch 003 | loss 5.5 | nll_loss 5.4 | ppl 42 |"
    " wps 200 | ups 2 | wpb 100 | bsz 4 | num_updates 12 | lr 0.001"
)
VALID = (
    "2026-11-30 03:31:42 | INFO | valid | epoch {epoch:03d} | valid on 'valid' subset | loss 4.9 |"
    " nll_loss 4.8 | ppl 27 | _cider_cnt 7 | cider {cider} | wps 0 | num_updates 10 |"
    " best_cider 0.9"
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown():
    """Function: lines and records -> what stdout and stderr get. ``seconds`` pass per line."""

    def show(*given: str | dict, seconds: float = 1.0, stream=io.StringIO, asked=True):
        time = [0.0]
        out, err = stream(), stream()
        console = Console(out, err, "run/train.log", lambda: time[0])
        for item in given:
            time[0] += seconds
            console.tell(item) if isinstance(item, dict) else console.feed(item)
        console.end(asked)
        return out.getvalue(), err.getvalue()

    return show


def test_a_line_per_interval_tells_place_loss_speed_and_the_time_left_of_the_run(shown):
    out, err = shown({"run": RUN}, INNER.format(update=10))
    assert (out, err) == (
        "update 10/40, epoch 2/4: loss 5.911, accuracy 31.2, 0.5 s/update, 8 samples/s, MFU -,"
        " memory 0.9 GB, ETA 00:03\n",
        "",
    )


def test_the_share_of_the_peak_and_the_memory_of_a_gpu_are_shown(shown):
    line = INNER.replace("memory=0.87", "gb_free=60.0, mfu=41.3").format(update=10)
    out, _ = shown({"run": RUN | {"memory": 80.0}}, line)
    assert "MFU 41 %, memory 20.0 GB" in out


def test_the_time_left_ends_with_the_limit_of_hours(shown):
    out, _ = shown({"run": RUN | {"updates": None, "seconds": 61.0}}, INNER.format(update=10))
    assert out.startswith("update 10, ") and out.endswith("ETA 01:00\n")


def test_a_resumed_run_counts_from_where_it_was(shown):
    out, _ = shown({"run": RUN | {"first": 8}}, INNER.format(update=10))
    assert out.endswith("ETA 00:15\n")


def test_an_epoch_without_a_line_of_an_interval_is_shown_at_its_end(shown):
    out, _ = shown({"run": RUN}, INNER.format(update=10), TRAIN.replace("epoch 003", "epoch 002"))
    assert out.count("update ") == 1
    out, _ = shown({"run": RUN}, INNER.format(update=10), TRAIN)
    assert "update 12/40, epoch 3/4: loss 5.5, 0.5 s/update" in out.splitlines()[1]


def test_validations_are_a_table_that_marks_the_best(shown):
    rows = [VALID.format(epoch=epoch, cider=cider) for epoch, cider in ((1, 0.2), (2, 0.1), (3, 1))]
    out, _ = shown({"run": RUN}, *rows[:2], INNER.format(update=10), rows[2])
    assert out.splitlines() == [
        "   valid     epoch    update      loss     cider",
        "                 1        10       4.9       0.2  best",
        "                 2        10       4.9       0.1",
        out.splitlines()[3],
        "   valid     epoch    update      loss     cider",
        "                 3        10       4.9         1  best",
    ]


@pytest.mark.parametrize(
    "best, cider, maximize, is_best",
    [(0.5, 0.4, True, False), (0.5, 0.5, True, True), (0.5, 0.4, False, True)],
)
def test_the_best_is_that_of_the_whole_run(shown, best, cider, maximize, is_best):
    run = {"run": RUN | {"best": best, "maximize": maximize}}
    assert ("best" in shown(run, VALID.format(epoch=1, cider=cider))[0]) == is_best


def test_only_the_first_subset_chooses_the_best(shown):
    other = VALID.replace("| valid |", "| test |").format(epoch=1, cider=9)
    out, _ = shown({"run": RUN}, VALID.format(epoch=1, cider=0.2), other)
    assert out.count("best") == 1 and "    test     epoch" in out


def test_a_validation_of_technical_figures_alone_is_a_row(shown):
    line = "2026-11-30 03:31:42 | INFO | valid | epoch 001 | valid on 'valid' subset | wps 0 |"
    out, _ = shown({"run": RUN}, line + " num_updates 10")
    assert [row.split() for row in out.splitlines()] == [["valid", "epoch", "update"], ["1", "10"]]


def test_what_fairseq_says_of_itself_is_in_the_log_alone(shown):
    out, err = shown(
        "2026-11-30 03:31:40 | INFO | fairseq_cli.train | {'_name': None, 'common': ...",
        "2026-11-30 03:31:40 | INFO | fairseq_cli.train | OFAModel(",
        "  (encoder): TransformerEncoder(",
        ")",
        "2026-11-30 03:31:40 | INFO | ofa.trainer.fairseq_trainer | Saving checkpoint to a.pt",
    )
    assert (out, err) == ("", "")


def test_warnings_of_several_processes_and_lines_of_this_project_are_shown_once(shown):
    warning = "2026-11-30 03:31:40 | WARNING | ofa.tasks.fairseq_task | 3 rows have no reference"
    found = "2026-11-30 03:31:40 | INFO | ofa.trainer.fairseq_resume | continuing with the run"
    asked = "SIGINT: saving after this update, then stopping"
    out, _ = shown(warning, found, warning, asked, asked)
    assert out.splitlines() == [
        "warning: 3 rows have no reference",
        "continuing with the run",
        "SIGINT: saving after this update, then stopping",
    ]


def test_the_loggers_whose_lines_are_shown_exist():
    assert all(importlib.util.find_spec(name) for name in SPEAKERS)


def test_errors_are_on_stderr_and_red_on_a_terminal_only(shown, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    given = [INNER.format(update=10), "error: a.tsv:3: expected 5 columns"]
    assert shown(*given)[1] == "error: a.tsv:3: expected 5 columns\n"
    red = "\033[31merror: a.tsv:3: expected 5 columns\033[0m\n"
    assert shown(*given, stream=Terminal)[1] == red
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(*given, stream=Terminal)[1] == "error: a.tsv:3: expected 5 columns\n"


def test_a_traceback_is_shown_whole_but_not_that_of_ctrl_c(shown):
    block = ["Traceback (most recent call last):", '  File "a.py", line 1', "ValueError: no"]
    assert shown(*block, INNER.format(update=10))[1] == "\n".join(block) + "\n"
    assert shown(*block[:2], "KeyboardInterrupt")[1] == "interrupted\n"


def test_a_training_that_dies_without_a_message_is_told_with_its_last_lines(shown):
    _, err = shown(INNER.format(update=10), "Bus error", asked=False)
    last, error = err.splitlines()
    assert last == "Bus error" and error.startswith("error: the training ended without a message,")
    assert "run/train.log" in error and "it resumes from the newest checkpoint" in error
    assert shown("error: no memory", asked=False)[1] == "error: no memory\n"


def test_a_training_that_dies_before_its_first_line_may_have_been_terminated(shown):
    _, err = shown("a library's line", asked=False)
    error = err.splitlines()[-1]
    assert error.startswith("error: the training ended before it began: it was terminated (SIGTERM")


def test_a_terminal_gets_a_bar_over_all_updates_of_the_run(shown):
    out, _ = shown({"run": RUN}, {"update": 9}, INNER.format(update=10), stream=Terminal)
    assert "epoch 2/4 |" in out and "update 10/40" not in out
    assert "10/40 updates, ETA 00:06, loss 5.911" in out  # first what a narrow terminal shows


def run_console(path, *lines: bytes) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", MODULE, str(path)], input=b"".join(lines), capture_output=True
    )


def test_the_log_gets_every_line_and_no_record(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("of an earlier start\n")
    lines = [b"config\n", INNER.format(update=10).encode() + b"\n", b"  \xff\n"]
    records = [
        b"\x1e" + json.dumps(record).encode() + b"\n" for record in ({"run": RUN}, {"end": 1})
    ]
    done = run_console(log, records[0], *lines, records[1])
    assert log.read_bytes() == b"of an earlier start\n" + b"".join(lines)
    printed = done.stdout.decode().splitlines()
    assert printed[0] == f"starting; the whole log is {log}" and len(printed) == 2
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_separator_that_the_training_prints_is_text(tmp_path):
    lines = [b"a caption \x1e of a dog\n", b"\x1e5\n", b"\x1e"]
    done = run_console(tmp_path / "train.log", *lines, b'\x1e{"end": true}\n')
    assert (tmp_path / "train.log").read_bytes() == b"".join(lines)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_training_tells_nothing_where_no_console_reads_it(monkeypatch, capfd):
    monkeypatch.delenv(CONSOLE, raising=False)
    tell(update=1)
    finish()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv(CONSOLE, str(os.getpid()))  # no child of this process
    finish()
    ticks = Ticks()
    ticks.tick(1)
    ticks.tick(2)  # at once
    assert capfd.readouterr().out == '\x1e{"update": 1}\n'


def test_figures_that_say_what_was_learned_come_with_the_loss_first():
    figures = {"score": "1", "loss": "2", "ntokens": "3", "_n": "4", "best_score": "5", "lr": "6"}
    assert learned(figures) == [("loss", "2"), ("score", "1")]


def test_styles_are_for_terminals(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert styled("a", "bold", io.StringIO()) == "a"
    assert styled("a", "bold", Terminal()) == "\033[1ma\033[0m"
    monkeypatch.setenv("TERM", "dumb")
    assert styled("a", "bold", Terminal()) == "a"


@pytest.mark.parametrize("log_format", [None, "simple"])
def test_the_lines_of_fairseq_are_shown_only_when_they_are_asked_for(tmp_path, log_format):
    log, line = tmp_path / "train.log", "2026-11-30 03:31:40 | INFO | fairseq_cli.train | {'a': 1}"
    training = f"from ofa.trainer.console import finish; print({line!r}); finish(); print('late')"
    start = (
        "import sys; from pathlib import Path; from ofa.trainer.processes import become;"
        f" become([sys.executable, '-c', {training!r}], {{}}, Path({str(log)!r}),"
        f" log_format={log_format!r})"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True)
    shown = f"{line}\nlate\n" if log_format else f"starting; the whole log is {log}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")
    assert log.read_text().splitlines() == [line, *["late"] * bool(log_format)]
