"""What people read: color and bold on a terminal, as https://no-color.org has it, sizes, times."""

import os
from typing import Literal, TextIO

CODES = {"red": 31, "bold": 1}


def styled(text: str, style: Literal["red", "bold"], stream: TextIO) -> str:
    """The text as it is printed to the stream: plain where that is no terminal that knows styles,
    or NO_COLOR is set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not stream.isatty() else f"\033[{CODES[style]}m{text}\033[0m"


def with_noun(number: int, noun: str) -> str:
    """``(1, "row")`` -> ``1 row``; ``(12345, "row")`` -> ``12 345 rows``; ``2 entries``."""
    digits = f"{number:,}".replace(",", " ") if number >= 10_000 else str(number)
    many = f"{noun[:-1]}ies" if noun.endswith("try") else f"{noun}s"
    return f"{digits} {noun if number == 1 else many}"


def in_units(size: float) -> str:
    """Bytes as ``5.2 GB``, ``310 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def in_time(seconds: float) -> str:
    """Roughly: ``40 s``, ``12 min``, ``3.4 h``, ``2.1 days``."""
    if seconds < 90:
        return f"{max(round(seconds / 5), 1) * 5} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
