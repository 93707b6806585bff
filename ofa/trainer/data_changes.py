"""A resumed run says so when its training data is no longer what it was.

A checkpoint keeps, for every training file that was opened so far, its rows, its bytes and a digest
of a sample of its content (``ofa.io.fingerprint``), under the task's name for the file and its
number among several that are taken in turn::

    extra_state["training_data"] = {"files": {"train": 2}, "read": {"train 1": {
        "path": "a.tsv", "rows": 21, "bytes": 9130, "sample": "5d0f..."}}}

Paths may change: a copy is the same data.
"""

import logging
from collections.abc import Mapping
from typing import Any

from ofa.data.rows import Rows, open_rows
from ofa.errors import UserError
from ofa.io.fingerprint import sample_digest, total_bytes

logger = logging.getLogger(__name__)

STATE = "training_data"  # in a checkpoint's extra_state


def describe(rows: Rows) -> dict[str, Any]:
    paths = paths_of(rows)
    size, sample = total_bytes(paths), sample_digest(paths)
    return {"path": str(rows.path), "rows": len(rows), "bytes": size, "sample": sample}


def paths_of(rows: Rows) -> list[str]:
    return getattr(rows, "shards", [rows.path])


def opened_files(task, dataset, epoch: int, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps once files are opened. Args: known: what it kept before."""
    if not hasattr(task, "training_files") or not hasattr(dataset, "row_files"):
        return dict(known)
    files = {name: len(paths) for name, paths in task.training_files().items()}
    opened = {
        f"{name} {(epoch - 1) % files[name] + 1}": describe(rows)
        for name, rows in dataset.row_files().items()
    }
    return {"files": files, "read": {**known.get("read", {}), **opened}}


def check_unchanged(trainer, stored: Mapping[str, Any]) -> None:
    """Compare the training files with those of the checkpoint that a run resumes from.

    Args: stored: as above; empty in checkpoints that do not tell.
    Raises: UserError that says what changed, unless --allow-changed-data was given.
    """
    if not stored or not hasattr(trainer.task, "training_files"):
        return
    found = changes(trainer.task.training_files(), stored)
    if not found:
        trainer.training_data = dict(stored)
    elif not getattr(trainer.cfg.checkpoint, "allow_changed_data", False):
        raise UserError(
            f"{found[0]}. Restore the data, resume with it as it is by --allow-changed-data, or"
            " start over by FRESH=1 or another --save-dir"
        )
    for change in found:
        logger.warning("%s; resuming as --allow-changed-data says", change)


def changes(files: Mapping[str, list[str]], stored: Mapping[str, Any]) -> list[str]:
    """What is no longer as a checkpoint says. Args: files: name -> paths that are taken in turn."""
    counts = {name: len(paths) for name, paths in files.items()}
    if counts != stored["files"]:
        before, now = in_words(stored["files"]), in_words(counts)
        return [f"training data: expected {before} as before, found {now}"]
    read = stored["read"]
    found = (
        change_of(path, read[f"{name} {number}"])
        for name, paths in files.items()
        for number, path in enumerate(paths, 1)
        if f"{name} {number}" in read
    )
    return list(filter(None, found))


def in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count} file{'s' * (count != 1)} for {name}" for name, count in counts.items()
    )


def change_of(path: str, entry: Mapping[str, Any]) -> str:
    """What changed in a training file, if anything. Raises: UserError if it cannot be opened."""
    rows = open_rows(path)
    paths, before = paths_of(rows), entry["bytes"]
    size = total_bytes(paths)
    if size >= before and sample_digest(paths, before) == entry["sample"]:
        if size == before:
            return ""
        found = "more of them at its end"
    elif size < before:
        found = "a shorter file"
    else:
        found = "other content" + " of the same size" * (size == before)
    return (
        f"{path}: expected the {entry['rows']} rows ({before} bytes) that this run has trained on,"
        f" found {found}: {len(rows)} rows ({size} bytes)"
    )
