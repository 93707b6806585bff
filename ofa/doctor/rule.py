"""What a rule of the data files is: what it expects, how it is checked and how it is repaired.

A check gets a cell and the settings and returns what it found, or "" when all is well. A repair
gets the same and returns a better cell. A rule without a repair leaves the row to the user. Notes
are no faults: the row works, but differently than its author may think.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ofa.task.columns import Column

LONGEST_SHOWN = 40  # characters of a cell in a finding


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
class Rule:
    """Args: check: None for rules of whole files. fix: what the user does. note: not a fault."""

    name: str
    expects: str
    check: Callable[[Any, Settings], str] | None
    fix: str
    repair: Callable[[Any, Settings], Any] | None = None
    note: bool = False

    def finds(self, cell: Any, settings: Settings) -> str:
        """What is wrong with a row or a cell, or ""."""
        return "" if self.check is None else self.check(cell, settings)


def shown(cell: str | bytes) -> str:
    """The beginning of a cell for a message."""
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")


def empty(cell: str, settings: Settings) -> str:
    return "" if cell and not cell.isspace() else "an empty field"


def quoted(cell: str, settings: Settings) -> str:
    return shown(cell) if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'" else ""


def unquote(cell: str, settings: Settings) -> str:
    return cell[1:-1].replace('""', '"')


def too_long(text: str, words: int) -> str:
    """Finding for a text of more words than are kept; 0 keeps all. A word and its space take two
    characters at least."""
    if not words or len(text) < 2 * words or (count := len(text.split())) <= words:
        return ""
    return f"{count} words, of which {words} are kept"


QUOTED = Rule(
    "quoted",
    "a field without quotes",
    quoted,
    "write the TSV without quoting (pandas: quoting=csv.QUOTE_NONE)",
    unquote,
)
