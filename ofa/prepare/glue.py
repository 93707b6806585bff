"""GLUE, as its authors ship it (one folder of TSVs per task) or as Hugging Face datasets on disk.

Labels are converted by name: their numbers differ between distributions (``ofa.tasks.glue``). Test
rows have none; they all stay, in their order, because a submission numbers them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_archives import class_names, table_columns
from ofa.io.text_files import read_lines
from ofa.io.values import RowError, one_line, text_of
from ofa.prepare.annotations import Entry, Problems, one_of
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.hugging_face import split_rows, split_tables
from ofa.prepare.source import TextOptions, source

UNDECIDED = "-"  # the annotators did not agree; such rows are left out
Row = tuple[str, ...]
Numbered = Iterator[tuple[int, Entry]]
RENAMED = ("dev", "validation")  # splits, in Hugging Face datasets
NUMBERS = ("index", "id")  # columns that number the rows of a test file


@dataclass(frozen=True)
class GlueSource:
    """How a task is distributed.

    Args:
        folder: of the original files. texts, label: their columns. header: of training files, if
            they have none themselves. saved: text columns of the Hugging Face dataset, if others.
        labels: a label, by its name or as originals have it -> as the task's file has it.
        leading: columns of the task's file before the texts; the first is the number of the row.
    """

    folder: str
    texts: tuple[str, ...]
    labels: Mapping[str, str]
    label: str = "label"
    leading: int = 0
    header: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train", "dev", "test")


def two_labels(no: str, yes: str) -> dict[str, str]:
    """Their numbers are the same in every distribution."""
    return {no: "0", yes: "1", "0": "0", "1": "1"}


PAIR = ("sentence1", "sentence2")
ENTAILED = {"entailment": "entailment", "not_entailment": "not_entailment"}
EQUIVALENT = two_labels("not_equivalent", "equivalent")
TASKS = {
    "cola": GlueSource(
        "CoLA",
        ("sentence",),
        two_labels("unacceptable", "acceptable"),
        leading=1,
        header=("source", "label", "mark", "sentence"),
    ),
    "mnli": GlueSource(
        "MNLI",
        PAIR,
        {"neutral": "0", "entailment": "1", "contradiction": "2"},
        "gold_label",
        saved=("premise", "hypothesis"),
        splits=("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"),
    ),
    "mrpc": GlueSource("MRPC", ("#1 String", "#2 String"), EQUIVALENT, "Quality", saved=PAIR),
    "qnli": GlueSource("QNLI", ("question", "sentence"), ENTAILED, leading=1),
    "qqp": GlueSource(
        "QQP",
        ("question1", "question2"),
        two_labels("not_duplicate", "duplicate"),
        "is_duplicate",
        leading=3,
    ),
    "rte": GlueSource("RTE", PAIR, ENTAILED, leading=1),
    "sst2": GlueSource("SST-2", ("sentence",), two_labels("negative", "positive")),
}


@dataclass(frozen=True, kw_only=True)
class GlueOptions(TextOptions):
    data: str = option(help="folder of the tasks' folders; with one --tasks also that task's own")
    tasks: tuple[str, ...] = option(
        (), "tasks to prepare, if not all that are there", choices=tuple(TASKS)
    )


@source(GlueOptions, "glue")
def read_glue(options: GlueOptions, problems: Problems) -> list[PreparedDataset]:
    """Every task by itself: what is finished stays when another is added.

    Writes cola_train.tsv, cola_dev.tsv, cola_test.tsv and so on (MNLI: mnli_dev_matched.tsv,
    mnli_dev_mismatched.tsv, ...) and a manifest per task. Labels are converted by name.

    example: ofa prepare glue --data glue_data --out dataset/glue_data. The folder holds CoLA, MNLI,
    MRPC, QNLI, QQP, RTE, SST-2 as they are downloaded, or cola, mnli, ... as
    Hugging Face datasets: of save_to_disk, or parquet files.
    """
    folder, names = Path(options.data), options.tasks
    if not folder.is_dir():
        raise UserError(
            f"{folder}: expected a folder with the files of GLUE, found none; check --data"
        )
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    places = {"".join(filter(str.isalnum, path.name.lower())): path for path in below}
    if len(names) == 1 and (split_tables(folder) or any(folder.glob("*.tsv"))):
        places = {names[0]: folder}
    chosen = names or [name for name in TASKS if name in places]
    missing = [name for name in chosen if name not in places]
    if missing or not chosen:
        listed = ", ".join(f"{TASKS[name].folder} or {name}" for name in missing or TASKS)
        raise UserError(
            f"{folder}: expected folders {listed}, found"
            f" {', '.join(path.name for path in places.values()) or 'none'}; give the folder that"
            " holds them, or of one task its own folder and --tasks NAME"
        )
    return [read_task(name, places[name]) for name in chosen]


class TestProblems(Problems):
    """Of a test file: its rows are numbered by a submission, none may be skipped."""

    def add(self, message: str) -> None:
        raise UserError(f"{message}; a test row cannot be skipped: fix it")


def read_task(name: str, place: Path) -> PreparedDataset:
    """One task, of either distribution; it needs training and validation rows."""
    source, saved = TASKS[name], split_tables(place)
    columns = (saved and source.saved) or source.texts
    found = PreparedDataset(settings={"task": name}, manifest=f"manifest_{name}.json")
    for split in source.splits:
        test, path, kept = split[:4] == "test", f"{place}/{split}.tsv", split.replace(*RENAMED)
        files = saved.get(kept, []) if saved else [path] * Path(path).is_file()
        if files:
            entries = partial(original_entries, source, path, test)
            if saved:
                entries = partial(saved_entries, f"{place}/{kept}", files, columns, test)
            reader = partial(rows_of, source, columns, entries, test)
            found.readers[f"{name}_{split}.tsv"] = reader
            found.inputs = [*found.inputs, *files]
        elif split in source.splits[:2]:
            raise UserError(
                f"{place}: expected {', '.join(f'{split}.tsv' for split in source.splits)} or a"
                f" Hugging Face dataset with such splits, found none for '{split}'; is the download"
                " complete?"
            )
    return found


def rows_of(
    source: GlueSource,
    columns: Sequence[str],
    entries: Callable[[Problems], Numbered],
    test: bool,
    problems: Problems,
) -> Iterator[Row]:
    """The rows of a split, without undecided ones. Test rows may lack their label. Args: columns:
    of the texts. entries: with them and the ``label`` in words, and their numbers."""
    problems = TestProblems(skip=False) if test else problems
    for number, entry in entries(problems):
        with problems.at(entry.where):
            words = [
                one_line(text_of(entry[column], f"a text as {column!r}")) for column in columns
            ]
            label = entry["label"]
            if label == UNDECIDED:
                continue
            if label or not test:
                one_of(label, source.labels, "a label")
                if not all(words):
                    raise RowError("words in every text, found an empty one")
            leading = (str(number), "", "")[: source.leading]
            yield (*leading, *words, source.labels.get(label, ""))


def original_entries(source: GlueSource, path: str, test: bool, problems: Problems) -> Numbered:
    """Of an original TSV. Quotes in it are text."""
    needs = source.texts if test else (*source.texts, source.label)
    lines, header = enumerate(read_lines(path), start=1), source.header
    if test or not header:
        header = tuple(cell.strip() for cell in next(lines, (1, ""))[1].split("\t"))
    missing = [column for column in needs if column not in header]
    if missing:
        raise UserError(
            f"{path}:1: expected a header with the columns {', '.join(needs)}, found none called"
            f" '{missing[0]}' among {', '.join(header)[:200]}; is it the file of another task?"
        )
    for number, (line, text) in enumerate(lines):
        cells = text.split("\t")
        entry = Entry(dict(zip(header, cells)), f"{path}:{line}")
        if lacking := [column for column in needs if column not in entry]:
            most = f"{len(header)} columns, found {len(cells)}"
            problems.add(f"{entry.where}: expected {most}, none for '{lacking[0]}'")
            continue
        index = next((entry[name] for name in NUMBERS if test and name in entry), None)
        if index not in (None, str(number)):
            raise UserError(
                f"{entry.where}: expected the row numbered {number}, found {index!r}; test rows are"
                " numbered in their order: take the file as it was downloaded"
            )
        entry["label"] = "" if test else entry[source.label].strip()
        yield number, entry


def saved_entries(
    where: str, tables: Sequence[str], columns: Sequence[str], test: bool, problems: Problems
) -> Numbered:
    """Of a split of a Hugging Face dataset, whose test rows have the label -1 or none."""
    labeled = not test or "label" in table_columns(tables[0])
    for number, row in enumerate(split_rows(where, tables, [*columns, *["label"] * labeled])):
        if not number:
            names = label_names(where, tables[0]) if labeled else {}
        label = row.get("label")
        row["label"] = "" if label is None else names.get(label, str(label))
        yield number, row


def label_names(where: str, table: str) -> dict[int, str]:
    """Number -> name of a label, -1 for none; empty if they stand as words."""
    names = class_names(table, "label")
    if names is None:
        raise UserError(
            f"{where}: expected labels with names (ClassLabel), found plain numbers; what they mean"
            " differs between distributions: save the data set with its features, or with the names"
            " as text"
        )
    return {-1: "", **dict(enumerate(names))} if names else {}
