"""Files of rows, whatever they are: a TSV or WebDataset shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from ofa.data.shards import ShardFile, names_shards
from ofa.data.tsv import TsvFile
from ofa.errors import UserError
from ofa.task.columns import TsvSchema

Rows = TsvFile | ShardFile
S = TypeVar("S", bound=TsvSchema)


def open_rows(path: str | Path, selected_cols: str | Sequence[int] | None = None) -> Rows:
    """The rows of a TSV, or of shards if the path is a folder, a ``.tar`` or a pattern of them;
    both are used alike.

    Raises: UserError as ``TsvFile`` and ``ShardFile``.
    """
    return (ShardFile if names_shards(str(path)) else TsvFile)(path, selected_cols)


class NamedRows(Generic[S]):
    """Rows of a file by column name. Raises: UserError if the columns do not fit.

    Args: file: rows with the selected columns, in the order of the schema's columns.
    """

    def __init__(self, file: Rows, schema: S):
        self.file, self.schema = file, schema
        self.columns = schema.names_of(len(file.selected_cols), str(file.path))

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> dict[str, str]:
        return dict(zip(self.columns, self.file[int(index)]))

    def texts(self, index: int) -> dict[str, str]:
        """A row without reading its images."""
        images = [column.name for column in self.schema.images]
        numbers = dict(zip(self.columns, self.file.selected_cols))
        texts = {name: number for name, number in numbers.items() if name not in images}
        found = self.file.texts(int(index), list(texts.values()))
        return {**dict.fromkeys(images, "(not read)"), **dict(zip(texts, found))}

    def where(self, index: int) -> str:
        """``file:row`` for messages."""
        return self.file.where(int(index))


def check_column(rows: Rows, number: int, flags: str) -> None:
    """Raises: UserError that names the flags if the rows have no column of that number."""
    if not 0 <= number < rows.num_columns:
        raise UserError(
            f"{rows.path}:1: column {number} is asked for, found {rows.num_columns} columns (0 to"
            f" {rows.num_columns - 1}); correct {flags}"
        )
