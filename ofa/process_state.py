"""What a process has once: logging, warnings, environment, random numbers, how processes start.

Loading fairseq changes all of it: one of its modules sets the root logger to DEBUG, its libraries
set variables, one asks for the start method and so fixes it. Commands may live with that; programs
that use this project as a library may not.
"""

import logging
import multiprocessing
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_process_state() -> Iterator[None]:
    """Afterwards the process is as it was, whatever was loaded inside.

    What stays: imported modules, and an entry that absl puts into ``sys.meta_path``. Threads that
    change the same meanwhile lose their change: load models before a service starts its threads.
    """
    import numpy as np  # here, as commands that load neither import this module
    import torch

    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    filters, environment = list(warnings.filters), dict(os.environ)
    start_method = multiprocessing.get_start_method(allow_none=True)
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        warnings.resetwarnings()
        warnings.filters = filters
        # what differs alone: other threads may be reading
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        for name, value in environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        multiprocessing.set_start_method(start_method, force=True)  # None: nobody has chosen yet
        random.setstate(generators[0])
        np.random.set_state(generators[1])
        torch.set_rng_state(generators[2])


def silence_known_warnings() -> None:
    """For commands: remarks of hydra, ``torch.cuda.amp`` and Pillow on calls inside libraries."""
    for category, message in (
        (UserWarning, r".*pin_memory.* no accelerator.*"),
        (FutureWarning, r".*torch\.cuda\.amp\..*is deprecated.*"),
        (FutureWarning, r".*torch\.nn\.utils\.weight_norm.*"),
        # hydra's, which names a place outside of hydra: only the message tells
        (UserWarning, r"\s*'\w+' is validated against ConfigStore schema"),
    ):
        warnings.filterwarnings("ignore", message, category)
    warnings.filterwarnings("ignore", module=r"hydra\..*", category=UserWarning)
    # on palettes, EXIF and size; errors still raise
    warnings.filterwarnings("ignore", module=r"PIL\..*")
