"""What the doctor asks and answers: rules and their settings, findings, reports on files."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ofa.io.numbers import read_decimal
from ofa.task.columns import Column

LONGEST_SHOWN = 40  # characters of a cell in a finding
LISTED = 1000  # findings kept per rule; all are counted
WHOLE_ROW = -1
REPAIRED, SKIPPED = "--fix repairs it, where it can", "--fix skips the row"


@dataclass(frozen=True)
class Settings:
    """What the rules may use besides the cell. Plain data: travels to worker processes.

    Args:
        width: columns of every row. columns: what the columns are, and their numbers. by_type:
            content of the column ``type`` -> what columns of such a row are.
        max_src, max_tgt: words kept of a source and a target; 0: as the column says. answers: texts
            of the answer set, or None. num_codes: image codes in the vocabulary. codes: of a row.
        image_side: pixels that every image must have, or 0. bpe_dir: vocabulary folder, or "".
        images: decode images. evaluation: rows may be without what is to be predicted, and have
            answers that no model can give.
    """

    task: str = ""
    width: int = 0
    columns: tuple[tuple[Column, int], ...] = ()
    by_type: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    max_src: int = 0
    max_tgt: int = 0
    answers: frozenset[str] | None = None
    num_codes: int = 8192
    codes: int = 0
    image_side: int = 0
    bpe_dir: str = ""
    images: bool = True
    evaluation: bool = False

    def number_of(self, name: str) -> int | None:
        """Number of a column."""
        return next((number for column, number in self.columns if column.name == name), None)

    def words_kept(self, column: Column) -> int:
        """Of a text; 0: all."""
        return (self.max_tgt if column.target else self.max_src) or column.max_words


@dataclass(frozen=True)
class Finding:
    """One fault or note. Args: row: from 1; 0 is the file. column: from 0; -1 is the whole row."""

    row: int
    column: int
    rule: str
    found: str
    fix: str
    note: bool = False

    def line(self, path: str) -> str:
        """``file:row:column rule - found - fix``; ``*`` is the whole row."""
        column = "*" if self.column == WHOLE_ROW else self.column
        return f"{path}:{max(self.row, 1)}:{column} {self.rule} - {self.found} - {self.fix}"


@dataclass(frozen=True)
class Rule:
    """What a file, a row or a cell should be.

    Args:
        fix: what the user does. note: no fault: the row works, but differently than its author may
            think.
        check: (row, settings) or (cell, column, settings) -> what is wrong, or "". None: the rule
            belongs to a whole file.
        repair: row, or cell and column -> a better one. with_fix: what ``--fix`` does where that
            does not follow from ``check`` and ``repair``.
    """

    name: str
    expects: str
    fix: str
    check: Any = None
    repair: Any = None
    note: bool = False
    with_fix: str = ""

    def finding(self, found: str, row: int = 0, column: int = WHOLE_ROW) -> Finding:
        text = f"expected {self.expects}, found {found}"
        return Finding(row, column, self.name, text, self.fix, self.note)

    @property
    def fate(self) -> str:
        """What comes of it with ``--fix``."""
        if self.note:
            return "a note"
        usual = REPAIRED if self.repair else SKIPPED if self.check else "for you to repair"
        return self.with_fix or usual


@dataclass
class Report:
    """What a file, or a part of its rows, shows.

    Args: rows: how many there are, or what else ``unit`` counts. findings: ``LISTED`` per rule at
        most; ``counts`` counts all of them.
    """

    path: str = ""
    task: str = ""
    unit: str = "rows"
    rows: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    def add(self, finding: Finding, times: int = 1) -> None:
        if self.counts[finding.rule] < LISTED:
            self.findings.append(finding)
        self.counts[finding.rule] += times

    def sort(self) -> None:
        self.findings.sort(key=lambda finding: (finding.row, finding.column))

    @property
    def notes(self) -> int:
        names = {finding.rule for finding in self.findings if finding.note}
        return sum(self.counts[name] for name in names)

    @property
    def faults(self) -> int:
        return self.counts.total() - self.notes


def shown(cell: str | bytes) -> str:
    """The beginning of a cell for a message."""
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")


def empty(cell: str, column: Column, settings: Settings) -> str:
    return "" if cell and not cell.isspace() else "an empty field"


def quoted(cell: str, column: Column, settings: Settings) -> str:
    return shown(cell) if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'" else ""


def fraction(cell: str, column: Column, settings: Settings) -> str:
    try:
        return "" if 0 <= read_decimal(cell) <= 1 else shown(cell)
    except ValueError:
        return shown(cell)


QUOTED = Rule(
    "quoted",
    "a field without quotes",
    "write the TSV without quoting (pandas: quoting=csv.QUOTE_NONE)",
    quoted,
    lambda cell, column: cell[1:-1].replace('""', '"'),
)
