"""Which rows a file has: those of a task, or of one of the four kinds of pretraining files; and so
what its columns are."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ofa.data.rows import open_rows
from ofa.data.shards import name_of, names_shards
from ofa.errors import UserError
from ofa.inference.options import SPLIT
from ofa.task.answers import read_label_file
from ofa.task.columns import Column
from ofa.task.pretraining_tasks import RowKind
from ofa.task.task_spec import TaskSpec
from ofa.tasks import declared_specs, spec_of
from ofa.tasks.pretraining import EXTRAS, PAIRS
from ofa.tokens.bpe import load_language
from ofa.tokens.image_codes import CODE_SIDE

PRETRAINING = {kind.name: kind for kind in (PAIRS, *EXTRAS.values())}
UNIFY = "unify_task"
language = lru_cache(1)(load_language)  # once per process
Schema = TaskSpec | RowKind


@dataclass(frozen=True)
class Settings:
    """What the rules may use besides the cell. Plain data: travels to worker processes."""

    task: str = ""
    width: int = 0  # columns of every row
    columns: tuple[tuple[Column, int], ...] = ()  # what they are, and their numbers
    # content of the column ``type`` -> what columns of such a row are, by their names
    by_type: Mapping[str, Mapping[str, Column]] = field(default_factory=dict)
    max_src: int = 0  # words kept of a source; 0: as the column says
    max_tgt: int = 0  # of a target
    answers: frozenset[str] | None = None  # texts of the answer set
    num_codes: int = 8192  # image codes in the vocabulary
    codes: int = 0  # of a row; 0: any
    image_side: int = 0  # pixels that every image must have; 0: any
    bpe_dir: str = ""  # vocabulary folder, if there is one
    images: bool = True  # decode them
    # rows may be without what is to be predicted, and have answers that no model can give
    evaluation: bool = False
    held_out: bool = False  # rows of validation: training rows need not have their answers

    def number_of(self, name: str) -> int | None:
        return next((number for column, number in self.columns if column.name == name), None)


def schemas() -> dict[str, Schema]:
    """Every kind of file by name."""
    return {**{spec.name: spec for spec in declared_specs()}, **PRETRAINING}


def settings_of(path: str, options: Any) -> Settings:
    """What the rules may use for the rows of a file. Args: options: of ``ofa doctor``.

    Raises: UserError if the task is unknown, or its files have other names or columns.
    """
    schema = schema_of(path, options.task)
    if schema is None:
        return Settings(images=False)
    selected = options.selected_cols
    if selected and names_shards(path):  # shards of others have names for their columns
        selected = ",".join(map(str, open_rows(path, selected).selected_cols))
    numbers = schema.numbers(selected)
    codes, side = codes_of(schema, options.code_image_size)
    labels, bpe_dir = options.ans2label_file, ""
    with suppress(UserError):  # of a broken folder, which is said once, not for every text
        if options.bpe_dir and language(options.bpe_dir):
            bpe_dir = options.bpe_dir
    return Settings(
        task=schema.name,
        columns=tuple(zip(schema.columns_named(numbers), numbers.values())),
        by_type=getattr(schema, "by_type", {}),
        max_src=options.max_src_length or 0,
        max_tgt=options.max_tgt_length or 0,
        num_codes=options.code_dict_size,
        codes=codes,
        image_side=side,
        answers=frozenset(read_label_file(labels)) if labels else None,
        bpe_dir=bpe_dir,
        images=not options.no_images,
        evaluation=options.evaluation or Path(path).stem.endswith("_test"),
        held_out=bool((split := SPLIT.search(Path(path).name)) and split[1] != "train"),
    )


def schema_of(path: str, task: str | None = None) -> Schema | None:
    """The rows of a file, by its name where ``task`` does not say it; None: unknown.

    ``unify_task`` has several kinds of files.
    """
    if task in PRETRAINING:
        return PRETRAINING[task]
    if task and task != UNIFY:
        return spec_of(task)
    file_name = Path(path).name
    if os.path.isdir(path):  # the shards in it tell
        file_name = next((name_of(str(shard)) for shard in Path(path).glob("*.tar")), "")
    known: Mapping[str, Schema] = PRETRAINING if task == UNIFY else schemas()
    starts = {
        start: schema
        for schema in known.values()
        for start in schema.files
        if file_name.startswith(start)
    }
    if not starts and task == UNIFY:
        raise UserError(
            f"{file_name}: expected a pretraining file whose name begins with"
            f" {', '.join(PRETRAINING)}; say what it is with --task vision_language, text, image or"
            " detection"
        )
    return starts[max(starts, key=len)] if starts else None


def codes_of(schema: Schema, code_image_size: int | None = None) -> tuple[int, int]:
    """Codes of a row (0: any), and the side in pixels that its image must have (0: any). In
    pretraining codes are of the middle."""
    if not schema.has("image_codes"):
        return 0, 0
    usual: int = getattr(schema.options(), "code_image_size", 0)
    side = code_image_size or usual
    return (side // CODE_SIDE) ** 2, 2 * side if isinstance(schema, RowKind) else 0
