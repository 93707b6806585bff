"""Files of rows, whatever they are: a TSV or WebDataset shards."""

from collections.abc import Sequence
from pathlib import Path

from ofa.data.shards import ShardFile, names_shards
from ofa.data.tsv import TsvFile
from ofa.errors import UserError

Rows = TsvFile | ShardFile


def open_rows(path: str | Path, selected_cols: str | Sequence[int] | None = None) -> Rows:
    """The rows of a TSV, or of shards if the path is a folder, a ``.tar`` or a pattern of them;
    both are used alike.

    Raises: UserError as ``TsvFile`` and ``ShardFile``.
    """
    return (ShardFile if names_shards(str(path)) else TsvFile)(path, selected_cols)


def check_column(rows: Rows, number: int, flags: str) -> None:
    """Raises: UserError that names the flags if the rows have no column of that number."""
    if not 0 <= number < rows.num_columns:
        raise UserError(
            f"{rows.path}:1: column {number} is asked for, found {rows.num_columns} columns (0 to"
            f" {rows.num_columns - 1}); correct {flags}"
        )
