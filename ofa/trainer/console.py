"""What a person sees of a training.

``python -m ofa.trainer.console FILE`` stands where ``tee`` would. All that the training prints goes
into FILE. Shown is what matters: on a terminal a bar with the time left of the whole run, elsewhere
a line per interval; the validations as a table; errors in red, and nothing after them.

The training prints the lines of fairseq's ``--log-format simple``, and between them records for
this program, which do not get into FILE: RS (0x1e) and JSON in a line (RFC 7464).
"""

import json
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

from ofa.io.terminal import styled

MODULE = "ofa.trainer.console"
CONSOLE = "OFA_CONSOLE"  # environment variable: the process of this program, if there is one
SEPARATOR = b"\x1e"
SECONDS_BETWEEN_TICKS = 0.2
LINE = re.compile(r"\S+ \S+ \| (\w+) \| (\S+) \| (.*)")  # level, logger, message
ERROR = re.compile(r"(\S+: )?error: ")
SPOKEN = re.compile(r"(note|warning|SIGINT|SIGTERM): ")  # lines that no logger prints
SPEAKERS = frozenset(  # loggers whose every line is shown; of others it is warnings and errors
    f"ofa.trainer.fairseq_{name}" for name in ("console", "resume", "weights")
)
TRACEBACK = "Traceback (most recent call last)"
# Figures of a log line that say nothing of what was learned.
TECHNICAL = frozenset(
    "ntokens nsentences sample_size sample_size_v1 sample_size_v2 n_correct total wps ups wpb bsz"
    " num_updates lr gnorm clip loss_scale train_wall wall gb_free gb_total memory mfu ema_decay"
    " nll_loss ppl".split()
)


# --- the side of the training ---------------------------------------------------------------------


def tell(**record: Any) -> None:
    """Print a record, if this program reads what is printed."""
    if CONSOLE in os.environ:
        with suppress(OSError):
            os.write(1, SEPARATOR + json.dumps(record).encode() + b"\n")


class Ticks:
    """Tells how many updates are made, a few times per second."""

    def __init__(self) -> None:
        self.told = 0.0

    def tick(self, update: int) -> None:
        now = time.monotonic()
        if now - self.told >= SECONDS_BETWEEN_TICKS:
            self.told = now
            tell(update=update)


def finish() -> None:
    """Called when a process ends: all that it printed is shown before it does. Does nothing in
    processes that did not start this program."""
    process = int(os.environ.get(CONSOLE) or 0)
    with suppress(ChildProcessError):
        if process and os.waitpid(process, os.WNOHANG) == (0, 0):
            sys.stdout.flush()
            sys.stderr.flush()
            tell(end=True)
            os.waitpid(process, 0)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(nowhere, stream)


# --- what is shown --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What a training says of itself before its first update.

    Args: first, updates: it begins after ``first`` updates and ends after ``updates``. seconds:
    until --stop-time-hours are over. metric, maximize, best: of --best-checkpoint-metric; ``best``
    as far as an earlier start came. memory: of the device, in GB.
    """

    first: int = 0
    updates: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    metric: str = "loss"
    maximize: bool = False
    best: float | None = None
    memory: float | None = None


class Console:
    """Shows what is fed to it line by line.

    Args: log: the file that has all lines, for messages. clock: seconds.
    """

    def __init__(
        self, out: TextIO, err: TextIO, log: str, clock: Callable[[], float] = time.monotonic
    ):
        from tqdm import tqdm  # here, as the launcher imports this file and needs no bar

        self.tqdm = tqdm
        self.out, self.err, self.log, self.clock = out, err, log, clock
        self.run, self.started = Run(), clock()
        self.best: float | None = None  # of the subset by which fairseq chooses the best checkpoint
        self.subset = ""  # that one: the first that is validated
        self.bar: Any = None
        self.place = self.figures = ""  # what the bar has around it
        self.shown_epoch = 0  # the last one of which a line was shown
        self.columns: list[str] = []  # of the table whose row was the last line, if it was one
        self.common: set[str] = set()  # shown lines that other processes print as well
        self.unread: deque[str] = deque(maxlen=10)  # lines of no logger since the last line of one
        self.traceback: list[str] = []
        self.failed = self.began = False

    def begin(self) -> None:
        self.print(f"starting; the whole log is {self.log}")

    def tell(self, record: Mapping[str, Any]) -> None:
        """A record that the training printed."""
        if "run" in record:
            self.run, self.started = Run(**record["run"]), self.clock()
            self.best = self.run.best
            if self.out.isatty():
                self.bar = self.tqdm(
                    total=self.run.updates,
                    initial=self.run.first,
                    file=self.out,
                    leave=False,
                    dynamic_ncols=True,
                    bar_format="{desc} |{bar}| {n_fmt}/{total_fmt} updates{postfix}",
                )
        if "update" in record:
            self.move_bar(record["update"])

    def feed(self, text: str) -> None:
        """A line of the log."""
        if found := LINE.match(text):
            self.end_traceback()
            self.unread.clear()
            self.began = True
            self.logged(*found.groups())
        elif self.traceback or text.startswith(TRACEBACK):
            self.traceback.append(text)
        elif ERROR.match(text):
            self.error(text)
        elif SPOKEN.match(text):
            self.once(text, self.print)
        elif text.strip():
            self.unread.append(text)

    def logged(self, level: str, name: str, message: str) -> None:
        epoch = int(found[1]) if (found := re.match(r"epoch (\d+)", message)) else 0
        if name == "train_inner":
            self.interval(epoch, dict(re.findall(r"(\w+)=([^,\s]+)", message)))
        elif epoch and " | valid on '" in message:
            self.validation(name, epoch, _between_pipes(message))
        elif epoch and name == "train":
            if self.shown_epoch != epoch:  # few updates in it: no line of an interval
                self.interval(epoch, _between_pipes(message))
        elif level != "INFO":
            show = self.print if level == "WARNING" else self.error
            self.once(f"{level.lower()}: {message}", show)
        elif name in SPEAKERS:
            self.print(message)
        elif message.startswith("begin validation on") and self.bar is not None:
            self.bar.set_description_str(f"{self.place}, validating")
        elif message.startswith("done training"):
            self.close_bar()

    def once(self, text: str, show: Callable[[str], None]) -> None:
        """Show what every process of a run prints."""
        if text not in self.common:
            self.common.add(text)
            show(text)

    def interval(self, epoch: int, figures: dict[str, str]) -> None:
        """Show where the training is, what it learned and how fast."""
        self.shown_epoch, update = epoch, int(figures["num_updates"])
        parts = [f"{name} {value}" for name, value in learned(figures)]
        self.figures = ", ".join([*parts, *self.speed(figures)])
        self.place = f"epoch {epoch}{f'/{self.run.epochs}' if self.run.epochs else ''}"
        if self.bar is None:
            of, left = f"/{self.run.updates}" if self.run.updates else "", self.time_left(update)
            self.print(f"update {update}{of}, {self.place}: {self.figures}, ETA {left}")
        self.move_bar(update)

    def move_bar(self, update: int) -> None:
        if self.bar is not None:
            left = f"ETA {self.time_left(update)}"
            self.bar.set_description_str(self.place, refresh=False)
            # a narrow terminal cuts the end
            self.bar.set_postfix_str(", ".join(filter(None, [left, self.figures])), refresh=False)
            self.bar.n = update
            self.bar.refresh()

    def speed(self, figures: Mapping[str, str]) -> list[str]:
        """Of updates, rows and arithmetic, and the memory that it takes."""
        known = {name: float(value) for name, value in figures.items() if _is_number(value)}
        words, per_second = known.get("wpb", 0), known.get("wps", 0)
        seconds = words / per_second if per_second else 0  # 1 / ups, which is rounded, to 0 even
        rows = known.get("bsz", 0) / seconds if seconds else 0
        used = known.get("memory")
        if self.run.memory and "gb_free" in known:
            used = self.run.memory - known["gb_free"]
        return [
            f"{_short(seconds)} s/update",
            f"{_short(rows)} samples/s",
            f"MFU {known['mfu']:.0f} %" if "mfu" in known else "MFU -",
            f"memory {used:.1f} GB" if used else "memory -",
        ]

    def time_left(self, update: int) -> str:
        """Of the whole run, its validations among it."""
        passed, done, run = self.clock() - self.started, update - self.run.first, self.run
        limits = [run.seconds - passed] if run.seconds is not None else []
        if run.updates is not None and done > 0:
            limits.append(passed / done * (run.updates - update))
        return self.tqdm.format_interval(max(min(limits), 0)) if limits else "-"

    def validation(self, subset: str, epoch: int, figures: dict[str, str]) -> None:
        """A row of a table; its head before, where the last line was no row of the same."""
        shown = learned(figures)
        columns = [subset, "epoch", "update", *(name for name, _ in shown)]
        widths = [max(len(name), 8) for name in columns]
        cells = ["", str(epoch), figures["num_updates"], *(value for _, value in shown)]
        head = [] if columns == self.columns else [columns]
        for row in (*head, cells):
            text = "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths))
            is_best = row is cells and self.is_best(subset, figures.get(self.run.metric, ""))
            self.print(text + "  best" * is_best)
        self.columns = columns
        self.move_bar(int(figures["num_updates"]))

    def is_best(self, subset: str, value: str) -> bool:
        """Whether fairseq saves a validation as the best: also one that is only as good."""
        self.subset = self.subset or subset
        if subset != self.subset or not _is_number(value):
            return False
        before, found = self.best, float(value)
        if before is not None and (found < before if self.run.maximize else found > before):
            return False
        self.best = found
        return True

    def print(self, text: str) -> None:
        self.columns = []
        self.tqdm.write(text, file=self.out)
        self.out.flush()

    def error(self, text: str) -> None:
        self.failed = True
        self.close_bar()
        self.out.flush()
        print(styled(text, "red", self.err), file=self.err, flush=True)

    def end_traceback(self) -> None:
        lines, self.traceback = self.traceback, []
        if lines and lines[-1].startswith("KeyboardInterrupt"):
            self.error("interrupted")
        elif lines:
            self.error("\n".join(lines))

    def close_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def end(self, asked: bool) -> None:
        """Args: asked: the training has said that it ends."""
        self.end_traceback()
        self.close_bar()
        if not asked and not self.failed:
            how = "ended without a message, as when the kernel ends it because memory is short"
            if not self.began:  # it answers signals only later
                how = (
                    "ended before it began: it was terminated (SIGTERM of kill, timeout or a"
                    " scheduler), or the kernel ended it because memory is short"
                )
            self.unread.append(
                f"error: the training {how}; its last lines are in {self.log}. Run the same command"
                " again: it resumes from the newest checkpoint"
            )
            self.error("\n".join(self.unread))


def learned(figures: Mapping[str, str]) -> list[tuple[str, str]]:
    """The figures that say what was learned, the loss first."""
    names = [name for name in figures if name not in TECHNICAL and name[0] != "_"]
    names = [name for name in names if not name.startswith("best_")]
    return sorted(((name, figures[name]) for name in names), key=lambda pair: pair[0] != "loss")


def _between_pipes(message: str) -> dict[str, str]:
    """``epoch 001 | loss 5.1 | cider 0.2`` -> loss and cider."""
    return dict(re.findall(r"\| (\w+) (\S+)(?= \||$)", message))


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        return float(text) == float(text)
    return False


def _short(number: float) -> str:
    return "-" if number <= 0 else f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def split_record(line: bytes) -> tuple[bytes, dict[str, Any]]:
    """What of a line belongs into the log, and the record behind it; empty where there is none."""
    text, mark, record = line.rpartition(SEPARATOR)
    with suppress(ValueError):  # the training may print the separator as well
        if mark and isinstance(found := json.loads(record), dict):
            return text, found
    return line, {}


def main() -> None:
    """Argument: FILE."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    path, ended = sys.argv[1], False
    console = Console(sys.stdout, sys.stderr, path)
    console.begin()
    log = open(path, "ab", buffering=0)
    for line in sys.stdin.buffer:
        text, record = split_record(line)
        if text:
            try:
                log.write(text)
            except OSError as error:
                log = open(os.devnull, "ab", buffering=0)
                console.error(f"error: {path}: {error.strerror}; this log is incomplete")
            console.feed(text.decode(errors="replace").rstrip("\n"))
        if ended := "end" in record:
            break
        console.tell(record)
    console.end(ended)


if __name__ == "__main__":
    main()
