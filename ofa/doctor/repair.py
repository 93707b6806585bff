"""A repaired copy of a TSV, or of shards as a TSV; rows beyond repair are skipped and listed.

Repaired are: byte-order mark, line ends, NUL and carriage returns, rows broken in several lines,
quotes, ``b'...'`` and data URLs around base64, its padding, turned boxes, boxes beyond the border
(clipped), answers without a confidence (1.0), labels in other letters, ids read as decimals. An id
that comes again: an equal row is left out, another row gets a new id - the next free number, or
``_2`` behind a text. Everything else - damaged images, unknown labels, empty texts, ... - is the
user's to decide: such rows are left out.
"""

from dataclasses import dataclass, field

from ofa.doctor.row_source import open_source
from ofa.doctor.rows import BOX_INSIDE, Finding, RowChecker
from ofa.doctor.scan import (
    BYTE_ORDER,
    CRLF,
    DUPLICATE,
    FILE,
    LISTED,
    SELECTED,
    FileReport,
    broken_sample,
    chunk_results,
)
from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.values import id_key

# without a repair of one cell
REPAIRED_IN_FILES = {BYTE_ORDER.name, CRLF.name, DUPLICATE.name, BOX_INSIDE.name, "columns"}


@dataclass
class RepairReport:
    """What the copy holds. ``left_out`` lists the findings of the rows that are not in it."""

    path: str
    rows: int = 0
    repaired: int = 0
    num_left_out: int = 0
    left_out: list[Finding] = field(default_factory=list)
    renamed: int = 0

    def leave_out(self, findings: list[Finding]) -> None:
        self.num_left_out += 1
        if len(self.left_out) < LISTED:
            self.left_out += findings


@dataclass
class RepairedRow:
    """A row of the copy. Args: row: bytes, or None if it is left out, for ``findings``. number:
    of its first line."""

    number: int
    row: bytes | None
    changed: bool = False
    findings: list[Finding] = field(default_factory=list)


def repair_chunk(
    rows: list[bytes | UserError], first: int, checker: RowChecker
) -> list[RepairedRow]:
    """The rows of a chunk, repaired. Args: rows: without line feeds. first: number of the first
    one, from 1."""
    rows = [row if isinstance(row, UserError) else row.removesuffix(b"\r") for row in rows]
    repaired, place = [], 0
    while place < len(rows):
        row = rows[place]
        if isinstance(row, UserError):
            repaired.append(
                RepairedRow(first + place, None, findings=[broken_sample(row, first + place)])
            )
            place += 1
            continue
        row, lines = _whole_row(row, rows, place + 1, checker)
        number, place = first + place, place + lines
        findings = [finding for finding in checker.check(row) if not finding.note]
        if findings:
            better = checker.repair(row)
            findings = [finding for finding in checker.check(better) if not finding.note]
            changed, row = better != row, better
        else:
            changed = False
        if findings:
            repaired.append(
                RepairedRow(
                    number, None, findings=[_in_row(finding, number) for finding in findings]
                )
            )
        else:
            repaired.append(RepairedRow(number, row, changed or lines > 1))
    return repaired


def _in_row(finding: Finding, number: int) -> Finding:
    return Finding(number, finding.column, finding.rule, finding.found, finding.fix)


def _whole_row(
    line: bytes, rows: list[bytes | UserError], after: int, checker: RowChecker
) -> tuple[bytes, int]:
    """The row that begins with a line, and how many lines it takes: more than one where a field has
    line breaks. Args: after: place of the next line."""
    row, tabs, width, stop = line, line.count(b"\t"), checker.settings.width, after
    if width == 1 or not row.strip():
        return row, 1
    while (
        stop < len(rows)
        and isinstance(more_text := rows[stop], bytes)
        and more_text.strip()
        and tabs + (more := more_text.count(b"\t")) < width
    ):
        if more == width - 1:  # a row of its own
            break
        # base64 in lines of 76 characters
        glue = b"" if tabs in checker.image_numbers() else b" "
        row, tabs, stop = row + glue + more_text, tabs + more, stop + 1
    return (row, stop - after + 1) if tabs == width - 1 else (line, 1)


def repair(report: FileReport, out: str, jobs: int = 1) -> RepairReport:
    """Write the repaired copy of a file that was scanned.

    Raises: UserError if the file as a whole cannot be read, or the copy would take its place.
    """
    if report.settings is None or any(
        finding.rule in (FILE.name, SELECTED.name) for finding in report.findings
    ):
        raise UserError(
            f"{report.path}: cannot be repaired: {report.findings[0].found};"
            f" {report.findings[0].fix}"
        )
    done = RepairReport(out)
    unique = _UniqueIds(report, done)
    with replacing(out, "wb") as file:
        work = chunk_results(
            repair_chunk, report.path, open_source(report.path), report.settings, jobs, "repairing"
        )
        with work as chunks:
            for repaired in (row for chunk in chunks for row in chunk):
                row = repaired.row
                if row is None:
                    done.leave_out(repaired.findings)
                    continue
                row = unique(row, repaired.number)
                if row is not None:
                    done.rows += 1
                    done.repaired += repaired.changed
                    file.write(row + b"\n")
    return done


class _UniqueIds:
    """Gives rows whose id came before a new one, and drops those that came before altogether."""

    def __init__(self, report: FileReport, done: RepairReport):
        self.column = report.settings.number_of("id") if report.settings else None
        self.done, self.next_number = done, report.largest_id + 1
        self.seen: dict[str, list[int]] = {}  # id_key -> hashes of the rows that had it in the file

    def __call__(self, row: bytes, number: int) -> bytes | None:
        if self.column is None:
            return row
        cells = row.split(b"\t")
        name, content = cells[self.column], hash(row)
        known = self.seen.setdefault(id_key(name.decode()), [])
        if not known:
            known.append(content)
            return row
        if content in known:
            self.done.leave_out(
                [
                    Finding.of(
                        DUPLICATE, f"{name.decode()!r} again, the same row", self.column, number
                    )
                ]
            )
            return None
        known.append(content)
        cells[self.column] = self._new_name(name)
        self.done.renamed += 1
        self.seen[id_key(cells[self.column].decode())] = [content]
        return b"\t".join(cells)

    def _new_name(self, name: bytes) -> bytes:
        if name.isdigit():
            self.next_number += 1
            return str(self.next_number - 1).encode()
        count = 2
        while (new := name + b"_%d" % count).decode() in self.seen:
            count += 1
        return new
