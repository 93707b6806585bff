"""Image codes by row, from a TSV or from a result file (``*_predict.json``)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ofa.data.rows import Rows, check_column, open_rows
from ofa.errors import UserError
from ofa.io.json_files import read_json
from ofa.task.results import IDS, TEXTS
from ofa.tokens.image_codes import square_side, text_to_codes


@dataclass(frozen=True)
class CodedRow:
    """``codes`` as text; ``where`` for messages."""

    name: str
    text: str
    codes: str
    where: str


def open_coded(
    path: str | Path,
    code_column: int | None = None,
    id_column: int = 0,
    text_column: int | None = None,
) -> list[CodedRow]:
    """All rows of a file. Raises: UserError if the file or a column is missing.

    Args: code_column: of a TSV; None finds the first that holds codes in row 1. text_column: None:
    no text.
    """
    if Path(path).suffix.lower() in (".json", ".jsonl"):
        return list(rows_of_results(Path(path)))
    rows = open_rows(path)
    column = code_column_of(rows) if code_column is None else code_column
    columns = [id_column, column, *([] if text_column is None else [text_column])]
    for number in columns:
        check_column(rows, number, "--code-column, --id-column or --text-column")
    found = []
    for index in range(len(rows)):
        name, codes, *text = rows.texts(index, columns)
        found.append(CodedRow(name, text[0] if text else "", codes, rows.where(index)))
    return found


def code_column_of(rows: Rows) -> int:
    """The first column of row 1 with two codes or more. Raises: UserError if there is none."""
    for column, field in enumerate(rows[0]):
        words = field.split()
        if len(words) > 1 and all(word.isdecimal() for word in words):
            return column
    raise UserError(
        f"{rows.where(0)}: expects a column of image codes (integers with spaces between"
        " them), found none; name it by --code-column N, or make one by ofa tokenizer encode"
    )


def rows_of_results(path: Path) -> Iterator[CodedRow]:
    """Entries of a result file in their order: ``{"id": ..., "caption": ..., "codes": "17 3
    ..."}``."""
    expected = "a list of results, as NAME_predict.json of ofa evaluate or ofa draw"
    content = read_json(path, expected, kind=list)
    if not content:
        raise UserError(f"{path}: expected {expected}, found an empty one; give another file")
    for number, entry in enumerate(content):
        where = f"{path}: entry {number + 1}"
        codes = entry.get("codes") if isinstance(entry, dict) else None
        if not isinstance(codes, (str, list)):
            raise UserError(
                f"{where}: expects 'codes', found none; are the results of --task image_gen?"
            )
        text = codes if isinstance(codes, str) else " ".join(map(str, codes))
        name = first_of(entry, IDS) or str(number)
        yield CodedRow(name, first_of(entry, TEXTS), text, where)


def first_of(entry: dict, names: tuple[str, ...]) -> str:
    return next((str(entry[name]) for name in names if name in entry), "")


def grid_of(row: CodedRow, num_codes: int, shape: tuple[int, int] | None):
    """int64[h, w] of a row.

    Args: shape: rows and columns of codes; None: a square.
    Raises: UserError naming the row.
    """
    count = None if shape is None else shape[0] * shape[1]
    codes = text_to_codes(row.codes, num_codes, count, row.where)
    if shape is None:
        side = square_side(len(codes), row.where)
        shape = side, side
    return codes.reshape(shape)
