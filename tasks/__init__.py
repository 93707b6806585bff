"""One small file per task: every file with a ``SPEC`` (or a list ``SPECS``) is one.

In: the columns of a row. Out: a prompt, a target, how to decode, metrics, a result row; see
``TaskSpec`` in ``ofa.task.task_spec``. Prompts stand here and nowhere else. Others use
``declared_specs`` and ``spec_of``; the ``fairseq_*`` files make fairseq tasks of the
declarations.
"""

import difflib
import importlib
import importlib.metadata
import logging
import pkgutil
from collections.abc import Iterator

from ofa.errors import UserError
from ofa.task.task_spec import TaskSpec
from ofa.task.template import is_template

logger = logging.getLogger(__name__)
GROUP = "ofa.tasks"


def declared_specs() -> list[TaskSpec]:
    """``SPEC`` (or the list ``SPECS``) of every file of this folder, then of installed packages.

    Raises: UserError if two declare the same name.
    """
    owners: dict[str, str] = {}
    specs = []
    for owner, module in (*own_modules(), *installed_modules()):
        for spec in getattr(module, "SPECS", None) or filter(None, [getattr(module, "SPEC", None)]):
            if spec.name in owners:
                raise UserError(
                    f"{owner}: task '{spec.name}' is already declared by {owners[spec.name]}; give"
                    " one of them another name"
                )
            owners[spec.name] = owner
            specs.append(spec)
    return specs


def own_modules() -> Iterator[tuple[str, object]]:
    """The files of this folder."""
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        if not info.name.startswith(("fairseq_", "_")):
            yield f"tasks/{info.name}.py", importlib.import_module(f"{__name__}.{info.name}")


def installed_modules() -> Iterator[tuple[str, object]]:
    """The modules that installed packages name. One that cannot be imported is named in a
    warning and skipped."""
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
        try:
            yield f"{point.value} (entry point {point.name})", importlib.import_module(point.module)
        except ImportError as error:
            logger.warning(
                "task package %s is skipped: expected a module %s, found %s; install it again or"
                " remove it",
                point.name,
                point.module,
                error,
            )


def spec_of(name: str, flag: str = "--task") -> TaskSpec:
    """The declaration of a task by its name or an alias. Raises: UserError beginning with
    ``flag`` if none has it, or several."""
    if is_template(name):
        from ofa.tasks.template import template_spec  # a file of this folder

        return template_spec(name, flag)
    specs = declared_specs()
    found = [spec for spec in specs if spec.name == name] or [
        spec for spec in specs if name in spec.aliases
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{flag}: '{name}' may be {' or '.join(spec.name for spec in found)}; give one of these"
        )
    close = difflib.get_close_matches(name, [known for spec in specs for known in spec.names], n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    listed = ", ".join(
        spec.name + (f" ({', '.join(spec.aliases)})" if spec.aliases else "") for spec in specs
    )
    raise UserError(f"{flag}: unknown task '{name[:60]}'; known: {listed}{hint}")
