"""The one exception that a user's input can cause on purpose."""

from collections.abc import Iterator
from contextlib import contextmanager


def place(where: str) -> str:
    """Beginning of a message: ``"a.tsv:17: "``, or nothing where the place is not known."""
    return f"{where}: " if where else ""


class UserError(ValueError):
    """Something a user can fix. The message names place, expectation, finding and remedy.

    The commands print it as one line without a traceback and exit with status 2.
    """


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Context whose ``UserError``s begin with the name of a file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
