"""Everything that ``--user-dir ofa`` adds to fairseq, in the order in which it has to come."""

import functools
import importlib
import pkgutil

import ofa.criterions
import ofa.models
import ofa.tasks
from ofa.trainer import (
    fairseq_adam,
    fairseq_compat,
    fairseq_data_changes,
    fairseq_data_position,
    fairseq_distributed,
    fairseq_ema,
    fairseq_lr_scheduler,
    fairseq_nonfinite,
    fairseq_peft,
    fairseq_resume,
    fairseq_saving,
    fairseq_signals,
    fairseq_upstream,
)


@functools.cache
def install_once() -> None:
    """How runs are saved, continued, interrupted and spread over processes."""
    for part in (
        fairseq_saving,
        fairseq_resume,
        fairseq_data_position,
        fairseq_peft,
        fairseq_ema,
        fairseq_signals,
        fairseq_distributed,
        fairseq_nonfinite,
        fairseq_adam,
        fairseq_upstream,
        fairseq_data_changes,
    ):
        part.install()


def register() -> None:
    """Mend fairseq, then register scheduler, architectures, criterions and tasks. Safe to call
    twice.

    Importing the files named ``fairseq_*`` of a folder registers what they define.
    """
    fairseq_compat.install()
    fairseq_lr_scheduler.install()
    install_once()
    for package in (ofa.models, ofa.criterions, ofa.tasks):
        for info in pkgutil.iter_modules(package.__path__):
            if info.name.startswith("fairseq_"):
                importlib.import_module(f"{package.__name__}.{info.name}")
