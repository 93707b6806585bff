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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.text_files import read_lines
from ofa.io.values import RowError, one_line, text_of
from ofa.prepare.annotations import Problems, one_of
from ofa.prepare.dataset import PreparedDataset, Reader
from ofa.prepare.hugging_face import files_below, is_saved, open_saved, saved_rows
from ofa.prepare.source import Source, TextOptions

UNDECIDED = "-"  # the annotators did not agree; such rows are left out
Row = tuple[str, ...]
NUMBERS = ("index", "id")  # columns that number the rows of a test file


@dataclass(frozen=True)
class GlueSource:
    """How a task is distributed.

    Args:
        folder: of the original files. texts, label: their columns. saved: text columns of the
            ``datasets`` folder, if other ones.
        labels: name of a label -> as the task's file has it. numbered: originals have that itself.
        leading: columns of the task's file before the texts; the first is the number of the row.
        header: of original training files, if they have none themselves.
    """

    folder: str
    texts: tuple[str, ...]
    label: str
    labels: Mapping[str, str]
    numbered: bool = False
    leading: int = 0
    saved: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train", "dev", "test")
    header: tuple[str, ...] = ()


SENTENCES = ("sentence1", "sentence2")
ENTAILED = {"entailment": "entailment", "not_entailment": "not_entailment"}
TASKS = {
    "cola": GlueSource(
        "CoLA",
        ("sentence",),
        "label",
        {"unacceptable": "0", "acceptable": "1"},
        numbered=True,
        leading=1,
        header=("source", "label", "mark", "sentence"),
    ),
    "mnli": GlueSource(
        "MNLI",
        SENTENCES,
        "gold_label",
        {"neutral": "0", "entailment": "1", "contradiction": "2"},
        saved=("premise", "hypothesis"),
        splits=("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"),
    ),
    "mrpc": GlueSource(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        {"not_equivalent": "0", "equivalent": "1"},
        numbered=True,
        saved=SENTENCES,
    ),
    "qnli": GlueSource("QNLI", ("question", "sentence"), "label", ENTAILED, leading=1),
    "qqp": GlueSource(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        {"not_duplicate": "0", "duplicate": "1"},
        numbered=True,
        leading=3,
    ),
    "rte": GlueSource("RTE", SENTENCES, "label", ENTAILED, leading=1),
    "sst2": GlueSource(
        "SST-2", ("sentence",), "label", {"negative": "0", "positive": "1"}, numbered=True
    ),
}


@dataclass(frozen=True, kw_only=True)
class GlueOptions(TextOptions):
    """Folders of GLUE."""

    data: str = option(help="folder of the tasks' folders; with one --tasks also that task's own")
    tasks: tuple[str, ...] = option(
        (), "tasks to prepare, if not all that are there", choices=tuple(TASKS)
    )


def read_glue(options: GlueOptions, problems: Problems) -> list[PreparedDataset]:
    """Every task by itself: what is finished stays when another is added."""
    return [read_task(name, place) for name, place in find_tasks(options).items()]


def find_tasks(options: GlueOptions) -> dict[str, Path]:
    """The tasks in a folder of folders, or the one task whose folder it is, and their places.

    Raises: UserError if one is missing or there is none.
    """
    folder, names = Path(options.data), options.tasks
    if not folder.is_dir():
        raise UserError(
            f"{folder}: expected a folder with the files of GLUE, found none; check --data"
        )
    places = {plain_name(path.name): path for path in sorted(folder.iterdir()) if path.is_dir()}
    if len(names) == 1 and (is_saved(folder) or any(folder.glob("*.tsv"))):
        places = {names[0]: folder}
    chosen = names or [name for name in TASKS if name in places]
    missing = [name for name in chosen if name not in places]
    if missing or not chosen:
        wanted = missing or TASKS
        listed = ", ".join(f"{TASKS[name].folder} or {name}" for name in wanted)
        raise UserError(
            f"{folder}: expected folders {listed}, found"
            f" {', '.join(path.name for path in places.values()) or 'none'}; give the folder that"
            " holds them, or of one task its own folder and --tasks NAME"
        )
    return {name: places[name] for name in chosen}


def plain_name(folder: str) -> str:
    """``SST-2`` -> ``sst2``."""
    return "".join(letter for letter in folder.lower() if letter.isalnum())


class TestProblems(Problems):
    """Of a test file: its rows are numbered by a submission, none may be skipped."""

    def add(self, message: str) -> None:
        raise UserError(f"{message}; a test row cannot be skipped: fix it")


def read_task(name: str, place: Path) -> PreparedDataset:
    """One task, of either distribution. Raises: UserError if it has no training or validation
    rows."""
    source, readers = TASKS[name], dict[str, Reader]()
    saved = open_saved(place) if is_saved(place) else {}
    for split in source.splits:
        path, kept = place / f"{split}.tsv", split.replace("dev", "validation")
        if kept in saved:
            where = f"{place}/{kept}"
            readers[split] = partial(saved_rows_of, source, where, split, saved[kept])
        elif not saved and path.is_file():
            readers[split] = partial(original_rows, source, str(path), split)
    for split in source.splits[:2]:
        if split not in readers:
            raise UserError(
                f"{place}: expected {', '.join(f'{split}.tsv' for split in source.splits)} or a"
                f" folder of save_to_disk with such splits, found none for '{split}'; is the"
                " download complete?"
            )
    return PreparedDataset(
        readers={f"{name}_{split}.tsv": reader for split, reader in readers.items()},
        inputs=files_below(place) if saved else [f"{place}/{split}.tsv" for split in readers],
        settings={"task": name},
        manifest=f"manifest_{name}.json",
    )


def original_rows(source: GlueSource, path: str, split: str, problems: Problems) -> Iterator[Row]:
    """Rows of an original TSV. Quotes in it are text."""
    test = split.startswith("test")
    problems = TestProblems(skip=False) if test else problems
    labels = {**source.labels}
    labels |= {label: label for label in source.labels.values()} if source.numbered else {}
    needs = source.texts if test else (*source.texts, source.label)
    lines = enumerate(read_lines(path), start=1)
    header = source.header
    if test or not header:
        header = tuple(cell.strip() for cell in next(lines, (1, ""))[1].split("\t"))
    missing = [column for column in needs if column not in header]
    if missing:
        raise UserError(
            f"{path}:1: expected a header with the columns {', '.join(needs)}, found none called"
            f" '{missing[0]}' among {', '.join(header)[:200]}; is it the file of another task?"
        )
    for number, (line, text) in enumerate(lines):
        where, cells = f"{path}:{line}", text.split("\t")
        values = dict(zip(header, cells))
        with problems.at(where):
            for column in needs:
                if column not in values:
                    most = f"{len(header)} columns, found {len(cells)}"
                    raise RowError(f"{most}, none for '{column}'")
            index = next((values[name] for name in NUMBERS if test and name in values), None)
            if index not in (None, str(number)):
                raise UserError(
                    f"{where}: expected the row numbered {number}, found {index!r}; test rows are"
                    " numbered in their order: take the file as it was downloaded"
                )
            label = "" if test else values[source.label].strip()
            texts = [values[column] for column in source.texts]
            yield from row_of(source, number, texts, label, labels, test)


def saved_rows_of(
    source: GlueSource, where: str, split: str, rows: Any, problems: Problems
) -> Iterator[Row]:
    """Rows of a split of a ``datasets`` folder."""
    test = split.startswith("test")
    problems = TestProblems(skip=False) if test else problems
    columns = source.saved or source.texts
    names = label_names(where, rows) if "label" in rows.column_names else None
    for number, row in enumerate(saved_rows(where, rows, columns if test else (*columns, "label"))):
        with problems.at(row.where):
            label = row.get("label")
            if names is not None and label is not None:
                label = names.get(label, str(label))
            texts = [text_of(row[column], f"a text as {column!r}") for column in columns]
            yield from row_of(source, number, texts, label or "", source.labels, test)


def label_names(where: str, rows: Any) -> dict[int, str] | None:
    """Number -> name of a label, -1 for none; None if they stand as words. Raises: UserError for
    numbers without names."""
    feature = rows.features["label"]
    if getattr(feature, "names", None):
        return {-1: "", **dict(enumerate(feature.names))}
    if getattr(feature, "dtype", "") == "string":
        return None
    raise UserError(
        f"{where}: expected labels with names (ClassLabel), found plain numbers ({feature}); what"
        " they mean differs between distributions: save the data set with its features, or with"
        " the names as text"
    )


def row_of(
    source: GlueSource,
    number: int,
    texts: Sequence[str],
    label: str,
    labels: Mapping[str, str],
    test: bool,
) -> Iterator[Row]:
    """The columns of a row, which of a test file may lack its label; nothing if it is undecided.
    Raises: RowError."""
    words = [one_line(text) for text in texts]
    if label == UNDECIDED:
        return
    if label or not test:
        one_of(label, labels, "a label")
        if not all(words):
            raise RowError("words in every text, found an empty one")
    leading = (str(number), *[""] * (source.leading - 1)) if source.leading else ()
    yield (*leading, *words, labels.get(label, ""))


SOURCES = {
    "glue": Source(
        GlueOptions,
        read_glue,
        "cola_train.tsv, cola_dev.tsv, cola_test.tsv and so on (MNLI: mnli_dev_matched.tsv, "
        "mnli_dev_mismatched.tsv, ...)",
        "ofa prepare glue --data glue_data --out dataset/glue_data. The folder holds CoLA, MNLI, "
        "MRPC, QNLI, QQP, RTE, SST-2 as they are downloaded, or cola, mnli, ... as "
        "DatasetDict.save_to_disk writes them.",
        manifest="a manifest per task. Labels are converted by name",
    )
}
