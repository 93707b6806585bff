"""Functions in processes of their own, which may be killed: forks of the server of ``programs``, so
that none imports torch and fairseq anew."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import IO

from programs import ROOT, interpreter


def start(
    work: Callable, arguments: tuple, output: IO | None = None, **settings: str
) -> subprocess.Popen:
    """``work(*arguments)`` in the environment of this process with some settings more; work and
    arguments have to be picklable. Args: output: what it prints goes there."""
    environment = {**os.environ, **settings}
    search = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [interpreter(), __file__],
        env={**environment, "PYTHONPATH": os.pathsep.join(search)},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output and subprocess.STDOUT,
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        pickle.dump((sys.path, environment.get("PYTHONPATH")), pipe)
        pickle.dump((work, arguments), pipe)
    return process


def _called() -> None:
    """What the process does."""
    sys.path[:], search = pickle.load(sys.stdin.buffer)
    del os.environ["PYTHONPATH"]
    if search is not None:
        os.environ["PYTHONPATH"] = search
    import torch

    import ofa

    os.fsync = lambda handle: None  # as in the tests' own process
    # waiting for a second thread costs more than it gives in a network as small as the tests'
    torch.set_num_threads(1)
    ofa.register_fairseq_plugin()
    work, arguments = pickle.load(sys.stdin.buffer)
    work(*arguments)


if __name__ == "__main__":
    _called()
