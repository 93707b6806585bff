"""torch.compile of a network's layers: the same results, memory is read and written less often."""

import os
import shutil
import sys
from typing import Any

import torch
from torch.utils._triton import has_triton

from ofa.errors import UserError

# of one function in a process, which may hold several networks; beyond, layers run uncompiled
PROGRAMS = 64


def compile_network(network: Any, device: torch.device, backend: Any = "inductor") -> None:
    """From now on the layers of encoder and whole-target decoder run compiled, those of one kind by
    one program, which is made when it is first needed. Names of weights stay.

    Raises: UserError if the network is none of this project, or this machine cannot compile.
    """
    if not getattr(network, "compiles_layers", False):
        found = type(network).__name__
        raise UserError(f"--compile: expects --arch ofa_..., found {found}; leave it out")
    if device.type not in ("cpu", "cuda"):
        raise UserError(
            f"--compile: expects a CPU or an NVIDIA GPU, found {device.type}; leave it out"
        )
    if backend == "inductor" and (missing := missing_compiler(device)):
        raise UserError(f"--compile: expects {missing}, found none; install it, or leave it out")
    settle_compiler()
    network.encoder.compiled_by = network.decoder.compiled_by = backend


def settle_compiler() -> None:
    """Settings of torch.compile for this process."""
    from torch._dynamo import config as dynamo  # seconds of imports
    from torch._inductor import config

    dynamo.recompile_limit = max(dynamo.recompile_limit, PROGRAMS)
    # else a layer is cut where DistributedDataParallel cuts its messages, which fails where a part
    # is given a number, such as a rate of dropout
    dynamo.optimize_ddp = False
    # else a program may wait for compiling processes at its end for minutes (pytorch issue 176968)
    config.quiesce_async_compile_pool = False


def missing_compiler(device: torch.device) -> str | None:
    """What code for the device is made with, if it is not here."""
    if device.type == "cuda":
        return None if has_triton() else "Triton and a GPU that it writes code for"
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(name) else f"the C++ compiler {name}"
