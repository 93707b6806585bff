"""The one exception that a user's input can cause on purpose, and words of its messages."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


def place(where: str) -> str:
    """Beginning of a message: ``"a.tsv:17: "``, or nothing where the place is not known."""
    return f"{where}: " if where else ""


def reason_of(error: BaseException, most: int = 200) -> str:
    """The first line of an error's message, for a message of ours; its class if it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:most]


def listed(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """``"a, b, and 3 more"``: the first of many names, for a message."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return separator.join([*names[:most], *more])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: the known word that is most like another one, or nothing. One that
    is the ending of a file, as in ``captions.csv``, belongs before the file."""
    known, ending = list(known), word.rpartition(".")[2]
    if ending != word and ending.lower() in known:
        return f"; did you mean {ending.lower()} {word}?"
    found = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {found[0]}?" if found else ""


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
