"""Train from Python: ``ofa.train("caption", "data/photos", "runs/photos", size="nano")``.

The training and its evaluation are the commands ``ofa train`` and ``ofa evaluate`` in processes of
their own: what they print is seen, and this process stays as it is.
"""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from ofa.checkpoints.header import read_header
from ofa.data.tsv import data_files
from ofa.errors import UserError, did_you_mean
from ofa.io.json_files import read_json
from ofa.tasks import spec_of
from ofa.trainer.flags import ELSEWHERE, known_flags
from ofa.trainer.launch import CONFIG, LOG, LaunchOptions
from ofa.trainer.processes import status_of

OWN = {  # option -> flag, besides those of fairseq-train
    **{one.name: one.metadata.get("flag", "") for one in fields(LaunchOptions)},
    **dict.fromkeys(("size", "bpe_dir"), ""),
}
# arguments, also by the name that fairseq gives to ``out``, or what makes no run
NOT_HERE = {"out", "save_dir", "plan", "dry_run", "data", "task"}
# other names of options, beside those of ``ofa.trainer.flags.ELSEWHERE``
MEANT = dict.fromkeys(("from_", "checkpoint", "pretrained"), "start")
MEANT |= {flag[2:].replace("-", "_"): meant[2:] for flag, meant in ELSEWHERE.items()}
ERROR = re.compile(r"^(?:ofa \w+: )?error: (.*)$", re.MULTILINE)  # the last line of a command
KEPT = 1 << 16  # bytes of what a command prints
SECONDS_TO_END = 5  # until all is read that a command printed
RESULTS, PAGE = "results", "report.html"
INTERRUPTED = (status_of(signal.SIGINT), -signal.SIGINT)  # by itself, or by the signal


@dataclass(frozen=True)
class TrainingRun:
    """What a training made.

    Attributes:
        folder: of the run.
        checkpoint: the best one, or the last of a run without validation.
        scores: of the validation rows, by metric; empty without a validation file.
        page: that shows them.
    """

    folder: Path
    checkpoint: Path
    scores: Mapping[str, float] = field(default_factory=dict)
    page: Path | None = None


def train(
    task: str, data: str | Path | Sequence[str | Path], out: str | Path, **options: Any
) -> TrainingRun:
    """Train on own data, then evaluate the best checkpoint on the validation rows.

    Args:
        task: its name or an alias; ``joint`` for several, which a JSON file names.
        data: folder of ``ofa prepare``, or training and validation files; that JSON file.
        out: folder of the run; the same call resumes a run that was stopped.
        options: those of ``ofa train`` (``size``, ``bpe_dir``, ``start``: a checkpoint,
            ``auto=False``, ...) and any flag of fairseq-train: ``max_epoch=5``.

    Raises:
        UserError: for an unknown option, or if the training fails.
        KeyboardInterrupt: if it was interrupted.
    """
    name = task if task == "joint" else spec_of(task, "task").name
    files = ",".join(map(str, data)) if isinstance(data, (list, tuple)) else str(data)
    words = flags_of_options(options, name)
    _run("train", task, "--data", files, "--out", str(out), *words, log=Path(out) / LOG)
    folder = Path(out)
    best = folder / "checkpoint_best.pt"
    checkpoint = best if best.exists() else folder / "checkpoint_last.pt"
    rows = validation_rows(folder)
    if rows is None:
        return TrainingRun(folder, checkpoint)
    results, page = folder / RESULTS, folder / PAGE
    stamps = {path: stamp(path) for path in results.glob("*_scores.json")}
    ema = ["--ema"] * bool(read_header(str(checkpoint)).options.get("uses_ema"))  # chose the best
    cpu = ["--device", "cpu"] * bool(options.get("cpu"))
    _run(
        "evaluate", str(checkpoint), rows, "--out", str(results), "--report", str(page), *ema, *cpu
    )
    # no such file where there is nothing to score with: a file of an earlier evaluation is none
    scores = [path for path in results.glob("*_scores.json") if stamps.get(path) != stamp(path)]
    found = read_json(scores[0])["scores"] if scores else {}
    return TrainingRun(folder, checkpoint, found, page)


def stamp(path: Path) -> tuple[int, int]:
    """Changes when the file is written again, in one step, as results are."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def flags_of_options(options: Mapping[str, Any], task: str) -> list[str]:
    """Python's spelling -> the command line's. Raises: UserError for an unknown name."""
    known = {flag.lstrip("-").replace("-", "_") for flag in known_flags(task)}
    known = known | OWN.keys() - NOT_HERE
    words = []
    for name, value in options.items():
        if name not in known or name in NOT_HERE:
            meant = MEANT.get(name, "").replace("-", "_")
            better = f"; did you mean {meant}?" if meant else did_you_mean(name, known)
            raise UserError(f"train: expected options of ofa train, found '{name}'{better}")
        flag = OWN.get(name) or f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is False and name == "auto":
            words.append("--no-auto")
        elif value is not False and value is not None:
            words.append(f"{flag}={_text(value)}")
    return words


def _text(value: Any) -> str:
    """A value as flags have it."""
    if isinstance(value, Mapping):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def validation_rows(folder: Path) -> str | None:
    """The validation file of a run, by its configuration; None: it did not validate, or with the
    training rows."""
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    paths = data_files(config["data"], "train", only_training=True)
    return None if config["disable_validation"] or len(paths) < 2 else paths[-1]


def _run(*words: str, log: Path | None = None) -> None:
    """A command of ours to its end. Ctrl-C reaches it as well: it saves first."""
    process = subprocess.Popen([sys.executable, "-m", "ofa", *words], stderr=subprocess.PIPE)
    printed = bytearray()
    reader = threading.Thread(target=_pass_on, args=(process.stderr, printed), daemon=True)
    reader.start()
    status, interrupted = None, False
    while status is None:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            interrupted = True
    if interrupted or status in INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        reader.join(SECONDS_TO_END)
        causes = ERROR.findall(printed.decode(errors="replace"))
        cause = causes[-1] if causes else f"ended with status {status}; what it printed is above"
        where = f"; its log is {log}" if log and log.exists() else ""
        raise UserError(f"ofa {words[0]}: {cause}{where}")


def _pass_on(stream: BinaryIO, printed: bytearray) -> None:
    """Print what a command prints, piece by piece as bars come, and keep the end of it."""
    while piece := stream.read1(1 << 16):  # type: ignore[attr-defined]
        sys.stderr.write(piece.decode(errors="replace"))
        sys.stderr.flush()
        printed += piece
        del printed[:-KEPT]
