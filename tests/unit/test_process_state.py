"""Loading libraries leaves the process as it was."""

import logging
import multiprocessing
import os
import random
import warnings

import numpy as np
import pytest
import torch

from ofa.process_state import kept_process_state


def change_everything() -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", message="a test")
    os.environ["OFA_TEST_ADDED"] = "1"
    os.environ["OFA_TEST_CHANGED"] = "after"
    del os.environ["OFA_TEST_REMOVED"]
    multiprocessing.set_start_method("spawn", force=True)
    random.random(), np.random.rand(), torch.rand(1)


def state() -> list:
    root = logging.getLogger()
    variables = {name: value for name, value in os.environ.items() if name.startswith("OFA_TEST_")}
    return [
        root.level,
        list(root.handlers),
        list(warnings.filters),
        variables,
        multiprocessing.get_start_method(allow_none=True),
        random.getstate(),
        str(np.random.get_state()),
        torch.get_rng_state().tolist(),
    ]


def test_what_is_changed_inside_is_put_back_also_after_an_error(monkeypatch):
    monkeypatch.setenv("OFA_TEST_CHANGED", "before")
    monkeypatch.setenv("OFA_TEST_REMOVED", "here")
    before = state()
    with kept_process_state():
        change_everything()
        assert all(one != other for one, other in zip(before, state()))
    assert state() == before
    with pytest.raises(KeyError), kept_process_state():
        change_everything()
        raise KeyError
    assert state() == before
