"""One small file per task: every file with a ``SPEC`` (or a list ``SPECS``) is one.

In: the columns of a row. Out: a prompt, a target, how to decode, metrics, a result row; see
``TaskSpec`` in ``ofa.task.task_spec``. Prompts stand here and nowhere else. Others use
``declared_specs`` and ``spec_of``; the ``fairseq_*`` files make fairseq tasks of them.
"""

import difflib
import functools
import importlib
import importlib.metadata
import logging
import pkgutil

from ofa.errors import UserError
from ofa.task.task_spec import TaskSpec
from ofa.task.template import is_template

logger = logging.getLogger(__name__)
GROUP = "ofa.tasks"
OTHERS = ("joint", "template", "unify_task")  # tasks of this folder that are no SPEC


def declared_specs() -> list[TaskSpec]:
    """``SPEC`` (or the list ``SPECS``) of every file of this folder, then of installed packages.
    Raises: UserError if two files declare the same name."""
    owners = dict.fromkeys(OTHERS, "tasks/fairseq_*.py")
    specs = []
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        if info.name.startswith(("fairseq_", "_")):
            continue
        owner = f"tasks/{info.name}.py"
        for spec in _specs_in(importlib.import_module(f"{__name__}.{info.name}")):
            if other := owners.get(spec.name):
                raise UserError(
                    f"{owner}: task '{spec.name}' is already declared by {other}; rename one"
                )
            owners[spec.name] = owner
            specs.append(spec)
    points = importlib.metadata.entry_points(group=GROUP)
    for point in sorted(points, key=lambda point: point.name):
        for spec in _installed_specs(point):
            if taken := owners.get(spec.name):
                _warn_once(point, f"a task with a name of its own, found '{spec.name}' of {taken}")
            else:
                owners[spec.name] = f"{point.value} (entry point {point.name})"
                specs.append(spec)
    return specs


def _specs_in(module: object) -> list[TaskSpec]:
    return list(getattr(module, "SPECS", None) or filter(None, [getattr(module, "SPEC", None)]))


def _installed_specs(point: importlib.metadata.EntryPoint) -> list[TaskSpec]:
    """The declarations of the module that an installed package names. One that cannot be imported
    or declares nothing is named in a warning and skipped: it does not stop the other tasks."""
    try:
        specs = _specs_in(importlib.import_module(point.module))
    except ImportError as error:
        return _warn_once(point, f"a module {point.module}, found {error}")
    except (Exception, SystemExit) as error:
        found = f"{type(error).__name__} ({error})"
        return _warn_once(point, f"a module that can be imported, found {found}")
    if not specs or not all(isinstance(spec, TaskSpec) for spec in specs):
        return _warn_once(point, f"a SPEC or SPECS of TaskSpec in {point.module}, found none")
    return specs


@functools.cache
def _warn_once(point: importlib.metadata.EntryPoint, why: str) -> list[TaskSpec]:
    remedy = "install another version or remove it"
    logger.warning("task package %s is skipped: expected %s; %s", point.name, why, remedy)
    return []


def specs_called(name: str) -> list[TaskSpec]:
    """The tasks of a name or an alias, else those of a verb."""
    specs = declared_specs()
    return [spec for spec in specs if name in spec.names] or [
        spec for spec in specs if name == spec.verb
    ]


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
        names = " or ".join(spec.name for spec in found)
        raise UserError(f"{flag}: '{name}' may be {names}; give one of these")
    close = difflib.get_close_matches(name, [known for spec in specs for known in spec.names], n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    if name == "template":
        hint = f"; a task in one line is the line itself: {flag} '[image] ... -> [text:answer]'"
    listed = ", ".join(
        spec.name + (f" ({', '.join(spec.aliases)})" if spec.aliases else "") for spec in specs
    )
    raise UserError(f"{flag}: unknown task '{name[:60]}'; known: {listed}{hint}")
