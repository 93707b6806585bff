"""Which rows a file has: those of a task, or of one of the four kinds of pretraining files."""

from collections.abc import Mapping

from ofa.errors import UserError
from ofa.task.pretraining_tasks import RowKind
from ofa.task.task_spec import TaskSpec
from ofa.tasks import declared_specs, spec_of
from ofa.tasks.pretraining import EXTRAS, PAIRS
from ofa.tokens.image_codes import CODE_SIDE

PRETRAINING = {kind.name: kind for kind in (PAIRS, *EXTRAS.values())}
UNIFY = "unify_task"
Schema = TaskSpec | RowKind


def schemas() -> dict[str, Schema]:
    """Every kind of file by name."""
    return {**{spec.name: spec for spec in declared_specs()}, **PRETRAINING}


def schema_of(file_name: str, task: str | None = None) -> Schema | None:
    """The rows of a file, by its name where ``task`` does not say it; None: unknown. Args: task:
    ``unify_task`` has several kinds of files.

    Raises: UserError if there is no such task, or its file has another name.
    """
    if task in PRETRAINING:
        return PRETRAINING[task]
    if task and task != UNIFY:
        return spec_of(task)
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
