"""Everything that ``--user-dir ofa`` adds to fairseq."""

import importlib
import pkgutil

import ofa.criterions
import ofa.models
import ofa.tasks
from ofa.trainer import fairseq_compat


def register() -> None:
    """Patch fairseq, then register architectures, criterions and tasks. Safe to call twice.

    Importing the files named ``fairseq_*`` of a folder registers what they define.
    """
    fairseq_compat.install()
    for package in (ofa.models, ofa.criterions, ofa.tasks):
        for info in pkgutil.iter_modules(package.__path__):
            if info.name.startswith("fairseq_"):
                importlib.import_module(f"{package.__name__}.{info.name}")
