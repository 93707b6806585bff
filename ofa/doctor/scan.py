"""Every row of a TSV or of shards under the rules: in chunks, over processes, with progress; and
what only the whole file shows."""

import hashlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa.data.rows import Rows, open_rows
from ofa.data.shards import ShardFile
from ofa.doctor.rows import RowChecker
from ofa.doctor.rule import LISTED, REPAIRED, SKIPPED, Finding, Report, Rule, Settings, shown
from ofa.errors import UserError
from ofa.io.fingerprint import sha256_of, total_bytes
from ofa.io.progress import Progress, counted
from ofa.io.values import id_key
from ofa.process_state import silence_known_warnings

CHUNK = 8 << 20  # bytes handed to a process at a time, ...
CHUNK_OF_IMAGES = 1 << 20  # ... where it has to decode their images
WORTH_PROCESSES = 256 << 20  # bytes from which starting processes pays, ...
WORTH_PROCESSES_FOR_IMAGES = 32 << 20  # ... where images are decoded
PROBED = 1000  # rows that decide how many columns the file has

FILE = Rule("file", "a readable file of rows", "check the path, or make the file again")
CRLF = Rule(
    "crlf",
    "rows that end in a line feed alone",
    "save the file with Unix line ends",
    with_fix=REPAIRED,
)
BYTE_ORDER = Rule(
    "bom",
    "a file that begins with its first row",
    "save the file as UTF-8 without a byte-order mark",
    with_fix=REPAIRED,
)
SELECTED = Rule("selected-cols", "columns that the file has", "correct --selected-cols or --task")
DUPLICATE = Rule(
    "duplicate-id",
    "every id once",
    "make ids unique; is it the file of another stage?",
    with_fix=REPAIRED,
)
ANSWER_FILE = Rule(
    "answer-file", "answers of this answer set", "give the label file that belongs to these data"
)
CHECKSUM = Rule("checksum", "shards as ofa pack wrote them", "copy or make the shard again")
ANSWER_CASE = Rule(
    "answer-case",
    "answers that differ in more than case",
    "write them alike; ofa prepare lowers answers, unless it is told --keep-case",
    note=True,
)
SAMPLE = Rule(
    "sample", "a whole sample", "make the shard again, or leave the sample out", with_fix=SKIPPED
)
FILE_RULES = (FILE, CRLF, BYTE_ORDER, SELECTED, DUPLICATE, ANSWER_FILE, ANSWER_CASE, CHECKSUM)


@dataclass
class ScanReport(Report):
    """What some rows, or all rows of a file, show.

    Args: settings: with the columns of the file; None if it cannot be read. crlf, first_crlf: rows
        that end in CRLF, and the first of them. ids: digests of the ids, 0 where there is none.
        largest_id: of the ids that are numbers. taught: answer -> its first row.
    """

    settings: Settings | None = None
    crlf: int = 0
    first_crlf: int = 0
    ids: list[np.ndarray] = field(default_factory=list)
    largest_id: int = -1
    taught: dict[str, int] = field(default_factory=dict)

    def merge(self, later: "ScanReport") -> None:
        """Add the report on rows that follow."""
        for finding in later.findings:
            self.add(finding)
        self.counts += later.counts - Counter(finding.rule for finding in later.findings)
        self.crlf, self.first_crlf = self.crlf + later.crlf, self.first_crlf or later.first_crlf
        self.ids += later.ids
        self.largest_id = max(self.largest_id, later.largest_id)
        self.taught = later.taught | self.taught


def scan(path: str, settings: Settings, jobs: int = 1) -> ScanReport:
    """Check every row of a file.

    Args: settings: ``width`` is filled in here; without columns only what holds for every TSV is
    checked. jobs: processes.
    """
    report = ScanReport(path, settings.task)
    try:
        rows = open_rows(path)
        report.rows = len(rows)
        if isinstance(rows, ShardFile):
            _compare_checksums(report, rows)
        elif rows.offsets[0]:
            report.add(BYTE_ORDER.finding("a byte-order mark", 1))
    except UserError as error:
        report.add(FILE.finding(str(error).removeprefix(f"{path}: ")))
        return report
    settings = replace(settings, width=usual_width(rows))
    if beyond := [column.name for column, number in settings.columns if number >= settings.width]:
        found = f"{settings.width} columns, none for {', '.join(beyond)}"
        report.add(SELECTED.finding(found))
        settings = replace(settings, columns=())
    report.settings = settings
    for part in chunk_results(check_rows, rows, settings, jobs, f"checking {Path(path).name}"):
        report.merge(part)
    if report.crlf:
        found = f"\\r\\n at the end of {report.crlf} of {report.rows} rows"
        report.add(CRLF.finding(found, report.first_crlf), report.crlf)
    column = settings.number_of("id")
    if column is not None:
        _find_duplicates(report, rows, column)
    _find_cases(report)
    wrong = report.counts["answer-known"] + report.counts["class-known"]
    if wrong > report.rows / 2:
        report.add(ANSWER_FILE.finding(f"{wrong} of {report.rows} rows with another answer"))
    report.sort()
    return report


def check_rows(rows: list[bytes | UserError], first: int, checker: RowChecker) -> ScanReport:
    """Args: rows: without line feeds. first: number of the first row, from 1."""
    report, ids = ScanReport(), np.zeros(len(rows), np.uint64)
    id_column = checker.settings.number_of("id")
    for number, row in enumerate(rows, start=first):
        if isinstance(row, UserError):
            report.add(broken_sample(row, number))
            continue
        if row.endswith(b"\r"):
            row = row[:-1]
            report.crlf, report.first_crlf = report.crlf + 1, report.first_crlf or number
        found = checker.check(row, number)
        for finding in found:
            report.add(finding)
        if all(finding.note for finding in found) and (answer := checker.taught()) is not None:
            report.taught.setdefault(answer, number)
        if id_column is not None and checker.cells:
            text = checker.cells[id_column]
            ids[number - first] = digest(id_key(text))  # 1 and 1.0 are one id
            if text.isdecimal() and len(text) < 19:
                report.largest_id = max(report.largest_id, int(text))
    report.ids.append(ids)
    return report


def broken_sample(error: UserError, number: int) -> Finding:
    """Args: error: why the row cannot be read."""
    found = str(error).partition("found ")[2].rpartition("; ")[0] or str(error)
    return SAMPLE.finding(found, number)


def digest(text: str) -> int:
    """64 bits that tell texts apart, never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


# --- what only the whole file shows


def usual_width(rows: Rows) -> int:
    """The number of columns that most of the first rows have."""
    if isinstance(rows, ShardFile):
        return rows.num_columns
    with open(rows.path, "rb") as file:
        file.seek(int(rows.offsets[0]))
        lines = (file.readline() for _ in range(min(PROBED, len(rows))))
        widths = Counter(line.count(b"\t") + 1 for line in lines)
    return max(widths, key=lambda width: (widths[width], width))


def _compare_checksums(report: ScanReport, rows: ShardFile) -> None:
    """Find shards whose content is not what the manifest of ``ofa pack`` says."""
    shards = list(zip(rows.files, rows.noted, rows.shard_starts)) if any(rows.noted) else []
    for shard, noted, first in counted(shards, len(shards), "checksums", "shards"):
        found = sha256_of(shard)
        if noted and found != noted["sha256"]:
            name = os.path.basename(shard)
            text = f"{name} with {found[:12]}... instead of {noted['sha256'][:12]}..."
            report.add(CHECKSUM.finding(text, int(first) + 1))


def _find_duplicates(report: ScanReport, rows: Rows, column: int) -> None:
    """Ids that come again; the first row of each is right."""
    ids = np.concatenate(report.ids)
    present = np.flatnonzero(ids)
    _, first, inverse = np.unique(ids[present], return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(present)))
    for place in again[:LISTED]:
        row, earlier = int(present[place]), int(present[first[inverse[place]]])
        cells = rows_between(rows, row, row + 1)[0].split(b"\t")  # type: ignore[union-attr]
        found = f"{cells[column].decode()!r} again, as in row {earlier + 1}"
        report.add(DUPLICATE.finding(found, row + 1, column))
    report.counts += Counter({DUPLICATE.name: len(again[LISTED:])})


def _find_cases(report: ScanReport) -> None:
    """Answers that rows teach as several, for people typed them with and without capitals."""
    alike: dict[str, list[str]] = {}
    for answer in sorted(report.taught, key=report.taught.__getitem__):
        alike.setdefault(answer.lower(), []).append(answer)
    groups = [answers for answers in alike.values() if len(answers) > 1]
    if groups:
        rows = [f"{shown(answer)} in row {report.taught[answer]}" for answer in groups[0][:3]]
        found = f"{sum(map(len, groups))} that differ in case alone: {', '.join(rows)}"
        report.add(ANSWER_CASE.finding(found, report.taught[groups[0][0]]))


# --- chunks and processes

Chunk = tuple[int, int]  # first row from 0, the one after the last
Work = Callable[[list[bytes | UserError], int, RowChecker], Any]


def chunk_results(
    work: Work, rows: Rows, settings: Settings, jobs: int, what: str
) -> Iterator[Any]:
    """``work`` on every chunk of rows, in order, with progress; by several processes when it
    pays."""
    images = settings.images and any(column.kind == "image" for column, _ in settings.columns)
    chunks = list(chunks_of(rows, settings.width, CHUNK_OF_IMAGES if images else CHUNK))
    enough = WORTH_PROCESSES_FOR_IMAGES if images else WORTH_PROCESSES
    start = (work, rows, settings)
    if jobs > 1 and len(chunks) > 1 and total_bytes(rows.files) >= enough:
        context = multiprocessing.get_context("spawn")
        processes: Any = context.Pool(min(jobs, len(chunks)), _start_process, start)
    else:
        processes = nullcontext()
        _start(*start)
    with processes as pool, Progress(len(rows), what, "rows") as progress:
        results = pool.imap(_work, chunks) if pool else map(_work, chunks)
        for result, (first, stop) in zip(results, chunks):
            yield result
            progress.update(stop - first)


def chunks_of(rows: Rows, width: int, size: int) -> Iterator[Chunk]:
    """Chunks of about ``size`` bytes. No row that is broken in two lines goes into two chunks."""
    if isinstance(rows, ShardFile):
        offsets = np.linspace(0, total_bytes(rows.files), len(rows) + 1)
    else:
        offsets = rows.offsets
    start = 0
    while start < len(rows):
        stop = int(np.searchsorted(offsets, int(offsets[start]) + size))
        stop = min(max(stop, start + 1), len(rows))
        while stop < len(rows) and not _begins_row(rows, stop, width):
            stop += 1
        yield start, stop
        start = stop


def _begins_row(rows: Rows, row: int, width: int) -> bool:
    """Whether a line of a TSV is a whole row."""
    if isinstance(rows, ShardFile):
        return True
    line = rows_between(rows, row, row + 1)[0]
    return isinstance(line, bytes) and line.count(b"\t") == width - 1


def rows_between(rows: Rows, first: int, stop: int) -> list[bytes | UserError]:
    """Rows as a TSV has them, without line feeds; in place of one that a shard does not hold
    whole, what is wrong with it."""
    if isinstance(rows, ShardFile):
        return [_row_of_shard(rows, row) for row in range(first, stop)]
    start, end = int(rows.offsets[first]), int(rows.offsets[stop])
    with open(rows.path, "rb") as file:
        file.seek(start)
        data = file.read(end - start)
    found = data.removesuffix(b"\n").split(b"\n")
    if len(found) != stop - first or len(data) != end - start:
        raise UserError(
            f"{rows.path}: expected {stop - first} rows from row {first + 1} on, found"
            f" {len(found)}: the file changed, or its index does not fit; remove {rows.path}.idx"
            f" and {rows.path}.index and start again"
        )
    return found  # type: ignore[return-value]


def _row_of_shard(rows: ShardFile, row: int) -> bytes | UserError:
    try:
        return "\t".join(rows.texts(row, range(rows.num_columns))).encode("utf-8", "surrogatepass")
    except UserError as error:
        return UserError(str(error).removeprefix(f"{rows.where(row)}: "))


_worker: tuple[Work, Rows, RowChecker]  # of this process


def _start_process(*start: Any) -> None:
    silence_known_warnings()
    _start(*start)


def _start(work: Work, rows: Rows, settings: Settings) -> None:
    global _worker
    _worker = work, rows, RowChecker(settings)


def _work(chunk: Chunk) -> Any:
    work, rows, checker = _worker
    first, stop = chunk
    return work(rows_between(rows, first, stop), first + 1, checker)
