"""Data sets of Hugging Face's ``datasets``, as ``DatasetDict.save_to_disk`` leaves them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.prepare.annotations import Entry


def is_saved(folder: str | Path) -> bool:
    return (Path(folder) / "dataset_dict.json").is_file()


def open_saved(folder: str | Path) -> Mapping[str, Any]:
    """Split -> dataset. Raises: UserError if it cannot be read or the library is missing."""
    try:
        from datasets import load_from_disk
    except ImportError:
        raise UserError(
            f"{folder}: reading it needs the library 'datasets'; install it (pip install datasets),"
            " or give the original files"
        ) from None
    try:
        return load_from_disk(str(folder))
    except Exception as error:  # whatever is wrong with its files: the library raises many kinds
        raise UserError(
            f"{folder}: expected a folder of save_to_disk, found one that cannot be read ({error});"
            " save it again"
        ) from None


def files_below(folder: str | Path) -> list[str]:
    """Every file of a saved data set, in order."""
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


def saved_rows(where: str, rows: Any, columns: Sequence[str]) -> Iterator[Entry]:
    """The rows of a split, with their place. Raises: UserError if a column is missing."""
    if not set(columns) <= set(rows.column_names):
        raise UserError(
            f"{where}: expected the columns {', '.join(columns)}, found"
            f" {', '.join(rows.column_names)}; is it another data set?"
        )
    for number, row in enumerate(rows):
        yield Entry(row, f"{where}: row {number}")
