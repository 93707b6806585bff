"""``ofa quickstart``: from nothing to a scored page, on an ordinary computer.

The stages are data (``templates/quickstart.yaml``, ``templates/pretraining.yaml``): commands that
could be typed as well. What one call has finished the next one does not do again.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, TextIO

import yaml

import ofa
from ofa.errors import UserError
from ofa.io.flags import action, option
from ofa.io.folder_lock import lock_folder
from ofa.io.jobs import count_threads
from ofa.io.terminal import styled
from ofa.trainer.processes import SIGNALS, status_of

ROOT = ofa.CHECKOUT or Path.cwd()  # where runs/ is
PROGRAMS = {"ofa": [sys.executable, "-m", "ofa"], "python": [sys.executable]}
STOPPED = tuple(map(status_of, SIGNALS))

# A command, a text to print (``say ...``), or a mapping: steps of which something is said, lines
# to write, a training.
Step = str | dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions:
    long: bool = option(False, "20 minutes more, better at everything")
    pretraining: bool = option(False, "eight tasks in one stream, then drawing: 75 to 110 minutes")
    fresh: bool = option(False, "start over instead of continuing")


@action
def quickstart(args: QuickstartOptions) -> int:
    """From nothing to a scored page, on an ordinary computer.

    Draws synthetic shapes, trains ofa_nano from random weights on captions, questions and boxes,
    and writes report.html in runs/quickstart (--long: runs/quickstart_long, --pretraining:
    runs/pretraining_demo).

    The same call again continues an interrupted run, or finishes at once. QUICKSTART_DIR or
    DEMO_DIR in the environment chooses another folder.
    """
    if args.long and args.pretraining:
        raise UserError("--long: expects no --pretraining, which has one length; leave one out")
    if args.pretraining and ofa.CHECKOUT is None:
        raise UserError(
            "--pretraining: expected a checkout, whose benchmarks it runs, found an installed"
            " package; clone the repository and call run_scripts/pretraining/demo.sh there"
        )
    run = StagedRun("pretraining" if args.pretraining else "quickstart", args.long)
    try:
        with lock_folder(run.folder):
            run.start(args.fresh)
    except UserError as error:
        print(f"{run.label}: error: {error}", file=sys.stderr)
        return 2
    except StageEnded as ended:
        if ended.args[0] in STOPPED:
            run.say("interrupted; the same call again continues from here")
        return ended.args[0]
    return 0


class StageEnded(Exception):
    """A stage is not finished; its argument is the status of the command that ended it."""


class StagedRun:
    """A folder in which the stages of a plan are done once. Args: name: of the plan's file."""

    def __init__(self, name: str, long: bool):
        file = Path(__file__).parent / "templates" / f"{name}.yaml"
        self.plan: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        self.label, self.texts = self.plan["label"], {}
        settings = {**self.plan["settings"], **(self.plan["long"] if long else {})}
        prefix, name = self.label.upper(), self.plan["name"] + ("_long" if long else "")
        given = {key: os.environ.get(f"{prefix}_{key.upper()}") for key in settings}
        self.values = {key: given[key] or str(value) for key, value in settings.items()}
        self.folder = Path(os.environ.get(f"{prefix}_DIR") or ROOT / "runs" / name).resolve()
        self.values["folder"] = str(self.folder)
        self.paths = {key: self.fill(path) for key, path in self.plan["paths"].items()}
        self.values |= self.paths
        for key, text in self.plan["texts"].items():
            self.texts[key] = self.expand(text)
        self.kept: TextIO | None = None

    def fill(self, text: object) -> str:
        """The text with settings and paths in it."""
        return Template(str(text)).substitute(self.values)

    def expand(self, text: str) -> str:
        """The text with other texts in it."""
        return Template(text).safe_substitute(self.texts)

    def words(self, text: str) -> list[str]:
        """As a shell splits them; a flag ``--name=`` without a value is left out."""
        words = map(self.fill, shlex.split(self.expand(text)))
        return [word for word in words if not word.endswith("=")]

    def start(self, fresh: bool) -> None:
        """Do what is to be done. Raises: StageEnded if something fails or is interrupted."""
        self.start_over_if_asked(fresh)
        timings = self.folder / "timings.tsv"
        for stage in self.plan["stages"]:
            done, started = self.folder / "done" / stage["name"], time.monotonic()
            if self.is_wanted(stage) and not done.exists():
                self.say(stage["name"])
                self.do(stage["steps"])
                with open(timings, "a") as file:
                    file.write(f"{stage['name']}\t{time.monotonic() - started:.0f}\n")
                done.touch()
        self.do(self.plan.get("finish", []))
        self.say("done")
        for path in sorted(self.folder.glob("summary*.txt")):
            print(path.read_text())
        times = [line.split("\t") for line in timings.read_text().splitlines()]
        times.append(["together", str(sum(int(seconds) for _, seconds in times))])
        print("time per stage", *(f"  {name:<38} {sec:>5} s" for name, sec in times), sep="\n")
        print(f"\nOpen {self.paths['report']} in a browser.")

    def start_over_if_asked(self, fresh: bool) -> None:
        """What was made with other settings does not fit; nothing else in the folder is removed."""
        settings, fingerprint = self.folder / "settings", self.fill(self.plan["fingerprint"])
        if settings.exists() and (fresh or settings.read_text() != fingerprint):
            self.say(f"starting over: removing {self.folder}")
            made = [*map(Path, self.paths.values()), self.folder / "done", settings]
            made += [self.folder / "timings.tsv", *self.folder.glob("summary*.txt")]
            for path in made:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for name in ("done", "results", "pages"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        settings.write_text(fingerprint)

    def say(self, text: str) -> None:
        print(f"\n{styled(f'[{self.label}] {text}', 'bold', sys.stdout)}", flush=True)

    def is_wanted(self, step: dict[str, Any]) -> bool:
        """Whether the settings that ``when`` and ``unless`` name ask for it."""
        if "when" in step and self.values[step["when"]] == "0":
            return False
        return "unless" not in step or self.values[step["unless"]] == "0"

    def do(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, str):
                program, *words = self.words(step)
                if program == "say":
                    self.print("".join(f"{line}\n" for line in words))
                else:
                    self.run([*PROGRAMS[program], *words])
            elif "train" in step:
                self.do_training(step)
            elif "write" in step:
                self.write(step)
            elif "keep" in step:  # for the end of every call
                with open(self.folder / step["keep"], "w") as self.kept:
                    self.do(step["steps"])
                self.kept = None
            elif self.is_wanted(step):
                self.do(step["steps"])

    def print(self, text: str) -> None:
        print(text, end="", flush=True)
        if self.kept:
            self.kept.write(text)

    def do_training(self, step: dict[str, Any]) -> None:
        """A training through the launcher, with the flags that all of them have.

        ``batch`` are rows per process and update, the first that is given; ``length`` are updates
        and minutes, whichever ends first; ``validations`` come at even distances.
        """
        folder, batch = self.fill(step["train"]), next(filter(None, map(self.fill, step["batch"])))
        updates, minutes = map(self.fill, step["length"])
        distance = (int(updates) - 1) // step["validations"] + 1
        cores = count_threads()
        # Two processes of one thread each beat two threads of one when the machine has other work.
        environment = {
            "OMP_NUM_THREADS": "1",
            "NPROC": "1" if cores < 2 else "2",
            "BATCH": batch,
            "EFFECTIVE_BATCH": str(2 * int(batch)),
            "NUM_WORKERS": "0",
            "SAVE_DIR": folder,
            "RESTORE": self.fill(step.get("restore", "none")),
        }
        length = (
            f"--max-update={updates} --total-num-update={updates}"
            f" --stop-time-hours={float(minutes) / 60:g}"
            f" --save-interval-updates={distance} --validate-interval-updates={distance}"
        )
        flags = self.words(f"{step['data']} {step['flags']} {length} $train")
        self.run([sys.executable, "-m", "ofa", "train", *flags], **environment)

    def write(self, step: dict[str, Any]) -> None:
        """A file: JSON; or lines, some ``often`` (once per scene), and some made of the cells of
        each line of another file."""
        path = Path(self.fill(step["write"]))
        if "json" in step:
            path.write_text(json.dumps(step["json"], indent=1) + "\n")
            return
        lines = [line for line in step.get("often", []) for _ in range(int(self.values["scenes"]))]
        for source, line in step["lines_of"].items():
            rows = Path(self.fill(source)).read_text(encoding="utf-8").splitlines()
            lines += (line.format(*row.split("\t")) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def run(self, words: list[str], **environment: str) -> None:
        """A program to its end. Raises: StageEnded if it fails or this process is to stop."""
        output, variables = subprocess.PIPE if self.kept else None, {**os.environ, **environment}
        process = subprocess.Popen(words, cwd=ROOT, env=variables, text=True, stdout=output)
        # What is asked to stop saves before it ends. Ctrl-C has reached the program already.
        stopped: list[int] = []

        def stop(number: int, _: Any) -> None:
            stopped.append(number)
            if number == signal.SIGTERM:
                process.terminate()

        before = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            for line in process.stdout or ():
                self.print(line)
            status = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if status and stopped:
            raise StageEnded(status_of(stopped[0]))
        if status in STOPPED:  # the program alone was asked to
            raise StageEnded(status)
        if status:
            message = f"{self.label}: error: ended with status {status} at: {shlex.join(words)}"
            print(message, file=sys.stderr)
            raise StageEnded(status if status > 0 else 128 - status)
