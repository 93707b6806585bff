"""Texts and their summaries, one per line of two files, or a ``datasets`` folder on disk -> rows
``source, target``.

Known files of a folder: those of Gigaword's summaries as they are passed around
(``train.article.txt`` and ``train.title.txt``, ``train.src.txt`` and ``train.tgt.txt``, ...).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.text_files import read_lines
from ofa.io.values import RowError, one_line, text_of
from ofa.prepare.prepared_dataset import Problems
from ofa.prepare.text_files import Reader, files_below, is_hugging_face, open_hugging_face

SPLITS = ("train", "dev", "test")
KNOWN = {
    "train": (
        ("train.article.txt", "train.title.txt"),
        ("train.src.txt", "train.tgt.txt"),
        ("train.src", "train.tgt"),
    ),
    "dev": (
        ("valid.article.filter.txt", "valid.title.filter.txt"),
        ("valid.article.txt", "valid.title.txt"),
        ("dev.src.txt", "dev.tgt.txt"),
        ("valid.src", "valid.tgt"),
        ("dev.src", "dev.tgt"),
    ),
    "test": (
        ("input.txt", "task1_ref0.txt"),
        ("test.src.txt", "test.tgt.txt"),
        ("test.src", "test.tgt"),
    ),
}
SAVED = {"train": "train", "dev": "validation", "test": "test"}
COLUMNS = ("document", "summary")


def find_summaries(
    folder: str | None, pairs: Mapping[str, Sequence[str]]
) -> tuple[list[str], dict[str, Reader]]:
    """Files that are read, and the reader of each file to write.

    Args: folder: with known files, or of save_to_disk. pairs: split -> file of the texts, file of
    their summaries.
    Raises: UserError if there is nothing to read.
    """
    if folder is not None and is_hugging_face(folder):
        splits = open_hugging_face(folder)
        readers = {
            split: partial(saved_rows, f"{folder}/{saved}", splits[saved])
            for split, saved in SAVED.items()
            if saved in splits
        }
        return files_below(folder), named(readers, folder)
    pairs = {**known_pairs(folder), **pairs} if folder is not None else pairs
    readers = {
        split: partial(paired_rows, split, texts, summaries)
        for split, (texts, summaries) in pairs.items()
    }
    return [str(path) for files in pairs.values() for path in files], named(
        readers, folder or "--train"
    )


def named(readers: Mapping[str, Reader], where: str) -> dict[str, Reader]:
    if not readers:
        raise UserError(
            f"{where}: expected texts and summaries, found none; give the folder as --data, or two"
            " files of lines as --train, --dev and --test"
        )
    return {f"gigaword_{split}.tsv": readers[split] for split in SPLITS if split in readers}


def known_pairs(folder: str) -> dict[str, tuple[str, str]]:
    """Split -> two files that are there. Raises: UserError if there is no known pair."""
    places = [Path(folder), *sorted(path for path in Path(folder).glob("*") if path.is_dir())]
    found = {}
    for split, names in KNOWN.items():
        there = [
            (place / a, place / b)
            for place in places
            for a, b in names
            if (place / a).is_file() and (place / b).is_file()
        ]
        if there:
            found[split] = (str(there[0][0]), str(there[0][1]))
    if not found:
        examples = " and ".join(KNOWN["train"][0])
        raise UserError(
            f"{folder}: expected files such as {examples}, or a folder of save_to_disk, found none;"
            " name the files: --train TEXTS SUMMARIES"
        )
    return found


def paired_rows(
    split: str, texts: str, summaries: str, problems: Problems
) -> Iterator[tuple[str, str]]:
    """Line for line. Raises: UserError if the files differ in length."""
    second = read_lines(summaries)
    for number, text in enumerate(read_lines(texts), start=1):
        summary = next(second, None)
        if summary is None:
            raise UserError(
                f"{summaries}: expected a summary for each line of {texts}, found {number - 1}; do"
                " the files belong together?"
            )
        yield from checked(text, summary, f"{texts}:{number}", split, problems)
    if next(second, None) is not None:
        raise UserError(
            f"{texts}: expected a text for each line of {summaries}, found fewer; do the files"
            " belong together?"
        )


def saved_rows(where: str, rows: Any, problems: Problems) -> Iterator[tuple[str, str]]:
    missing = [column for column in COLUMNS if column not in rows.column_names]
    if missing:
        raise UserError(
            f"{where}: expected the columns {' and '.join(COLUMNS)}, found"
            f" {', '.join(rows.column_names)}"
        )
    for number, row in enumerate(rows):
        split = Path(where).name
        try:
            text = text_of(row["document"], "a text")
            summary = (
                ""
                if split == "test" and row["summary"] is None
                else text_of(row["summary"], "a summary")
            )
        except RowError as error:
            problems.add(f"{where}: row {number}: expected {error}")
            continue
        yield from checked(text, summary, f"{where}: row {number}", split, problems)


def checked(
    text: str, summary: str, where: str, split: str, problems: Problems
) -> Iterator[tuple[str, str]]:
    """The row, if it has both; test rows may be without a summary."""
    text, summary = one_line(text), one_line(summary)
    if not text or (not summary and split != "test"):
        problems.add(f"{where}: expected a {'summary' if text else 'text'}, found an empty line")
        return
    yield text, summary
