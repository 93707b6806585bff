"""CUDA graphs of the pretend GPU: what is launched while one is recorded is repeated, not computed.

    with PretendGPU() as gpu:
        graph.capture_begin()
        y = x + 1          # y is not known yet
        graph.capture_end()
        x.copy_(other)
        graph.replay()     # y is other + 1, in the same memory; counted as one operator

As on a real GPU numbers of the host stay as they were, and waiting is an error. Where a recorded
operator reads a tensor that the host replaced meanwhile, the graph reads the old one.
"""

from contextlib import nullcontext
from typing import Any, ClassVar, Optional

import pretend_gpu
import torch
from pretend_gpu import PretendGPU, PretendTensor, host
from torch import Tensor
from torch.utils import _pytree as pytree

computes = pretend_gpu.dispatch


class PretendGraph:
    """Stands for ``torch.cuda.CUDAGraph``."""

    recording: ClassVar[Optional["PretendGraph"]] = None
    made: ClassVar[list["PretendGraph"]] = []

    def __init__(self) -> None:
        # function, arguments on the CPU, results (None: an argument is changed in place)
        self.operators: list[tuple[Any, Any, Any, Optional[list[Tensor]]]] = []
        PretendGraph.made.append(self)

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        PretendGraph.recording = self

    def capture_end(self) -> None:
        PretendGraph.recording = None

    def take(self, function, args, kwargs):
        """Record an operator. Returns: what it will have made."""
        gpu = PretendGPU.active
        assert gpu is not None
        writes = function._schema.is_mutable
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        inner = pytree.tree_map_only(PretendTensor, host, (args, kwargs))
        if "device" in kwargs:
            inner[1]["device"] = torch.device("cpu")
        before = gpu.waits.copy(), gpu.operators.copy()
        if writes:
            gpu.count(function, args, kwargs, tensors)
            out = kwargs.get("out", args[0])
        else:
            out = computes(function, args, kwargs)
        if gpu.waits != before[0]:
            raise RuntimeError("operation not permitted when stream is capturing")
        launches = gpu.operators != before[1]
        gpu.operators = before[1]
        if writes:
            self.operators.append((function, *inner, None))
        elif launches:  # no view
            results = [host(x) for x in pytree.tree_leaves(out) if isinstance(x, Tensor)]
            self.operators.append((function, *inner, results))
        return out

    def replay(self) -> None:
        assert PretendGPU.active is not None
        PretendGPU.active.operators["graph"] += 1
        for function, args, kwargs, results in self.operators:
            found = function(*args, **kwargs)
            if results is not None:
                new = [x for x in pytree.tree_leaves(found) if isinstance(x, Tensor)]
                for kept, made in zip(results, new, strict=True):
                    kept.copy_(made)


def dispatch(function, args, kwargs):
    """As that of the pretend GPU, but recorded where a graph is."""
    flat = pytree.tree_leaves((args, kwargs))
    device = kwargs.get("device")
    makes = device is not None and torch.device(device).type == "cuda"
    of_gpu = makes or any(isinstance(x, PretendTensor) for x in flat)
    if PretendGraph.recording is not None and of_gpu:
        return PretendGraph.recording.take(function, args, kwargs)
    return computes(function, args, kwargs)


class PretendStream:
    """A stream or an event: nothing runs ahead here."""

    def __init__(self, *device: Any) -> None: ...
    def wait_stream(self, other: "PretendStream") -> None: ...
    def record(self, *stream: "PretendStream") -> None: ...
    def synchronize(self) -> None: ...


def pretend_graphs(monkeypatch) -> list[PretendGraph]:
    """``torch.cuda`` with graphs. Returns: those that are recorded from now on."""
    monkeypatch.setattr(pretend_gpu, "dispatch", dispatch)
    monkeypatch.setattr(PretendGraph, "made", [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PretendGraph)
    monkeypatch.setattr(torch.cuda, "Stream", PretendStream)
    monkeypatch.setattr(torch.cuda, "Event", PretendStream)
    monkeypatch.setattr(torch.cuda, "current_stream", PretendStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    return PretendGraph.made
