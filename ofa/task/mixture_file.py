"""The file of a joint training: which tasks one model learns together, and what each is given.

    {
      "caption": {"data": "caption_train.tsv,caption_val.tsv", "selected_cols": "0,4,2",
      "eval_cider": true,
                  "eval_args": {"beam": 3, "max_len_b": 30}, "weight": 0.2},
      "refcoco": {"data": "boxes_train.tsv,boxes_val.tsv", "max_image_size": 64}
    }

``weight`` is how often a task's rows are shown in an epoch (default 1), everything else an option
of the task under its command-line name with underscores. Files are looked for beside this file.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from ofa.errors import UserError
from ofa.io.json_files import load_json
from ofa.io.numbers import read_decimal
from ofa.io.stored_options import is_followed, is_readable_path, warn_once
from ofa.task.task_spec import TaskOptions, TaskSpec

WEIGHT = "weight"
MOST_WEIGHT = 1e6
# One model has one vocabulary and one image size: these are options of the whole training.
SHARED = (
    "bpe",
    "bpe_dir",
    "code_dict_size",
    "num_bins",
    "patch_image_size",
    "orig_patch_image_size",
    "max_source_positions",
    "max_target_positions",
    "uses_ema",
    "shuffle",
)
# of types, in JSON's words
NAMES: dict[Any, str] = {NoneType: "null", str: "text", bool: "true or false"}
EXAMPLE = '{"caption": {"data": "train.tsv,val.tsv", "weight": 0.5}}'


@dataclass(frozen=True)
class Member:
    """One task of a joint training: its weight, and its options by name as far as the file gives
    them."""

    name: str
    weight: float
    options: dict[str, Any]


def read_members(path: str, specs: Mapping[str, TaskSpec]) -> list[Member]:
    """The tasks of a file, in its order.

    Args: specs: every task that there is, by name.
    Raises: UserError naming file, task and option if the file is no such file.
    """
    try:
        content = load_json(Path(path).read_text(encoding="utf-8"), pairs_hook=_no_name_twice)
    except OSError as error:
        raise UserError(
            f"{path}: task 'joint' expects a JSON file such as {EXAMPLE}, found none "
            f"({error.strerror})"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{path}: task 'joint' expects JSON such as {EXAMPLE}, found something else ({error})"
        ) from None
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(entry, dict) for entry in content.values())
    ):
        raise UserError(
            f"{path}: expects one entry of options per task such as {EXAMPLE}, found"
            f" {json.dumps(content)[:80]}"
        )
    names = {alias: name for name, spec in specs.items() for alias in spec.aliases}
    names |= {name: name for name in specs}
    members = [
        _member(path, names.get(str(name), str(name)), entry, specs)
        for name, entry in content.items()
    ]
    named = [member.name for member in members]
    if twice := next((name for name in named if named.count(name) > 1), None):
        raise UserError(f"{path}: expects every task once, found '{twice}' under two of its names")
    return members


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' occurs twice")
    return dict(pairs)


def _member(path: str, name: str, entry: dict[str, Any], specs: Mapping[str, TaskSpec]) -> Member:
    if name not in specs:
        raise UserError(f"{path}: unknown task {name[:60]!r}; known: {', '.join(sorted(specs))}")
    where = f"{path}: task '{name}'"
    types = get_type_hints(specs[name].options)
    known = [field.name for field in fields(specs[name].options) if field.name not in SHARED]
    options = {}
    for option, value in entry.items():
        if option in SHARED:
            flag = "--" + option.replace("_", "-")
            raise UserError(
                f"{where}: '{option}' is the same for all tasks; give it as {flag} instead"
            )
        if option != WEIGHT and option not in known:
            raise UserError(
                f"{where}: unknown option '{option}'; known: {', '.join(sorted([*known, WEIGHT]))}"
            )
        if option == WEIGHT:
            continue
        value = beside(path, _typed(f"{where}: option '{option}'", value, types[option]))
        if not is_followed(option, value):
            warn_once(path, option, str(value)[:100])
        else:
            options[option] = value
    if not options.get("data"):
        raise UserError(f'{where}: expects "data": "train.tsv,val.tsv", found none')
    for part in options["data"].split(","):
        if not is_readable_path(part.strip()):
            raise UserError(
                f"{where}: 'data' expects files and folders of this machine, found"
                f" {part.strip()[:100]!r}; correct the path"
            )
    weight = entry.get(WEIGHT, 1.0)
    if (
        isinstance(weight, bool)
        or not isinstance(weight, (int, float))
        or not 0 < weight <= MOST_WEIGHT
    ):
        raise UserError(
            f"{where}: 'weight' expects a number above 0 and up to {MOST_WEIGHT:g}, how often each"
            f" row is shown in an epoch; found {json.dumps(weight)[:60]}"
        )
    return Member(name, float(weight), options)


def _typed(where: str, value: Any, annotation: Any) -> Any:
    """The value as the option's type; options that hold JSON may be written as JSON."""
    kinds = set(get_args(annotation) or (annotation,))
    if isinstance(value, (dict, list)) and str in kinds:
        return json.dumps(value)
    if type(value) in (int, float) and float in kinds:
        try:
            return value if int in kinds and type(value) is int else read_decimal(value)
        except ValueError:
            raise UserError(
                f"{where} expects a finite number, found {json.dumps(value)[:60]}"
            ) from None
    if value is None and NoneType in kinds or type(value) in kinds:
        return value
    names = " or ".join(
        sorted(NAMES.get(kind) or str(getattr(kind, "__name__", kind)) for kind in kinds)
    )
    raise UserError(f"{where} expects {names}, found {json.dumps(value)}")


def beside(path: str, value: Any) -> Any:
    """File names, several separated by commas, as seen from the folder of ``path``; other values as
    they are.

    Absolute paths and ``../`` are fine: this call names the file, and the data of its tasks may lie
    anywhere. They are bounded as all stored paths are (``ofa.io.stored_options``): read as data, no
    devices, no network, nothing written.
    """
    if not isinstance(value, str):
        return value
    found = [Path(path).parent / part for part in value.split(",")]
    return ",".join(map(str, found)) if all(map(os.path.isfile, found)) else value


def given(options: Any) -> dict[str, Any]:
    """What the command line changes of the options that every task has."""
    return {
        field.name: getattr(options, field.name)
        for field in fields(TaskOptions)
        if field.name != "data"
        and (field.name in SHARED or getattr(options, field.name) != field.default)
    }


def metric_names(metrics: Mapping[str, list[str]]) -> dict[tuple[str, str], str]:
    """How the metrics of each task are called: by their own names, ``TASK_NAME`` where two tasks
    use the same.

    >>> metric_names({"refcoco": ["score"], "caption": ["cider", "score"]})[("refcoco", "score")]
    'refcoco_score'
    """
    plain = [name for names in metrics.values() for name in names]
    return {
        (task, name): f"{task}_{name}" if plain.count(name) > 1 else name
        for task, names in metrics.items()
        for name in names
    }
