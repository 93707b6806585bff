"""Everything that ``--user-dir ofa`` adds to fairseq, in the order in which it has to come."""

import functools
import importlib
import pkgutil

import ofa.criterions
import ofa.models
import ofa.tasks
from ofa import (
    fairseq_adam,
    fairseq_changed_data,
    fairseq_compat,
    fairseq_ema,
    fairseq_interrupt,
    fairseq_light,
    fairseq_nonfinite,
    fairseq_position,
    fairseq_ranks,
    fairseq_resume,
    fairseq_saving,
    fairseq_scheduler,
    fairseq_upstream,
)


@functools.cache
def install_once() -> None:
    """How runs are saved, continued, interrupted and spread over processes."""
    for part in (
        fairseq_saving,
        fairseq_resume,
        fairseq_position,
        fairseq_light,
        fairseq_ema,
        fairseq_interrupt,
        fairseq_ranks,
        fairseq_nonfinite,
        fairseq_adam,
        fairseq_upstream,
        fairseq_changed_data,
    ):
        part.install()


def register() -> None:
    """Mend fairseq, then register scheduler, architectures, criterions and tasks. Safe to call
    twice.

    Importing the files named ``fairseq_*`` of a folder registers what they define.
    """
    fairseq_compat.install()
    fairseq_scheduler.install()
    install_once()
    for package in (ofa.models, ofa.criterions, ofa.tasks):
        for info in pkgutil.iter_modules(package.__path__):
            if info.name.startswith("fairseq_"):
                importlib.import_module(f"{package.__name__}.{info.name}")
