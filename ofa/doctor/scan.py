"""Every row of a TSV or of shards under the rules, in chunks, over processes, with progress; what
only the whole file shows; and a repaired copy, a TSV. Rows beyond repair are skipped and listed.

What is repaired stands in the table of rules. Of rows with one id equal ones are left out, others
get a new id: the next free number, or ``_2`` behind a text.
"""

import hashlib
import itertools
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa.data.row_files import Rows
from ofa.data.rows import open_rows
from ofa.doctor.rows import RowChecker
from ofa.doctor.rule import LISTED, RULES, Finding, Report, shown
from ofa.doctor.schemas import Settings
from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.fingerprint import sha256_of, total_bytes
from ofa.io.progress import Progress, counted
from ofa.io.values import TELLING_BOXES, id_key
from ofa.process_state import silence_known_warnings
from ofa.task.answers import differing_in_case

CHUNK = 8 << 20  # bytes handed to a process at a time, ...
CHUNK_OF_IMAGES = 1 << 20  # ... where it has to decode their images
WORTH_PROCESSES = 256 << 20  # bytes from which starting processes pays, ...
WORTH_PROCESSES_FOR_IMAGES = 32 << 20  # ... where images are decoded
PROBED = 1000  # rows that decide how many columns the file has


@dataclass
class ScanReport(Report):
    """What some rows, or all rows of a file, show."""

    settings: Settings | None = None  # with the columns of the file, if it can be read
    crlf: int = 0  # rows that end in it, ...
    first_crlf: int = 0  # ... and the first of them
    ids: list[np.ndarray] = field(default_factory=list)  # their digests, 0 where there is none
    largest_id: int = -1  # of those that are numbers
    taught: dict[str, int] = field(default_factory=dict)  # answer -> its first row
    boxes: Counter = field(default_factory=Counter)  # as of ``RowChecker``

    def merge(self, later: "ScanReport") -> None:
        """Add the report on rows that follow."""
        for finding in later.findings:
            self.add(finding)
        self.counts += later.counts - Counter(finding.rule for finding in later.findings)
        self.crlf, self.first_crlf = self.crlf + later.crlf, self.first_crlf or later.first_crlf
        self.ids += later.ids
        self.largest_id = max(self.largest_id, later.largest_id)
        self.taught = later.taught | self.taught
        self.classes += later.classes
        self.boxes += later.boxes


def scan(path: str, settings: Settings, jobs: int = 1) -> ScanReport:
    """Check every row of a file.

    Args: settings: ``width`` is filled in here; without columns only what holds for every TSV is
    checked. jobs: processes.
    """
    report = ScanReport(path, settings.task)
    try:
        rows = open_rows(path)
        report.rows = len(rows)
        _compare_checksums(report, rows)
        if rows.offsets[0]:
            report.find("bom", "a byte-order mark", 1)
    except UserError as error:
        text = str(error).removeprefix(f"{path}: ").removeprefix("expected a TSV file, ")
        report.find("file", (text.partition("found ")[2] or text).removesuffix("; check the path"))
        return report
    settings = replace(settings, width=usual_width(rows))
    if beyond := [column.name for column, number in settings.columns if number >= settings.width]:
        report.find("selected-cols", f"{settings.width} columns, none for {', '.join(beyond)}")
        settings = replace(settings, columns=())
    report.settings = settings
    for part in chunk_results(check_rows, rows, settings, jobs, f"checking {Path(path).name}"):
        report.merge(part)
    if report.crlf:
        found = f"\\r\\n at the end of {report.crlf} of {report.rows} rows"
        report.find("crlf", found, report.first_crlf)
        report.counts["crlf"] = report.crlf
    _find_duplicates(report, rows, settings.number_of("id"))
    _find_cases(report)
    every, alike = report.boxes["every"], report.boxes["xywh"]
    if every == alike >= TELLING_BOXES:
        report.find("box-xywh", f"{every} that make sense as x,y,width,height too")
    wrong = report.counts["answer-known"] + report.counts["class-known"]
    if wrong > report.rows / 2:
        report.find("answer-file", f"{wrong} of {report.rows} rows with another answer")
    report.sort()
    return report


def check_rows(rows: list[bytes | UserError], first: int, checker: RowChecker) -> ScanReport:
    """Args: rows: without line feeds. first: number of the first row, from 1."""
    report, ids = ScanReport(), np.zeros(len(rows), np.uint64)
    id_column = checker.settings.number_of("id")
    has_classes = any(
        column.kind == "label" and number != checker.type_number
        for column, number in checker.settings.columns
    )
    checker.boxes = report.boxes
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
            if has_classes:
                report.classes[answer] += 1
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
    return RULES["sample"].finding(found, number)


def digest(text: str) -> int:
    """64 bits that tell texts apart, never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


# --- what only the whole file shows


def usual_width(rows: Rows) -> int:
    """The number of columns that most of the first rows have."""
    if rows.even:
        return rows.num_columns
    first = (rows.raw(row, row + 1)[0] for row in range(min(PROBED, len(rows))))
    widths = Counter(row.count(b"\t") + 1 for row in first if isinstance(row, bytes))
    return max(widths, key=lambda width: (widths[width], width), default=rows.num_columns)


def _compare_checksums(report: ScanReport, rows: Rows) -> None:
    """Find files whose content is not what somebody noted of them."""
    noted = rows.checksums.items()
    for path, (first, sha256) in counted(noted, len(noted), "checksums", "files") if noted else ():
        if (found := sha256_of(path)) != sha256:
            text = f"{os.path.basename(path)} with {found[:12]}... instead of {sha256[:12]}..."
            report.find("checksum", text, first + 1)


def _find_duplicates(report: ScanReport, rows: Rows, column: int | None) -> None:
    """Ids that come again; the first row of each is right."""
    if column is None:
        return
    ids = np.concatenate(report.ids)
    present = np.flatnonzero(ids)
    _, first, inverse = np.unique(ids[present], return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(present)))
    for place in again[:LISTED]:
        row, earlier = int(present[place]), int(present[first[inverse[place]]])
        line = rows.raw(row, row + 1)[0]
        assert isinstance(line, bytes)  # it has an id
        name = line.split(b"\t")[column].decode()
        found = f"{name!r} again, as in row {earlier + 1}"
        report.find("duplicate-id", found, row + 1, column)
    report.counts += Counter({"duplicate-id": len(again[LISTED:])})


def _find_cases(report: ScanReport) -> None:
    """Answers that rows teach as several, for people typed them with and without capitals."""
    groups = differing_in_case(sorted(report.taught, key=report.taught.__getitem__))
    if groups:
        rows = [f"{shown(answer)} in row {report.taught[answer]}" for answer in groups[0][:3]]
        found = f"{len(groups)} in more than one: {', '.join(rows)}"
        report.find("answer-case", found, report.taught[groups[0][0]])


# --- repairs

# number of its first line, row of the copy, whether it was changed, why it is left out
RepairedRow = tuple[int, bytes, bool, list[Finding]]


@dataclass
class RepairReport:
    """What the copy holds. ``left_out`` lists the findings of the rows that are not in it."""

    path: str
    rows: int = 0
    repaired: int = 0
    num_left_out: int = 0
    left_out: list[Finding] = field(default_factory=list)
    renamed: int = 0


def repair(report: ScanReport, out: str, jobs: int = 1) -> RepairReport:
    """Write the repaired copy of a file that was scanned.

    Raises: UserError if the file as a whole cannot be read, or the copy would take its place.
    """
    broken = [f for f in report.findings if f.rule in ("file", "selected-cols")]
    if broken or report.settings is None:
        raise UserError(f"{report.path}: cannot be repaired: {broken[0].found}; {broken[0].fix}")
    done = RepairReport(out)
    ids = _UniqueIds(report.settings.number_of("id"), report.largest_id + 1)
    rows = open_rows(report.path)
    with replacing(out, "wb") as file:
        for chunk in chunk_results(repair_rows, rows, report.settings, jobs, "repairing"):
            for number, row, changed, faults in chunk:
                unique = faults or ids.unique(row, number)
                if isinstance(unique, list):
                    done.num_left_out += 1
                    done.left_out += unique if len(done.left_out) < LISTED else []
                    continue
                done.rows += 1
                done.repaired += changed
                done.renamed += unique != row
                file.write(unique + b"\n")
    return done


def repair_rows(
    rows: list[bytes | UserError], first: int, checker: RowChecker
) -> list[RepairedRow]:
    """The rows of a chunk, repaired. Args: rows: without line feeds. first: number of the first
    one, from 1."""
    rows = [row if isinstance(row, UserError) else row.removesuffix(b"\r") for row in rows]
    repaired: list[RepairedRow] = []
    place = 0
    while place < len(rows):
        number, line, lines = first + place, rows[place], 1
        if isinstance(line, UserError):
            repaired.append((number, b"", False, [broken_sample(line, number)]))
        else:
            row, lines = _whole_row(line, rows, place + 1, checker)
            faults, better = checker.faults(row, number), row
            if faults:
                better = checker.repair(row)
                faults = checker.faults(better, number)
            repaired.append((number, better, better != line, faults))
        place += lines
    return repaired


def _whole_row(
    line: bytes, rows: list[bytes | UserError], after: int, checker: RowChecker
) -> tuple[bytes, int]:
    """The row that begins with a line, and how many lines it takes: more than one where a field has
    line breaks. Args: after: place of the next line."""
    row, tabs, last_tab, stop = line, line.count(b"\t"), checker.settings.width - 1, after
    may_continue = last_tab > 0 and bool(row.strip())
    while may_continue and stop < len(rows):
        more = rows[stop]
        if isinstance(more, UserError) or not more.strip():
            break
        more_tabs = more.count(b"\t")
        if more_tabs == last_tab or tabs + more_tabs > last_tab:  # a row of its own
            break
        # base64 in lines of 76 characters
        row += (b"" if tabs in checker.images else b" ") + more
        tabs, stop = tabs + more_tabs, stop + 1
    return (row, 1 + stop - after) if tabs == last_tab else (line, 1)


class _UniqueIds:
    """Gives rows whose id came before a new one. Args: column: of the ids."""

    def __init__(self, column: int | None, next_number: int):
        self.column, self.next_number = column, next_number
        # id_key -> hashes of the rows that had it in the file
        self.seen: dict[str, set[int]] = defaultdict(set)

    def unique(self, row: bytes, number: int) -> bytes | list[Finding]:
        """The row, with another id if need be; a finding if it came before altogether."""
        if self.column is None:
            return row
        cells, content = row.split(b"\t"), hash(row)
        name = cells[self.column]
        known = self.seen[id_key(name.decode())]
        if content in known:
            found = f"{name.decode()!r} again, the same row"
            return [RULES["duplicate-id"].finding(found, number, self.column)]
        known.add(content)
        if len(known) == 1:
            return row
        if name.isdigit():
            new = str(self.next_number).encode()
            self.next_number += 1
        else:
            numbered = (name + b"_%d" % count for count in itertools.count(2))
            new = next(name for name in numbered if name.decode() not in self.seen)
        self.seen[new.decode()].add(content)
        cells[self.column] = new
        return b"\t".join(cells)


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
    _start(*start)
    processes: Any = nullcontext()
    if jobs > 1 and len(chunks) > 1 and total_bytes(rows.files) >= enough:
        context = multiprocessing.get_context("spawn")
        processes = context.Pool(min(jobs, len(chunks)), _start, start)
    with processes as pool, Progress(len(rows), what, "rows") as progress:
        results = (pool.imap if pool else map)(_work, chunks)
        for result, (first, stop) in zip(results, chunks):
            yield result
            progress.update(stop - first)


_worker: tuple[Work, Rows, RowChecker]  # of this process


def _start(work: Work, rows: Rows, settings: Settings) -> None:
    global _worker
    silence_known_warnings()
    _worker = work, rows, RowChecker(settings)


def _work(chunk: Chunk) -> Any:
    work, rows, checker = _worker
    first, stop = chunk
    return work(rows.raw(first, stop), first + 1, checker)


def chunks_of(rows: Rows, width: int, size: int) -> Iterator[Chunk]:
    """Chunks of about ``size`` bytes. No row that is broken in two lines goes into two chunks."""
    offsets, start = rows.offsets, 0
    while start < len(rows):
        stop = int(np.searchsorted(offsets, int(offsets[start]) + size))
        stop = min(max(stop, start + 1), len(rows))
        while stop < len(rows):  # up to a line that is a whole row
            (line,) = rows.raw(stop, stop + 1)
            if isinstance(line, UserError) or line.count(b"\t") == width - 1:
                break
            stop += 1
        yield start, stop
        start = stop
