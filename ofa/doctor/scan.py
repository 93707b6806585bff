"""Every row of a TSV under the rules: in chunks, over processes, with progress; and what only
the whole file shows."""

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa.data.shards import ShardFile
from ofa.data.tsv_index import BOM
from ofa.doctor.row_source import (
    Chunk,
    Source,
    chunks_of_shards,
    id_of_row,
    num_bytes,
    num_rows,
    open_source,
    other_checksums,
    rows_of_shards,
)
from ofa.doctor.rows import Finding, RowChecker
from ofa.doctor.rule import Rule, Settings, shown
from ofa.errors import UserError
from ofa.io.progress import Progress
from ofa.io.values import id_key
from ofa.process_state import silence_known_warnings

LISTED = 1000  # findings kept per rule; all are counted
CHUNK = 8 << 20  # bytes handed to a process at a time, ...
CHUNK_OF_IMAGES = 1 << 20  # ... where it has to decode their images
WORTH_PROCESSES = 256 << 20  # bytes from which starting processes pays, ...
WORTH_PROCESSES_FOR_IMAGES = 32 << 20  # ... where images are decoded
PROBED = 1000  # rows that decide how many columns the file has


FILE = Rule("file", "a readable file of rows", None, "check the path, or make the file again")
CRLF = Rule("crlf", "rows that end in a line feed alone", None, "save the file with Unix line ends")
BYTE_ORDER = Rule(
    "bom",
    "a file that begins with its first row",
    None,
    "save the file as UTF-8 without a byte-order mark",
)
SELECTED = Rule(
    "selected-cols", "columns that the file has", None, "correct --selected-cols or --task"
)
DUPLICATE = Rule(
    "duplicate-id", "every id once", None, "make ids unique; is it the file of another stage?"
)
ANSWER_FILE = Rule(
    "answer-file",
    "answers of this answer set",
    None,
    "give the label file that belongs to these data",
)
CHECKSUM = Rule("checksum", "shards as ofa pack wrote them", None, "copy or make the shard again")
ANSWER_CASE = Rule(
    "answer-case",
    "answers that differ in more than case",
    None,
    "write them alike; ofa prepare lowers answers, unless it is told --keep-case",
    note=True,
)
FILE_RULES = (FILE, CRLF, BYTE_ORDER, SELECTED, DUPLICATE, ANSWER_FILE, ANSWER_CASE, CHECKSUM)
# of a shard
SAMPLE = Rule("sample", "a whole sample", None, "make the shard again, or leave the sample out")


@dataclass
class ChunkReport:
    """What one chunk of rows shows. Args: largest_id: of the ids that are numbers, or -1.
    taught: answer -> its first row."""

    rows: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    crlf: list[int] = field(default_factory=lambda: [0, 0])  # number of rows, the first one
    ids: np.ndarray | None = None  # uint64[rows]: digests of the ids; 0 where there is none
    largest_id: int = -1
    taught: dict[str, int] = field(default_factory=dict)


@dataclass
class FileReport:
    """What a file shows. ``findings`` lists ``LISTED`` per rule at most, ``counts`` counts all
    of them."""

    path: str
    task: str = ""
    rows: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    notes: set[str] = field(default_factory=set)  # names of the rules whose findings are notes
    largest_id: int = -1
    settings: Settings | None = None

    def add(self, finding: Finding, times: int = 1) -> None:
        self.findings.append(finding)
        self.counts[finding.rule] += times

    @property
    def faults(self) -> int:
        return sum(count for rule, count in self.counts.items() if rule not in self.notes)

    @property
    def num_notes(self) -> int:
        return sum(count for rule, count in self.counts.items() if rule in self.notes)

    def finish(self) -> "FileReport":
        self.notes = {finding.rule for finding in self.findings if finding.note}
        self.findings.sort(key=lambda finding: (finding.row, finding.column))
        return self


def scan(path: str, settings: Settings, jobs: int = 1) -> FileReport:
    """Check every row of a file.

    Args: settings: ``width`` is filled in here; without columns only what holds for every TSV is
    checked. jobs: processes.
    """
    report = FileReport(path, settings.task)
    try:
        source = open_source(path)
        report.rows = num_rows(source)
        if isinstance(source, ShardFile):
            for row, found in other_checksums(source):
                report.add(Finding.of(CHECKSUM, found, row=row))
            settings = replace(settings, width=source.num_columns)
        else:
            with open(path, "rb") as file:
                if file.read(len(BOM)) == BOM:
                    report.add(Finding.of(BYTE_ORDER, "a byte-order mark", row=1))
            settings = replace(settings, width=usual_width(path, source))
    except UserError as error:
        report.add(Finding.of(FILE, str(error).removeprefix(f"{path}: ")))
        return report.finish()
    beyond = [column.name for column, number in settings.columns if number >= settings.width]
    if beyond:
        report.add(Finding.of(SELECTED, f"{settings.width} columns, none for {', '.join(beyond)}"))
        settings = replace(settings, columns=())
    report.settings = settings
    ids = [np.empty(0, np.uint64)]
    taught: dict[str, int] = {}
    crlf_rows, crlf_first = 0, 0
    with chunk_results(
        check_chunk, path, source, settings, jobs, f"checking {Path(path).name}"
    ) as results:
        for chunk in results:
            kept = Counter(finding.rule for finding in report.findings)
            for finding in chunk.findings:
                kept[finding.rule] += 1
                if kept[finding.rule] <= LISTED:
                    report.findings.append(finding)
            report.counts.update(chunk.counts)
            report.largest_id = max(report.largest_id, chunk.largest_id)
            crlf_rows, crlf_first = crlf_rows + chunk.crlf[0], crlf_first or chunk.crlf[1]
            taught = chunk.taught | taught
            if chunk.ids is not None:
                ids.append(chunk.ids)
    if crlf_rows:
        report.add(
            Finding.of(
                CRLF, f"\\r\\n at the end of {crlf_rows} of {report.rows} rows", row=crlf_first
            ),
            crlf_rows,
        )
    column = settings.number_of("id")
    if column is not None:
        _find_duplicates(report, np.concatenate(ids), source, column)
    _find_cases(report, taught)
    wrong = report.counts["answer-known"] + report.counts["class-known"]
    if wrong > report.rows / 2:
        report.add(Finding.of(ANSWER_FILE, f"{wrong} of {report.rows} rows with another answer"))
    return report.finish()


def usual_width(path: str, offsets: np.ndarray) -> int:
    """The number of columns that most of the first rows have."""
    with open(path, "rb") as file:
        file.seek(int(offsets[0]))
        widths = Counter(
            file.readline().count(b"\t") + 1 for _ in range(min(PROBED, len(offsets) - 1))
        )
    return max(widths, key=lambda width: (widths[width], width))


def check_chunk(rows: list[bytes | UserError], first: int, checker: RowChecker) -> ChunkReport:
    """Args: rows: without line feeds. first: number of the first row, from 1."""
    report = ChunkReport(rows=len(rows))
    id_column = checker.columns.get("id")
    digests = [0] * len(rows)
    for number, row in enumerate(rows, start=first):
        if isinstance(row, UserError):
            report.counts[SAMPLE.name] += 1
            if report.counts[SAMPLE.name] <= LISTED:
                report.findings.append(broken_sample(row, number))
            continue
        if row.endswith(b"\r"):
            row = row[:-1]
            report.crlf = [report.crlf[0] + 1, report.crlf[1] or number]
        found = checker.check(row)
        for finding in found:
            report.counts[finding.rule] += 1
            if report.counts[finding.rule] <= LISTED:
                report.findings.append(replace(finding, row=number))
        if (
            checker.cells
            and all(finding.note for finding in found)
            and (answer := checker.taught()) is not None
        ):
            report.taught.setdefault(answer, number)
        if id_column is not None and checker.cells:
            text = checker.cells[id_column]
            digests[number - first] = digest(id_key(text))  # 1 and 1.0 are one id
            if text.isdecimal() and len(text) < 19:
                report.largest_id = max(report.largest_id, int(text))
    report.ids = None if id_column is None else np.array(digests, np.uint64)
    return report


def broken_sample(error: UserError, number: int) -> Finding:
    """Args: error: why the row cannot be read."""
    return Finding.of(
        SAMPLE, str(error).partition("found ")[2].rpartition("; ")[0] or str(error), row=number
    )


def digest(text: str) -> int:
    """64 bits that tell ids apart, never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


def _find_duplicates(report: FileReport, ids: np.ndarray, source: Source, column: int) -> None:
    """Ids that come again; the first row of each is right."""
    present = np.flatnonzero(ids)
    _, first, inverse, counts = np.unique(
        ids[present], return_index=True, return_inverse=True, return_counts=True
    )
    if len(counts) == len(present):
        return
    again = np.flatnonzero(first[inverse] != np.arange(len(present)))
    for place in again[:LISTED]:
        row, earlier = int(present[place]), int(present[first[inverse[place]]])
        text = id_of_row(report.path, source, row, column)
        report.findings.append(
            Finding.of(DUPLICATE, f"{text!r} again, as in row {earlier + 1}", column, row + 1)
        )
    report.counts[DUPLICATE.name] += len(again)


def _find_cases(report: FileReport, taught: Mapping[str, int]) -> None:
    """Answers that rows teach as several, for people typed them with and without capitals."""
    alike: dict[str, list[str]] = {}
    for answer in sorted(taught, key=taught.__getitem__):
        alike.setdefault(answer.lower(), []).append(answer)
    groups = [answers for answers in alike.values() if len(answers) > 1]
    if groups:
        first = ", ".join(f"{shown(answer)} in row {taught[answer]}" for answer in groups[0][:3])
        report.add(
            Finding.of(
                ANSWER_CASE,
                f"{sum(map(len, groups))} that differ in case alone: {first}",
                row=taught[groups[0][0]],
            )
        )


# ------------------------------------------------------------------------------------ chunks and
# processes

Work = Callable[[list[bytes | UserError], int, RowChecker], Any]


@contextmanager
def chunk_results(
    work: Work, path: str, source: Source, settings: Settings, jobs: int, what: str
) -> Iterator[Iterable[Any]]:
    """``work`` of every chunk of rows, in order, with progress; by several processes when it
    pays."""
    images = settings.images and any(column.kind == "image" for column, _ in settings.columns)
    size = CHUNK_OF_IMAGES if images else CHUNK
    shards = source if isinstance(source, ShardFile) else None
    chunks = list(
        chunks_of_shards(source, size)
        if isinstance(source, ShardFile)
        else chunks_of(path, source, settings.width, size)
    )
    enough = num_bytes(path, source) >= (WORTH_PROCESSES_FOR_IMAGES if images else WORTH_PROCESSES)
    start = (work, path, shards, settings)
    if jobs > 1 and enough and len(chunks) > 1:
        with multiprocessing.get_context("spawn").Pool(
            min(jobs, len(chunks)), _start_process, start
        ) as pool:
            yield _with_progress(pool.imap(_work, chunks), chunks, what)
    else:
        _start_worker(*start)
        yield _with_progress(map(_work, chunks), chunks, what)


def _with_progress(results: Iterable[Any], chunks: list[tuple], what: str) -> Iterator[Any]:
    with Progress(sum(count for *_, count in chunks), what, "rows") as progress:
        for result, (*_, count) in zip(results, chunks):
            yield result
            progress.update(count)


def chunks_of(path: str, offsets: np.ndarray, width: int, size: int) -> Iterator[Chunk]:
    """(first byte, bytes, first row from 0, rows). No row that is broken in two lines goes into
    two chunks."""
    total, start = len(offsets) - 1, 0
    with open(path, "rb") as file:
        while start < total:
            stop = int(np.searchsorted(offsets, int(offsets[start]) + size))
            stop = min(max(stop, start + 1), total)
            while stop < total and not _is_sound(file, offsets, stop, width):
                stop += 1
            yield int(offsets[start]), int(offsets[stop]) - int(offsets[start]), start, stop - start
            start = stop


def _is_sound(file, offsets: np.ndarray, row: int, width: int) -> bool:
    file.seek(int(offsets[row]))
    return file.read(int(offsets[row + 1] - offsets[row])).count(b"\t") == width - 1


_worker: tuple = ()


def _start_process(*start: Any) -> None:
    silence_known_warnings()
    _start_worker(*start)


def _start_worker(work: Work, path: str, shards: ShardFile | None, settings: Settings) -> None:
    global _worker
    _worker = work, path, shards, RowChecker(settings)


def _work(chunk: Chunk) -> Any:
    work, path, shards, checker = _worker
    start, size, first, count = chunk
    if shards is not None:
        return work(rows_of_shards(shards, first, count), first + 1, checker)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        data = b""
        while len(data) < size and (more := file.read(size - len(data))):
            data += more
    rows = data.removesuffix(b"\n").split(b"\n")
    if len(rows) != count or len(data) != size:
        raise UserError(
            f"{path}: expected {count} rows from row {first + 1} on, found {len(rows)}: the file"
            f" changed, or its index does not fit; remove {path}.idx and {path}.index and start"
            " again"
        )
    return work(rows, first + 1, checker)
