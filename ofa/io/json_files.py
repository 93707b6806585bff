"""Plain data of others in JSON, YAML and pickles: bounded in bytes, depth and number of values;
messages name the file."""

import codecs
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ofa.errors import UserError, reason_of
from ofa.io.image_archives import inside, read_inside
from ofa.io.nesting import MAX_DEPTH, check_nesting
from ofa.io.pickles import DAMAGED, load_plain

MAX_BYTES = 4 << 30  # of annotation files; those of Visual Genome have 1 GB
MAX_YAML_BYTES = 1 << 20
MAX_YAML_SCALAR = 10_000  # characters; integers such as 1:20:30 take the square of them
MAX_YAML_NODES = 10_000  # what an alias stands for counts each time
REMEDY = "is it the right file, and is it complete?"


def load_json(
    text: str | bytes,
    *,
    pairs_hook: Callable | None = None,
    fraction: Callable[[str], float] | None = None,
) -> Any:
    """``json.loads`` within bounds, for callers that have words of their own for what is wrong.

    Args: pairs_hook: makes an object of its pairs; may raise ValueError. fraction: makes a number
    with a point or an exponent of its text.
    Raises: ValueError if it is no JSON, or nested too deeply.
    """
    try:
        if isinstance(text, bytes):  # else the first bytes choose a codec, which is imported
            text = text.removeprefix(codecs.BOM_UTF8).decode()
        value = json.loads(text, object_pairs_hook=pairs_hook, parse_float=fraction)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    check_nesting(value, len(text))
    return value


def parse_json(text: str | bytes, where: str, expected: str = "JSON", **options: Any) -> Any:
    """The value of a JSON text.

    Args: where: file and line. expected: what the text should be. options: as of ``load_json``.
    Raises: UserError if it is anything else, or nested too deeply.
    """
    try:
        return load_json(text, **options)
    except ValueError as error:
        raise UserError(
            f"{where}: expected {expected}, found damaged JSON ({str(error)[:200]}); {REMEDY}"
        ) from None


def read_json(
    path: str | Path, expected: str = "JSON", *, kind: type = object, **options: Any
) -> Any:
    """The value of a JSON file in UTF-8. Args: kind: dict, if it has to be an object. options: as
    of ``load_json``. Raises: UserError if the file cannot be read or holds anything else."""
    value = parse_json(_content(path, expected, MAX_BYTES), str(path), expected, **options)
    if not isinstance(value, kind):
        raise UserError(f"{path}: expected {expected}, found {_json_name(value)}; {REMEDY}")
    return value


def read_yaml(path: str | Path, expected: str = "YAML with plain values only") -> Any:
    """The value of a YAML file: plain values, no objects of any language, few enough for a
    description. Raises: UserError if the file cannot be read, or holds anything else."""
    import yaml

    try:
        text = _content(path, expected, MAX_YAML_BYTES).decode("utf-8")
        _check_yaml(yaml, text)
        return yaml.safe_load(text)
    except UserError:
        raise
    except Exception as error:  # yaml raises nearly anything on damaged text
        raise UserError(
            f"{path}: expected {expected}, found something else ({reason_of(error)}); copy it again"
        ) from None


def read_plain(path: str | Path, expected: str) -> Any:
    """The value of a JSON file or of a pickle, by its first character. Texts of Python 2 are UTF-8,
    else Latin-1.

    Raises: UserError if the file cannot be read, is damaged, or names a class or function.
    """
    data = _content(path, expected, MAX_BYTES)
    if data[:1] in (b"{", b"["):
        return parse_json(data, str(path), expected)
    try:
        try:
            return load_plain(data)
        except UnicodeDecodeError:
            return load_plain(data, "latin-1")
    except DAMAGED as error:
        raise UserError(
            f"{path}: expected {expected}, found something else ({reason_of(error)}); is it"
            " the right file, and is the download complete?"
        ) from None


def _check_yaml(yaml: Any, text: str) -> None:
    """Raises: ValueError if containers are nested too deeply, or aliases stand for too much."""
    total = 0
    sizes: dict[str | None, int] = {}  # anchor -> values that it stands for
    open_: list[tuple] = []  # anchor of each container that is not finished, and the total before
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor] = total - before + 1
        elif isinstance(event, yaml.AliasEvent):
            # of a container inside of itself yaml says so itself, or it is counted as 1
            total += sizes.get(event.anchor, 1)
            if any(anchor == event.anchor for anchor, _ in open_):
                raise ValueError("a container that contains itself")
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1
            if len(event.value) > MAX_YAML_SCALAR:
                raise ValueError(f"a value of more than {MAX_YAML_SCALAR} characters")
        total += 1
        if len(open_) > MAX_DEPTH:
            raise ValueError(f"containers that are nested more than {MAX_DEPTH} deep")
        if total > MAX_YAML_NODES:
            raise ValueError(f"more than {MAX_YAML_NODES} values")


def _content(path: str | Path, expected: str, most: int) -> bytes:
    """The bytes of a file. Raises: UserError."""
    try:
        if place := inside(path):
            return read_inside(place, most)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise UserError(
                    f"{path}: expected {expected}, found a file of {size} bytes, more than {most}; "
                    "is it the right file?"
                )
            return file.read(most + 1)
    except OSError as error:
        raise UserError(
            f"{path}: expected {expected}, found no readable file ({error.strerror}); check the"
            " path"
        ) from None


def _json_name(value: Any) -> str:
    """The kind of a value in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
