"""A GPU for machines without one: it computes on the CPU, and counts what costs time on a GPU.

    with PretendGPU() as gpu:
        model, batch = gpu.move(model), gpu.move(batch)
        gpu.reset()
        model(**batch)
        gpu.waits      # where the host waits for the GPU: {"item models/encoder.py:9": 1}
        gpu.mixed      # operators that mix tensors of CPU and GPU, an error on a real GPU
        gpu.operators  # operators by name; each is about one kernel launch

A tensor of it says ``cuda:0`` and holds one of the CPU. Autograd works, as do ``torch.zeros(...,
device="cuda")`` and copies between both. Not seen: tensors that torch makes inside an operator,
lists that index, and the time that anything takes. Copies to the GPU with ``non_blocking`` do not
wait, copies to the CPU always do.
"""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

GPU = torch.device("cuda", 0)
ROOT = str(Path(__file__).resolve().parents[2]) + "/"
OWN = tuple(ROOT + name for name in "ofa/ models/ data/ criterions/ tasks/".split())

aten = torch.ops.aten
# the size of a result, or what Python does next, depends on numbers that are on the GPU
READS = {
    "_local_scalar_dense": "item",
    "is_nonzero": "item",
    "equal": "equal",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "_unique2": "unique",
    "unique_dim": "unique",
    "unique_consecutive": "unique",
    "bincount": "bincount",
    "repeat_interleave": "repeat_interleave without output_size",
}
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
COPIES = {"_to_copy", "copy_", "lift_fresh"}
VIEWS = set(
    "view _unsafe_view expand slice select transpose permute t unsqueeze squeeze detach alias"
    " as_strided unbind split split_with_sizes unfold lift_fresh _reshape_alias diagonal narrow"
    " view_as_real".split()
)


def place() -> str:
    """``file:line`` of the innermost call in the project or in fairseq."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(OWN):
            return f"{name.removeprefix(ROOT)}:{frame.f_lineno}"
        if "/site-packages/fairseq" in name:
            return f"{name.split('/site-packages/')[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


class PretendTensor(torch.Tensor):
    """A tensor that says it is on the GPU. To torch's C++ it is on the CPU: autograd needs no
    driver."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "PretendTensor":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=inner.device,
        )
        made.inner = inner
        return made

    device = property(lambda self: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    def __repr__(self, **unused: Any) -> str:  # type: ignore[override]
        return f"PretendTensor({self.inner!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})


def dispatch(function, args, kwargs):
    """An operator on tensors of either device."""
    tensors: list[Tensor] = []
    inner = map_tensors(lambda x: tensors.append(x) or host(x), (args, kwargs))
    on_gpu = any(isinstance(x, PretendTensor) for x in tensors)
    device = kwargs.get("device")
    makes = device is not None and torch.device(device).type == "cuda"
    if not tensors and torch._C._current_graph_task_id() >= 0:
        makes = True  # autograd's own zeros, which it makes on the device of C++
    if PretendGPU.active is not None and (on_gpu or makes):
        PretendGPU.active.count(function, args, kwargs, tensors)
    on_cpu = {} if device is None else {"device": torch.device("cpu")}
    out = function(*inner[0], **{**inner[1], **on_cpu})
    if on_gpu or makes:
        out = map_tensors(wrap, out)
    return return_and_correct_aliasing(function, args, kwargs, out) if on_gpu else out


def map_tensors(change: Callable[[Tensor], Any], thing: Any) -> Any:
    """A nest of lists, tuples and dicts whose tensors are changed."""
    if isinstance(thing, Tensor):
        return change(thing)
    if isinstance(thing, list | tuple):
        return type(thing)([map_tensors(change, part) for part in thing])
    if isinstance(thing, dict):
        return {key: map_tensors(change, part) for key, part in thing.items()}
    return thing


def wrap(tensor: Tensor) -> PretendTensor:
    return tensor if isinstance(tensor, PretendTensor) else PretendTensor(tensor)


class Moves(TorchFunctionMode):
    """Ways from one device to another, which torch's C++ would take with a driver only."""

    def __init__(self, gpu: "PretendGPU") -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in MOVES:
            return MOVES[function](self.gpu, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


class PretendGPU(TorchDispatchMode):
    """Inside ``with`` torch has the GPU; one at a time."""

    active: ClassVar[Optional["PretendGPU"]] = None
    _mode_key = torch._C._TorchDispatchModeKey.FAKE  # torch looks for no driver then

    def __init__(self) -> None:
        super().__init__()
        self.moves = Moves(self)
        self.waits: Counter[str] = Counter()
        self.mixed: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()

    def __enter__(self):
        PretendGPU.active = self
        self.lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self.moves.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.moves.__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self.lifts)
        PretendGPU.active = None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})

    def reset(self) -> None:
        for counter in (self.waits, self.mixed, self.operators):
            counter.clear()

    @property
    def own_waits(self) -> Counter[str]:
        """Those that code of this project asks for, or a library it called; without fairseq's."""
        waits = self.waits.items()
        return Counter({key: n for key, n in waits if not key.split()[-1].startswith("fairseq")})

    def wait(self, kind: str) -> None:
        self.waits[f"{kind} {place()}"] += 1

    def count(self, function, args, kwargs, tensors) -> None:
        """One operator with a tensor of the GPU."""
        name = function.overloadpacket.__name__
        indices = [x for x in args[1] if isinstance(x, Tensor)] if name in INDEXING else []
        if name in READS and not (name == "repeat_interleave" and kwargs.get("output_size")):
            self.wait(READS[name])
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.wait("index by bool")
        if any(not isinstance(index, PretendTensor) for index in indices):
            self.wait("index from the CPU")
        if name in COPIES:
            self.count_copy(name, args, kwargs)
        else:
            known = {id(index) for index in indices}
            for x in tensors:  # scalars of the CPU may take part
                if not isinstance(x, PretendTensor) and x.dim() > 0 and id(x) not in known:
                    self.mixed[f"{name} {tuple(x.shape)} {place()}"] += 1
        if name not in VIEWS:
            self.operators[name] += 1

    def count_copy(self, name: str, args, kwargs) -> None:
        if name == "copy_":
            to_gpu, from_gpu = (isinstance(x, PretendTensor) for x in args[:2])
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        else:
            to_gpu, from_gpu = True, isinstance(args[0], PretendTensor)
            non_blocking = kwargs.get("non_blocking", False)
        if to_gpu and not from_gpu and not non_blocking:
            self.wait("copy to the GPU")
        if from_gpu and not to_gpu:
            self.wait("copy to the CPU")

    def move(self, thing: Any) -> Any:
        """A module (in place), a tensor or a nest of them, on the GPU; not counted."""
        if isinstance(thing, nn.Module):
            return self.move_module(thing)
        return map_tensors(wrap, thing)

    def move_module(self, module: nn.Module) -> nn.Module:
        moved: dict[int, nn.Parameter] = {}  # shared ones stay shared
        for part in module.modules():
            for name, own in part._parameters.items():
                if own is not None and not isinstance(own, PretendTensor):
                    if id(own) not in moved:
                        moved[id(own)] = nn.Parameter(wrap(own.detach()), own.requires_grad)
                    part._parameters[name] = moved[id(own)]
            for name, buffer in part._buffers.items():
                part._buffers[name] = None if buffer is None else wrap(buffer)
        return module


def host(tensor: Tensor) -> Tensor:
    """The numbers of a tensor, on the CPU, for a test to look at; not counted."""
    return tensor.inner if isinstance(tensor, PretendTensor) else tensor


# --- what a tensor of the GPU does instead of torch's own ways from one device to another


class ToCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.inner

    @staticmethod
    def backward(ctx, grad):
        return wrap(grad)


def to_cpu(gpu: PretendGPU, x: Tensor, *unused, **also_unused) -> Tensor:
    if not isinstance(x, PretendTensor):
        return x
    gpu.wait("copy to the CPU")
    return ToCpu.apply(x) if x.requires_grad and torch.is_grad_enabled() else x.detach().inner


def to_gpu(gpu: PretendGPU, x: Tensor, *args, non_blocking: bool = False, **unused) -> Tensor:
    if not isinstance(x, PretendTensor) and not non_blocking:
        gpu.wait("copy to the GPU")
    return wrap(x)


def to(gpu: PretendGPU, x: Tensor, *args, non_blocking: bool = False, **kwargs) -> Tensor:
    device, dtype = parse_to(args, kwargs)
    if device is not None:
        x = to_cpu(gpu, x) if device.type == "cpu" else to_gpu(gpu, x, non_blocking=non_blocking)
    if dtype is None or x.dtype == dtype:
        return x
    return x.to(dtype=dtype)


def parse_to(args, kwargs) -> tuple[Optional[torch.device], Optional[torch.dtype]]:
    """What ``to`` was asked for."""
    device = dtype = None
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, str | torch.device):
            device = torch.device(value)
        elif type(value) is int:  # the number of a GPU; a bool is another argument
            device = torch.device("cuda", value)
    return device, dtype


def new(gpu: PretendGPU, x: Tensor, *args) -> Tensor:
    made = host(x).new(*args)
    return wrap(made) if isinstance(x, PretendTensor) else made


def tolist(gpu: PretendGPU, x: Tensor) -> Any:
    if isinstance(x, PretendTensor):
        gpu.wait("tolist")
    return host(x).tolist()


def numpy(gpu: PretendGPU, x: Tensor, *args, **kwargs) -> Any:
    if isinstance(x, PretendTensor):
        raise TypeError(f"can't convert cuda:0 device type tensor to numpy ({place()})")
    return x.numpy(*args, **kwargs)


MOVES = {
    torch.Tensor.cpu: to_cpu,
    torch.Tensor.cuda: to_gpu,
    torch.Tensor.to: to,
    torch.Tensor.type_as: to,
    torch.Tensor.new: new,
    torch.Tensor.tolist: tolist,
    torch.Tensor.numpy: numpy,
}


def pretend_cuda(monkeypatch, gpu: PretendGPU) -> None:
    """What programs ask ``torch.cuda`` for, and modules that are moved: as with the one GPU."""
    properties = SimpleNamespace(
        name="Pretend GPU", major=9, minor=0, total_memory=80 << 30, multi_processor_count=132
    )
    answers = dict(
        is_available=True,
        is_initialized=True,
        device_count=1,
        current_device=0,
        synchronize=None,
        set_device=None,
        empty_cache=None,
        manual_seed=None,
        manual_seed_all=None,
        reset_peak_memory_stats=None,
        max_memory_allocated=0,
        memory_allocated=0,
        memory_summary="",
        get_device_name="Pretend GPU",
        get_device_properties=properties,
    )
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, answer=answer, **kwargs: answer)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *device: torch.get_rng_state())
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, *device: torch.set_rng_state(state)
    )
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *device: self)
    stock = nn.Module.to

    def move(module, *args, **kwargs):
        device, dtype = parse_to(args, kwargs)
        if device is not None and device.type == "cuda":
            gpu.move(module)
        return module if dtype is None else stock(module, dtype)

    monkeypatch.setattr(nn.Module, "to", move)
    monkeypatch.setattr(nn.Module, "cuda", lambda module, *device: gpu.move(module))
