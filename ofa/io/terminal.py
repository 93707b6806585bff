"""Color and bold on a terminal, as https://no-color.org has it."""

import os
from typing import Literal, TextIO

CODES = {"red": 31, "bold": 1}


def styled(text: str, style: Literal["red", "bold"], stream: TextIO) -> str:
    """The text as it is printed to the stream: plain where that is no terminal that knows styles,
    or NO_COLOR is set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not stream.isatty() else f"\033[{CODES[style]}m{text}\033[0m"
