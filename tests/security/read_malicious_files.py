"""Reads every malicious file with the reader that it is for, and reports what happened.

Run in a process of its own, since an audit hook notes whatever a reader has no business with.
Usage: read_malicious_files.py FOLDER REPORT.json
"""

import codecs
import faulthandler
import json
import os
import pickle
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from malicious_files import Case, description, malicious_files
from pickle_programs import calls

from ofa.checkpoints.read import read, read_source
from ofa.data.tsv import open_index
from ofa.errors import UserError
from ofa.io.json_files import read_plain
from ofa.io.safe_load import load_checkpoint
from ofa.io.tensor_files import write_tensors
from ofa.metrics.clip_score import read_weights
from ofa.metrics.document_frequency import read_document_frequencies
from ofa.metrics.fid import read_statistics
from ofa.models.image_tokenizer.vq_vae import load_vq_vae
from ofa.models.image_tokenizer.vqgan import load_vqgan, read_config
from ofa.task.answers import read_label_file
from ofa.task.mixture_file import read_members
from ofa.task.results import read_predictions

FORBIDDEN = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.startfile",
    "pty.",
    "socket.",
    "ctypes.",
    "shutil.",
    "webbrowser.",
    "urllib.",
    "ftplib.",
    "smtplib.",
    "http.",
    "pickle.find_class",
    "marshal.",
    "code.",
    "exec",
    "import",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "os.kill",
    "tempfile.",
    "sqlite3.",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Bytes of address space beyond that of the start. Protects the computer; the report has the peak.
LIMIT = 8 << 30


def readers(folder: Path) -> dict:
    """Reader -> function of a path."""
    tsv, yaml, model = folder / "rows.tsv", folder / "model.yaml", folder / "model"
    tsv.write_text("a\tb\nc\td\n")
    yaml.write_text(description())
    model.mkdir()
    (model / "config.json").write_text("{}")

    def index(path: Path):
        put(path, Path(f"{tsv}.index"))
        put(tsv, Path(f"{tsv}.idx"))  # no index, so that the other one is read
        return open_index(tsv)

    def in_folder(name: str, read):
        def in_place(path: Path):
            put(path, model / name)
            return read(model)

        return in_place

    return {
        "checkpoint": load_checkpoint,
        "mapped": lambda path: load_checkpoint(path, mapped=True),
        "clip": read_weights,
        "vqgan": lambda path: load_vqgan(yaml, path),
        "vq_vae": load_vq_vae,
        "source": read_source,
        "complete": read,
        "folder": in_folder("pytorch_model.bin", read_source),
        "label": read_label_file,
        "label_json": read_label_file,
        "frequencies": read_document_frequencies,
        "index": index,
        "plain": lambda path: read_plain(path, "a list"),
        "yaml": read_config,
        "mixture": lambda path: read_members(str(path), {}),
        "results": read_predictions,
        "config": in_folder("pytorch_model.bin.index.json", read_source),
        "statistics": lambda path: read_statistics(path, 4),
    }


def put(path: Path, place: Path) -> None:
    """The file in another place, where a reader looks for it."""
    was, watch.on = watch.on, False
    place.unlink(missing_ok=True)
    place.hardlink_to(path)
    watch.on = was


def warm_up(folder: Path, reading: dict) -> None:
    """Read a good file of each kind, so that whatever is imported later is an event."""
    tensors = {"a": torch.zeros(2)}
    torch.save(tensors, folder / "good.pt")
    torch.save(tensors, folder / "good_old.pt", _use_new_zipfile_serialization=False)
    write_tensors(tensors, folder / "good.safetensors")
    (folder / "good.pkl").write_bytes(pickle.dumps({"a": 1}))
    (folder / "good.json").write_text("{")
    codecs.lookup("cp437")  # of the names in archives
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):  # Python's own, of marked JSON files
        codecs.lookup(encoding)
    (folder / "bad.npz").write_bytes(b"")
    for reader in reading.values():
        for path in folder.glob("good*"):
            try:
                reader(path)
            except UserError:
                pass


def watch(happened: list, folder: str) -> None:
    """Note forbidden events. The hook stays to the end of the process.

    One file is written by a reader: the index of a TSV, ``rows.tsv.idx``, made from the TSV when
    its ``.index`` is no good.
    """

    def hook(event: str, args: tuple) -> None:
        if not watch.on:
            return
        writes = event == "open" and (
            isinstance(args[1], str)
            and set(args[1]) & set("wax+")
            or isinstance(args[2], int)
            and args[2] & WRITING
        )
        own = watch.case.startswith("index") and (
            event.startswith("tempfile.")
            or isinstance(args[0], int)
            or str(args[0]).startswith(folder)
        )
        if (writes or event.startswith(FORBIDDEN)) and not own:
            happened.append((watch.case, event, repr(args)[:200]))

    sys.addaudithook(hook)


def main(folder: Path, report: Path) -> None:
    faulthandler.enable()
    marker = folder / "marker"
    made = folder / "made"
    made.mkdir()
    reading = readers(folder)
    warm_up(folder, reading)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + LIMIT,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    happened, outcomes, wrong, slowest = [], Counter(), [], (0.0, "")
    watch(happened, str(folder))
    for case in malicious_files(made, marker):
        watch.case = f"{case.reader} {case.path.name}"
        outcome, seconds = attempt(case, reading[case.reader])
        outcomes[f"{case.reader} {outcome.partition(':')[0]}"] += 1
        slowest = max(slowest, (seconds, watch.case))
        if outcome.startswith("FAULT"):
            wrong.append([watch.case, outcome])
        else:
            case.path.unlink()
    found = {"wrong": wrong, "happened": list(happened), "marker": marker.exists()}
    happened.clear()
    watch.case, watch.on = "Python's own reader", True
    pickle.loads(dict(calls(f"touch {marker} #"))["reduce_2-posix.system"])
    watch.on = False
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    report.write_text(
        json.dumps(
            {
                "files": sum(outcomes.values()),
                "outcomes": outcomes,
                "slowest": slowest,
                "peak_mb": peak / 1024,
                "control": [event for _, event, _ in happened] + [marker.exists()],
                **found,
            }
        )
    )


def attempt(case: Case, read) -> tuple[str, float]:
    """What a reader made of a file, and how long it took."""
    watch.on = True
    started = time.monotonic()
    try:
        value = read(case.path)
        outcome = f"value:{type(value).__name__}"
    except UserError as error:
        outcome = (
            f"refused:{error}"
            if "\n" not in str(error) and len(str(error)) < 2000
            else "FAULT: several lines, or a page"
        )
    except BaseException as error:
        outcome = f"FAULT: {type(error).__name__} {str(error)[:200]}"
    watch.on = False
    return outcome, time.monotonic() - started


watch.on, watch.case = False, ""

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
