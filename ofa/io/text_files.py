"""Text files of a user in UTF-8; other bytes are one error that names file and line."""

from collections.abc import Iterator
from pathlib import Path

from ofa.errors import UserError


def read_lines(path: str | Path) -> Iterator[str]:
    """Lines of a file, without their ends; only a line feed ends a line.

    Raises: UserError naming the file and, for other bytes than UTF-8, the line.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except OSError as error:
        raise UserError(
            f"{path}: expected a text file, found no readable one ({error.strerror}); check the"
            " path"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number}: expected UTF-8 text, found other bytes ({error}); save it as UTF-8"
        ) from None


def read_text(path: str | Path) -> str:
    """The whole file. Raises: as ``read_lines``."""
    return "\n".join(read_lines(path))
