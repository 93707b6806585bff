"""Classes that a flag names, of modules that Python can import here."""

import importlib
from typing import Any

from ofa.errors import UserError


def class_of(flag: str, name: str) -> Any:
    """``MODULE:CLASS`` -> the class. Raises: UserError with ``flag`` if it is not there."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{flag}: expects MODULE:CLASS that Python can import, found {name!r} ({error})"
        ) from None
