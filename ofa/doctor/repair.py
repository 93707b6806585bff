"""A repaired copy of a TSV, or of shards as a TSV; rows beyond repair are skipped and listed.

Repaired are: byte-order mark, line ends, NUL and carriage returns, rows broken in several lines,
quotes, ``b'...'`` and data URLs around base64, its padding, turned boxes, boxes beyond the border
(clipped), answers without a confidence (1.0), labels in other letters, ids read as decimals. An id
that comes again: an equal row is left out, another row gets a new id - the next free number, or
``_2`` behind a text. Everything else - damaged images, unknown labels, empty texts, ... - is the
user's to decide: such rows are left out.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from ofa.data.rows import open_rows
from ofa.doctor.rows import RowChecker
from ofa.doctor.rule import LISTED, Finding
from ofa.doctor.scan import DUPLICATE, FILE, SELECTED, ScanReport, broken_sample, chunk_results
from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.values import id_key


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


class RepairedRow(NamedTuple):
    """A row of the copy, left out if there are ``faults``. Args: number: of its first line."""

    number: int
    row: bytes
    changed: bool
    faults: list[Finding]


def repair_rows(
    rows: list[bytes | UserError], first: int, checker: RowChecker
) -> list[RepairedRow]:
    """The rows of a chunk, repaired. Args: rows: without line feeds. first: number of the first
    one, from 1."""
    rows = [row if isinstance(row, UserError) else row.removesuffix(b"\r") for row in rows]
    repaired, place = [], 0
    while place < len(rows):
        number, line = first + place, rows[place]
        if isinstance(line, UserError):
            repaired.append(RepairedRow(number, b"", False, [broken_sample(line, number)]))
            place += 1
            continue
        row, lines = _whole_row(line, rows, place + 1, checker)
        faults, better = checker.faults(row, number), row
        if faults:
            better = checker.repair(row)
            faults = checker.faults(better, number)
        repaired.append(RepairedRow(number, better, better != row or lines > 1, faults))
        place += lines
    return repaired


def _whole_row(
    line: bytes, rows: list[bytes | UserError], after: int, checker: RowChecker
) -> tuple[bytes, int]:
    """The row that begins with a line, and how many lines it takes: more than one where a field has
    line breaks. Args: after: place of the next line."""
    row, tabs, last_tab = line, line.count(b"\t"), checker.settings.width - 1
    lines = 1
    if last_tab and row.strip():
        for more in map(rows.__getitem__, range(after, len(rows))):
            if isinstance(more, UserError) or not more.strip():
                break
            more_tabs = more.count(b"\t")
            if more_tabs == last_tab or tabs + more_tabs > last_tab:  # a row of its own
                break
            # base64 in lines of 76 characters
            row += (b"" if tabs in checker.images else b" ") + more
            tabs, lines = tabs + more_tabs, lines + 1
    return (row, lines) if tabs == last_tab else (line, 1)


def repair(report: ScanReport, out: str, jobs: int = 1) -> RepairReport:
    """Write the repaired copy of a file that was scanned.

    Raises: UserError if the file as a whole cannot be read, or the copy would take its place.
    """
    broken = [f for f in report.findings if f.rule in (FILE.name, SELECTED.name)]
    if broken or report.settings is None:
        raise UserError(f"{report.path}: cannot be repaired: {broken[0].found}; {broken[0].fix}")
    done = RepairReport(out)
    unique = _UniqueIds(report.settings.number_of("id"), report.largest_id + 1, done)
    rows = open_rows(report.path)
    with replacing(out, "wb") as file:
        for chunk in chunk_results(repair_rows, rows, report.settings, jobs, "repairing"):
            for number, row, changed, faults in chunk:
                if faults:
                    done.leave_out(faults)
                elif (renamed := unique(row, number)) is not None:
                    done.rows += 1
                    done.repaired += changed
                    file.write(renamed + b"\n")
    return done


class _UniqueIds:
    """Gives rows whose id came before a new one, and drops those that came before altogether."""

    def __init__(self, column: int | None, next_number: int, done: RepairReport):
        self.column, self.next_number, self.done = column, next_number, done
        self.seen: dict[str, list[int]] = {}  # id_key -> hashes of the rows that had it in the file

    def __call__(self, row: bytes, number: int) -> bytes | None:
        if self.column is None:
            return row
        cells, content = row.split(b"\t"), hash(row)
        name = cells[self.column]
        known = self.seen.setdefault(id_key(name.decode()), [])
        if content in known:
            found = f"{name.decode()!r} again, the same row"
            self.done.leave_out([DUPLICATE.finding(found, number, self.column)])
            return None
        known.append(content)
        if len(known) == 1:
            return row
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
