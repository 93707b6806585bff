"""Texts and their summaries, one per line of two files, or a Hugging Face dataset -> rows
``source, target``."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.text_files import read_lines
from ofa.io.values import RowError, one_line, text_of
from ofa.prepare.annotations import Entry, Problems
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.hugging_face import split_rows, split_tables
from ofa.prepare.source import TextOptions, source

KNOWN = {  # split -> how its two files are called, in the copies that are passed around
    "train": "train.article.txt train.title.txt  train.src.txt train.tgt.txt  train.src train.tgt",
    "dev": "valid.article.filter.txt valid.title.filter.txt  valid.article.txt valid.title.txt"
    "  dev.src.txt dev.tgt.txt  valid.src valid.tgt  dev.src dev.tgt",
    "test": "input.txt task1_ref0.txt  test.src.txt test.tgt.txt  test.src test.tgt",
}
SAVED = {"train": "train", "dev": "validation", "test": "test"}
FILES = ("TEXTS", "SUMMARIES")
LINES = "texts and their summaries, one per line in both files"


@dataclass(frozen=True, kw_only=True)
class GigawordOptions(TextOptions):
    data: str | None = option(None, "folder of such files, or of a Hugging Face dataset")
    train: tuple[str, str] | None = option(None, LINES, metavar=FILES)
    dev: tuple[str, str] | None = option(None, LINES, metavar=FILES)
    test: tuple[str, str] | None = option(None, LINES, metavar=FILES)


@source(GigawordOptions, "gigaword")
def read_gigaword(options: GigawordOptions, problems: Problems) -> PreparedDataset:
    """The splits that are given, or lie in the folder.

    Writes gigaword_train.tsv, gigaword_dev.tsv, gigaword_test.tsv (of the files that are given) and
    manifest.json.

    example: ofa prepare gigaword --train train.article.txt train.title.txt --dev
    valid.article.filter.txt valid.title.filter.txt --test input.txt task1_ref0.txt --out
    dataset/gigaword_data
    """
    data, found = options.data, PreparedDataset()
    saved = split_tables(data) if data else {}
    known = known_pairs(data) if data and not saved else {}
    for split, name in SAVED.items():
        read: Callable[[], Iterator[Entry]]
        if pair := getattr(options, split) or known.get(split):
            files, read = pair, partial(paired_lines, *pair)
        elif files := saved.get(name, []):
            read = partial(split_rows, f"{data}/{name}", files, ("document", "summary"))
        if files:
            found.inputs = [*found.inputs, *files]
            found.readers[f"gigaword_{split}.tsv"] = partial(rows_of, split, read)
    if not found.readers:
        raise UserError(
            f"{data or '--train'}: expected texts and summaries, found none; give the folder as"
            " --data, or two files of lines as --train, --dev and --test"
        )
    return found


def known_pairs(folder: str) -> dict[str, tuple[str, str]]:
    """Split -> two files that are there. Raises: UserError if there is no known pair."""
    places = [Path(folder), *sorted(path for path in Path(folder).glob("*") if path.is_dir())]
    found: dict[str, tuple[str, str]] = {}
    for split, text in KNOWN.items():
        names = text.split()
        for place, pair in itertools.product(places, zip(names[::2], names[1::2])):
            texts, summaries = (place / name for name in pair)
            if texts.is_file() and summaries.is_file():
                found.setdefault(split, (str(texts), str(summaries)))
    if not found:
        examples = " and ".join(KNOWN["train"].split()[:2])
        raise UserError(
            f"{folder}: expected files such as {examples}, or a Hugging Face dataset, found none;"
            " name the files: --train TEXTS SUMMARIES"
        )
    return found


def paired_lines(texts: str, summaries: str) -> Iterator[Entry]:
    """Line for line. Raises: UserError if the files differ in length."""
    lines = itertools.zip_longest(read_lines(texts), read_lines(summaries))
    for number, (text, summary) in enumerate(lines, start=1):
        if text is None or summary is None:
            long, short = (texts, summaries) if summary is None else (summaries, texts)
            raise UserError(
                f"{short}: expected a line for each line of {long}, found {number - 1}; do the"
                " files belong together?"
            )
        yield Entry({"document": text, "summary": summary}, f"{texts}:{number}")


def rows_of(
    split: str, read: Callable[[], Iterator[Entry]], problems: Problems
) -> Iterator[tuple[str, str]]:
    """Rows of the test split may be without a summary."""
    for entry in read():
        with problems.at(entry.where):
            summary = "" if split == "test" and entry["summary"] is None else entry["summary"]
            text = one_line(text_of(entry["document"], "a text"))
            summary = one_line(text_of(summary, "a summary"))
            if not text or (not summary and split != "test"):
                raise RowError(f"a {'summary' if text else 'text'}, found an empty line")
            yield text, summary
