"""One small file per task: every file with a ``SPEC`` (or a list ``SPECS``) is one.

In: the columns of a row. Out: a prompt, a target, how to decode, metrics, a result row; see
``TaskSpec`` in ``ofa.task.task_spec``. Prompts stand here and nowhere else. Others use
``declared_specs`` and ``spec_of``; the ``fairseq_*`` files make fairseq tasks of the
declarations.
"""

import importlib
import pkgutil

from ofa.errors import UserError
from ofa.task.task_spec import TaskSpec


def declared_specs() -> list[TaskSpec]:
    """``SPEC`` (or the list ``SPECS``) of every file of this folder.

    Raises: UserError if two files declare the same name.
    """
    owners: dict[str, str] = {}
    specs = []
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        if module_info.name.startswith(("fairseq_", "_")):
            continue
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for spec in getattr(module, "SPECS", None) or filter(None, [getattr(module, "SPEC", None)]):
            if spec.name in owners:
                raise UserError(
                    f"tasks/{module_info.name}.py: task '{spec.name}' is already declared by "
                    f"tasks/{owners[spec.name]}.py; give one of them another name"
                )
            owners[spec.name] = module_info.name
            specs.append(spec)
    return specs


def spec_of(name: str) -> TaskSpec:
    """The declaration of a task. Raises: UserError if there is none of that name."""
    specs = {spec.name: spec for spec in declared_specs()}
    if name not in specs:
        raise UserError(f"unknown task '{name}'; known: {', '.join(sorted(specs))}")
    return specs[name]
