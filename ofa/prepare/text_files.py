"""Data sets of texts alone: rows are read twice, once to find what is wrong with them and once
to write them."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.resumable import MANIFEST, ResumableFolder, fingerprint
from ofa.prepare.prepared_dataset import Problems
from ofa.prepare.write_dataset import sha256_of

logger = logging.getLogger(__name__)

VERSION = 1
# rows of a file; what is wrong with others is added to the problems
Reader = Callable[[Problems], Iterator[Sequence[str]]]


def prepare_texts(
    kind: str,
    out: str,
    inputs: Sequence[str],
    settings: Mapping[str, Any],
    files: Mapping[str, Reader],
    skip_broken: bool,
    manifest: str = MANIFEST,
) -> ResumableFolder:
    """Write the files of a data set; nothing is written if a row is wrong.

    Args:
        inputs: files that were read. settings: what else decides the rows. files: name -> reader of
            its rows.
        skip_broken: leave wrong rows out instead of stopping.
    Raises: UserError that names the wrong rows, or a file without any row.
    """
    seen = {path: {"bytes": os.path.getsize(path), "sha256": sha256_of(path)} for path in inputs}
    plan = fingerprint(kind, VERSION, seen, settings, sorted(files), skip_broken)
    folder = ResumableFolder(out, plan, f"ofa prepare {kind}", manifest=manifest)
    if folder.is_finished():
        logger.info("%s: already complete", folder.folder)
        return folder
    problems = Problems(skip_broken)
    counts = {name: sum(1 for _ in read(problems)) for name, read in files.items()}
    problems.settle()
    for name, count in counts.items():
        if not count:
            raise UserError(
                f"{', '.join(inputs[:3])}: expected rows for {name}, found none; are these the"
                " right files?"
            )
    folder.make()
    folder.note(settings=dict(settings), inputs=seen)
    for name, read in files.items():
        folder.write_lines(name, ("\t".join(row) for row in read(Problems(skip=True))))
    folder.save_manifest(finished=True, rows_left_out=len(problems.messages))
    return folder


# --------------------------------------------------------------------------- datasets of Hugging
# Face, as saved on disk


def is_hugging_face(folder: str | Path) -> bool:
    return (Path(folder) / "dataset_dict.json").is_file()


def open_hugging_face(folder: str | Path) -> Mapping[str, Any]:
    """Split -> dataset, of a folder written by ``DatasetDict.save_to_disk``.

    Raises: UserError if it cannot be read or the library is missing.
    """
    try:
        from datasets import load_from_disk
    except ImportError:
        raise UserError(
            f"{folder}: reading it needs the library 'datasets'; install it (pip install datasets),"
            " or give the original files"
        ) from None
    try:
        return load_from_disk(str(folder))
    except Exception as error:  # whatever is wrong with its files: the library raises many kinds
        raise UserError(
            f"{folder}: expected a folder of save_to_disk, found one that cannot be read ({error});"
            " save it again"
        ) from None


def files_below(folder: str | Path) -> list[str]:
    """Every file of a saved data set, in order."""
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())
