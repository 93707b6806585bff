"""Text files of a user in UTF-8; other bytes are one error that names file and line."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from ofa.errors import UserError

PROBED = 8192  # bytes; a zero among them tells a binary file
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
NOT_IN_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f]")


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
    except UnicodeDecodeError:
        raise not_utf8(path) from None


def holds_text(path: str | Path) -> bool:
    """Whether a file begins as a text does, in whatever encoding; an empty or an unreadable one
    does not."""
    try:
        with open(path, "rb") as file:
            start = file.read(PROBED)
    except OSError:
        return False
    return start.startswith(UTF16) or bool(start) and not NOT_IN_TEXT.search(start)


def not_utf8(path: str | Path) -> UserError:
    """What to say of a text file that is not UTF-8: the encoding, as far as it shows, and the
    command that changes it."""
    where, found, encoding = str(path), "other bytes", "WINDOWS-1252"
    with open(path, "rb") as file:
        start = file.read(PROBED)
        if start.startswith(UTF16):
            found, encoding = "UTF-16 (Excel's 'Unicode Text')", "UTF-16"
        elif b"\0" in start:
            return UserError(
                f"{path}: expected a text file, found a binary one, such as an image or an archive;"
                " give a file of UTF-8 text"
            )
        file.seek(0)
        for number, line in enumerate(file if encoding != "UTF-16" else (), 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x}"
                where, found = f"{path}:{number}", f"the byte {byte}, as in Latin-1 (Excel's 'CSV')"
                break
    new = f"{Path(path).stem}_utf8{Path(path).suffix}"
    return UserError(
        f"{where}: expected UTF-8 text, found {found}; save it as 'CSV UTF-8', or run: iconv -f"
        f" {encoding} -t UTF-8 {Path(path).name} > {new}"
    )


def read_text(path: str | Path) -> str:
    """The whole file. Raises: as ``read_lines``."""
    return "\n".join(read_lines(path))
