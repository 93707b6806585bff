"""A mixture: which tasks one model learns together, and what each is given. In a file:

    {"caption": {"data": "caption_train.tsv,caption_val.tsv", "eval_cider": true, "weight": 0.2,
                 "eval_args": {"beam": 3, "max_len_b": 30}},
     "[image] how many [text:thing]? -> [text:count]": {"data": "counts.tsv"}}

``weight`` is how often a task's rows are shown in an epoch (default 1), everything else an option
of the task under its command-line name with underscores. Files are looked for beside this file.
In one line, with files and weights alone: ``caption=train.tsv,val.tsv*0.2, vqa_gen=questions.tsv``;
the set of answers is the file of ``ofa prepare`` beside the rows.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ofa.errors import UserError, did_you_mean
from ofa.io.json_files import read_json
from ofa.io.stored_options import is_followed, is_readable_path, warn_once
from ofa.io.values import read_decimal, value_as
from ofa.task.answers import ANSWER_SET, CLASS_SET
from ofa.task.task_spec import TaskOptions, TaskSpec
from ofa.task.template import is_template, parse_template

WEIGHT = "weight"
MOST_WEIGHT = 1e6
# One model has one vocabulary and one image size: these are options of the whole training.
SHARED = (
    "bpe bpe_dir code_dict_size num_bins patch_image_size orig_patch_image_size"
    " max_source_positions max_target_positions decode_on_device uses_ema shuffle"
).split()
EXAMPLE = '{"caption": {"data": "train.tsv,val.tsv", "weight": 0.5}}'
LINE = "caption=train.tsv,val.tsv*0.5, vqa_gen=questions.tsv"
ANSWER_FILES = (ANSWER_SET, Path(ANSWER_SET).with_suffix(".pkl").name, CLASS_SET)
TEMPLATE = "template"  # the task that a line in place of a name is an option of
# of an entry of a line: a name or a "quoted" template, and "=" behind it
NAMED = re.compile(r'(?:^|,)\s*(?:"([^"]+)"|([^",=]+?))\s*=')
TIMES = re.compile(r"\*\s*([0-9.eE+-]+)\s*$")


@dataclass(frozen=True)
class Member:
    """One task of a mixture."""

    name: str  # in this mixture, of templates ``template``, ``template_2``, ...
    task: str  # in fairseq
    weight: float
    options: dict[str, Any]  # by name, as far as they are given


def read_members(path: str, specs: Mapping[str, TaskSpec]) -> list[Member]:
    """The tasks of a file, in its order. Args: specs: every task that there is, by name. Raises:
    UserError naming file, task and option if the file is no such file."""
    expected = f"JSON of task 'joint' such as {EXAMPLE}"
    return members_of(path, read_json(path, expected, pairs_hook=_no_name_twice), specs)


def parse_members(text: str, specs: Mapping[str, TaskSpec]) -> list[Member]:
    """The tasks of a line ``NAME=FILES*WEIGHT, ...``. Raises: UserError."""
    found = list(NAMED.finditer(text))
    ends = [entry.start() for entry in found[1:]] + [len(text)]
    content: dict[str, dict[str, Any]] = {}
    for entry, end in zip(found, ends):
        name, files = entry[1] or entry[2].strip(), text[entry.end() : end].strip()
        if name in content:
            raise UserError(f"--mixture: expects every task once, found '{name}' twice")
        content[name] = {"data": files}
        if times := TIMES.search(files):
            content[name] = {"data": files[: times.start()].strip(), WEIGHT: times[1]}
            with suppress(ValueError):  # a text is refused as a weight
                content[name][WEIGHT] = read_decimal(times[1])
    if not found or found[0].start():
        raise UserError(f"--mixture: expects tasks such as '{LINE}', found {text[:80]!r}")
    members = members_of("--mixture", content, specs, beside_file=False)
    return [_with_answers(member, specs[member.task].options) for member in members]


def _with_answers(member: Member, kind: type[TaskOptions]) -> Member:
    """With the answers beside its first file, if its task takes a set of them."""
    folder = Path(member.options["data"].split(",")[0]).parent
    found = [str(folder / name) for name in ANSWER_FILES if (folder / name).is_file()]
    if not found or "ans2label_file" not in {field.name for field in fields(kind)}:
        return member
    return replace(member, options={"ans2label_file": found[0], **member.options})


def members_of(
    where: str, content: Any, specs: Mapping[str, TaskSpec], beside_file: bool = True
) -> list[Member]:
    """Args: where: the file, or what messages call it. content: task -> its entry."""
    entries = content.values() if isinstance(content, dict) else ()
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"{where}: expects one entry of options per task such as {EXAMPLE}, found"
            f" {json.dumps(content)[:80]}"
        )
    names = {alias: name for name, spec in specs.items() for alias in spec.aliases}
    members: dict[str, Member] = {}  # by task or line
    for key, entry in content.items():
        line = parse_template(key, where).text if is_template(key) else ""
        task = TEMPLATE if line else names.get(str(key), str(key))
        if task not in specs or key == TEMPLATE:
            known = sorted(set(specs) - {TEMPLATE})
            raise UserError(
                f"{where}: unknown task {key[:60]!r}; known: {', '.join(known)}"
                f"{did_you_mean(key, [*known, *names])}"
            )
        called = line or task
        if called in members:
            twice = f"found '{called}' under two of its names"
            raise UserError(f"{where}: expects every task once, {twice}")
        lines = sum(member.task == TEMPLATE for member in members.values())
        name = f"{TEMPLATE}_{lines + 1}" if line and lines else task
        place = f"{where}: task '{called}'"
        options = _options(where, place, entry, specs[task].options, beside_file)
        options |= {TEMPLATE: line} if line else {}
        members[called] = Member(name, task, _weight(place, entry), options)
    return list(members.values())


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' occurs twice")
    return dict(pairs)


def _options(
    path: str, where: str, entry: dict[str, Any], kind: type[TaskOptions], beside_file: bool
) -> dict[str, Any]:
    """The options of an entry that are followed. Raises: UserError."""
    types, options = get_type_hints(kind), {}
    known = {field.name for field in fields(kind)} - {*SHARED, TEMPLATE}
    for option, value in entry.items():
        if option == WEIGHT:
            continue
        if option in SHARED:
            instead = f"give it as --{option.replace('_', '-')} instead"
            raise UserError(f"{where}: '{option}' is the same for all tasks; {instead}")
        if option not in known:
            raise UserError(
                f"{where}: unknown option '{option}'; known: {', '.join(sorted({*known, WEIGHT}))}"
                f"{did_you_mean(option, {*known, WEIGHT})}"
            )
        if isinstance(value, (dict, list)) and str in get_args(types[option]) + (types[option],):
            value = json.dumps(value)  # options that hold JSON may be written as JSON
        value = value_as(f"{where}: option '{option}'", value, types[option])
        value = beside(path, value) if beside_file else value
        if is_followed(option, value):
            options[option] = value
        else:
            warn_once(path, option, str(value)[:100])
    if not options.get("data"):
        raise UserError(f'{where}: expects "data": "train.tsv,val.tsv", found none')
    for part in options["data"].split(","):
        if not is_readable_path(part.strip()):
            raise UserError(
                f"{where}: 'data' expects files and folders of this machine, found"
                f" {part.strip()[:100]!r}; correct the path"
            )
    return options


def _weight(where: str, entry: dict[str, Any]) -> float:
    weight = entry.get(WEIGHT, 1.0)
    if type(weight) not in (int, float) or not 0 < weight <= MOST_WEIGHT:
        raise UserError(
            f"{where}: 'weight' expects a number above 0 and up to {MOST_WEIGHT:g}, how often each"
            f" row is shown in an epoch; found {json.dumps(weight)[:60]}"
        )
    return float(weight)


def beside(path: str, value: Any) -> Any:
    """File names, several separated by commas, as seen from the folder of ``path``; other values as
    they are. Absolute paths and ``../`` are fine, bounded as all stored paths are
    (``ofa.io.stored_options``): read as data, no devices, no network, nothing written."""
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
