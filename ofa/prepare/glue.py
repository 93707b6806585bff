"""GLUE, as its authors ship it (one folder of TSVs per task) or as a ``datasets`` folder on disk ->
rows of the seven tasks.

    CoLA/train.tsv    gj04 <tab> 1 <tab> <tab> Our friends won't buy this analysis.
                      -> 0 <tab> Our friends ... <tab> 1
    mnli/ (datasets)  premise, hypothesis, label 0 of (entailment, neutral, contradiction)
                      -> premise <tab> hypothesis <tab> 1

Labels are converted by name: their numbers differ between distributions (``ofa.tasks.glue``). Test
rows have none; they all stay, in their order, because a submission numbers them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.text_files import read_lines
from ofa.io.values import RowError, one_line, text_of
from ofa.prepare.prepared_dataset import Problems
from ofa.prepare.text_files import Reader, files_below, is_hugging_face, open_hugging_face

UNDECIDED = "-"  # the annotators did not agree; such rows are left out
SPLITS = ("train", "dev", "test")
MNLI_SPLITS = ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")
NUMBERS = ("index", "id")  # columns that number the rows of a test file


@dataclass(frozen=True)
class GlueSource:
    """How a task is distributed.

    Args:
        folder: of the original files. texts, label: their columns. saved: text columns of the
            ``datasets`` folder, if other ones.
        labels: name of a label -> as the task's file has it; originals may have that itself.
        leading: columns of the task's file before the texts; the first is the number of the row.
        plain: columns of original training files, which have no header.
    """

    folder: str
    texts: tuple[str, ...]
    label: str
    labels: Mapping[str, str]
    leading: int = 0
    saved: tuple[str, ...] = ()
    splits: tuple[str, ...] = SPLITS
    plain: tuple[str, ...] = ()


ENTAILED = {"entailment": "entailment", "not_entailment": "not_entailment"}
SOURCES = {
    "cola": GlueSource(
        "CoLA",
        ("sentence",),
        "label",
        {"unacceptable": "0", "acceptable": "1"},
        1,
        plain=("source", "label", "mark", "sentence"),
    ),
    "mnli": GlueSource(
        "MNLI",
        ("sentence1", "sentence2"),
        "gold_label",
        {"neutral": "0", "entailment": "1", "contradiction": "2"},
        saved=("premise", "hypothesis"),
        splits=MNLI_SPLITS,
    ),
    "mrpc": GlueSource(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        {"not_equivalent": "0", "equivalent": "1"},
        saved=("sentence1", "sentence2"),
    ),
    "qnli": GlueSource("QNLI", ("question", "sentence"), "label", ENTAILED, 1),
    "qqp": GlueSource(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        {"not_duplicate": "0", "duplicate": "1"},
        3,
    ),
    "rte": GlueSource("RTE", ("sentence1", "sentence2"), "label", ENTAILED, 1),
    "sst2": GlueSource("SST-2", ("sentence",), "label", {"negative": "0", "positive": "1"}),
}
# whose original labels are the numbers of the task's files
NUMBERED = ("cola", "mrpc", "qqp", "sst2")


@dataclass
class FoundTask:
    """Args: inputs: files that are read. files: name -> reader of its rows."""

    name: str
    inputs: list[str]
    files: dict[str, Reader] = field(default_factory=dict)


def find_tasks(folder: str, names: Sequence[str]) -> list[FoundTask]:
    """The tasks in a folder of folders, or the one task whose folder it is.

    Args: names: of the tasks; none: those that are there.
    Raises: UserError if one is missing or there is none.
    """
    if not Path(folder).is_dir():
        raise UserError(
            f"{folder}: expected a folder with the files of GLUE, found none; check --data"
        )
    places = {
        plain_name(path.name): path for path in sorted(Path(folder).iterdir()) if path.is_dir()
    }
    if len(names) == 1 and (is_hugging_face(folder) or any(Path(folder).glob("*.tsv"))):
        places = {names[0]: Path(folder)}
    chosen = list(names) or [name for name in SOURCES if name in places]
    missing = [name for name in chosen if name not in places]
    if missing or not chosen:
        wanted = [f"{SOURCES[name].folder} or {name}" for name in missing or SOURCES]
        raise UserError(
            f"{folder}: expected folders {', '.join(wanted)}, found"
            f" {', '.join(p.name for p in places.values()) or 'none'}; give the folder that holds"
            " them, or of one task its own folder and --tasks NAME"
        )
    return [find_task(name, places[name]) for name in chosen]


def plain_name(folder: str) -> str:
    """``SST-2`` -> ``sst2``."""
    return "".join(letter for letter in folder.lower() if letter.isalnum())


def find_task(name: str, place: Path) -> FoundTask:
    """One task, of either distribution. Raises: UserError if it has no training or validation
    rows."""
    source = SOURCES[name]
    if is_hugging_face(place):
        splits = open_hugging_face(place)
        of_split = {split: split.replace("dev", "validation") for split in source.splits}
        readers = {
            split: partial(
                saved_rows, name, f"{place}/{saved}", splits[saved], split.startswith("test")
            )
            for split, saved in of_split.items()
            if saved in splits
        }
        found = FoundTask(name, files_below(place))
    else:
        paths = {
            split: place / f"{split}.tsv"
            for split in source.splits
            if (place / f"{split}.tsv").is_file()
        }
        readers = {
            split: partial(original_rows, name, str(path), split.startswith("test"))
            for split, path in paths.items()
        }
        found = FoundTask(name, [str(path) for path in paths.values()])
    for split in source.splits[:2]:
        if split not in readers:
            raise UserError(
                f"{place}: expected {', '.join(f'{split}.tsv' for split in source.splits)} or a"
                f" folder of save_to_disk with such splits, found none for '{split}'; is the"
                " download complete?"
            )
    found.files = {f"{name}_{split}.tsv": reader for split, reader in readers.items()}
    return found


def original_rows(
    name: str, path: str, test: bool, problems: Problems
) -> Iterator[tuple[str, ...]]:
    """Rows of an original TSV. Quotes in it are text."""
    source, number = SOURCES[name], 0
    labels = {
        **source.labels,
        **({label: label for label in source.labels.values()} if name in NUMBERED else {}),
    }
    columns: dict[str, int] = (
        {column: place for place, column in enumerate(source.plain)} if not test else {}
    )
    for line, text in enumerate(read_lines(path), start=1):
        cells = text.split("\t")
        if not columns:
            columns = header_of(source, path, cells, test)
            continue
        where, wanted = f"{path}:{line}", [*source.texts, *([] if test else [source.label])]
        lacking = [column for column in wanted if columns[column] >= len(cells)]
        if lacking:
            report(
                problems,
                test,
                f"{where}: expected {max(columns.values()) + 1} columns, found {len(cells)}, none"
                f" for '{lacking[0]}'",
            )
            continue
        index = next(
            (cells[columns[column]] for column in NUMBERS if test and column in columns), None
        )
        if index not in (None, str(number)):
            raise UserError(
                f"{where}: expected the row numbered {number}, found {index!r}; test rows are"
                " numbered in their order: take the file as it was downloaded"
            )
        label = "" if test else cells[columns[source.label]].strip()
        found = row_of(
            source,
            where,
            number,
            [cells[columns[column]] for column in source.texts],
            label,
            labels,
            problems,
            test,
        )
        number += 1
        if found is not None:
            yield found


def header_of(source: GlueSource, path: str, cells: Sequence[str], test: bool) -> dict[str, int]:
    """Column name -> number. Raises: UserError if a column is missing."""
    columns = {cell.strip(): place for place, cell in enumerate(cells)}
    missing = [
        column
        for column in (*source.texts, *([] if test else [source.label]))
        if column not in columns
    ]
    if missing:
        raise UserError(
            f"{path}:1: expected a header with the columns"
            f" {', '.join(source.texts)}{'' if test else ' and ' + source.label}, found none called"
            f" '{missing[0]}' among {', '.join(columns)[:200]}; is it the file of another task?"
        )
    return columns


def saved_rows(
    name: str, where: str, rows: Any, test: bool, problems: Problems
) -> Iterator[tuple[str, ...]]:
    """Rows of a split of a ``datasets`` folder."""
    source = SOURCES[name]
    texts = source.saved or source.texts
    missing = [
        column
        for column in (*texts, *([] if test else ["label"]))
        if column not in rows.column_names
    ]
    if missing:
        raise UserError(
            f"{where}: expected the columns {', '.join(texts)} and label, found"
            f" {', '.join(rows.column_names)}; is it the data set of task '{name}'?"
        )
    names = label_names(where, rows) if "label" in rows.column_names else None
    for number, row in enumerate(rows):
        here, label = f"{where}: row {number}", row.get("label")
        if names is not None and label is not None:
            label = "" if label == -1 else names[label] if 0 <= label < len(names) else str(label)
        try:
            words = [text_of(row[text], f"a text as {text!r}") for text in texts]
        except RowError as error:
            report(problems, test, f"{here}: expected {error}")
            continue
        found = row_of(source, here, number, words, label or "", source.labels, problems, test)
        if found is not None:
            yield found


def label_names(where: str, rows: Any) -> list[str] | None:
    """Names of the labels by number; None if they stand as words. Raises: UserError for numbers
    without names."""
    feature = rows.features["label"]
    if getattr(feature, "names", None):
        return list(feature.names)
    if getattr(feature, "dtype", "") == "string":
        return None
    raise UserError(
        f"{where}: expected labels with names (ClassLabel), found plain numbers ({feature}); what"
        " they mean differs between distributions: save the data set with its features, or with"
        " the names as text"
    )


def row_of(
    source: GlueSource,
    where: str,
    number: int,
    texts: Sequence[str],
    label: str,
    labels: Mapping[str, str],
    problems: Problems,
    test: bool,
) -> tuple[str, ...] | None:
    """The columns of a row, which of a test file may lack its label; None if it is undecided or
    wrong, which is added to the problems."""
    words = [one_line(text) for text in texts]
    if label == UNDECIDED:
        return None
    if label or not test:
        if label not in labels:
            problems.add(f"{where}: expected a label ({', '.join(labels)}), found {label!r}")
            return None
        if not all(words):
            problems.add(f"{where}: expected words in every text, found an empty one")
            return None
    leading = (str(number), *[""] * (source.leading - 1)) if source.leading else ()
    return *leading, *words, labels.get(label, "")


def report(problems: Problems, test: bool, message: str) -> None:
    """Raises: UserError at once for a test row, which cannot be skipped."""
    if test:
        raise UserError(f"{message}; a test row cannot be skipped: fix it")
    problems.add(message)
