"""``--ddp-backend fully_sharded`` by torch's FSDP2: each process keeps a part of every weight,
gradient and moment, and gathers the weights of a layer while it computes with them.

The optimizer sees the parts as plain tensors and is that of every other run. A network is loaded
whole and divided then; a checkpoint has whole tensors, in the form of one process.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from fairseq.optim import FairseqOptimizer
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd import Variable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_leaves

from ofa.trainer.fairseq_adam import innermost, norm_of_grads
from ofa.trainer.fairseq_distributed import own_part
from ofa.trainer.fairseq_optim import MOMENTS, fit_state
from ofa.trainer.fairseq_resume import master_weights


def divide(network: Any, mesh: DeviceMesh) -> None:
    """Divide a network among processes, in place: layer by layer, and all the rest, which is whole
    from the beginning of a forward pass to the end of the backward pass."""
    for tensor in (*network.parameters(), *network.buffers()):  # as DistributedDataParallel does
        there = tensor.data.to(mesh.device_type)
        dist.broadcast(there, 0, mesh.get_group())
        tensor.data.copy_(there)
    for layer in (*network.encoder.layers, *network.decoder.layers):
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
    if mesh.device_type == "cpu":
        network.set_force_sum_reduction_for_comms(True)  # gloo has no averages
    # now: a layer of its own, in a generation, would take itself for the whole network
    network._get_fsdp_state()._lazy_init()
    EvenPasses(network, mesh)


def divide_as(network: nn.Module, other: nn.Module) -> bool:
    """Divide a network as another of the same kind is. Returns: whether it was not yet."""
    if isinstance(network, FSDPModule):
        return False
    like: Any = next(iter(other.parameters()))
    divide(network, like.device_mesh)
    return True


class EvenPasses:
    """Lets all processes gather and reduce the same, whatever their batches are.

    In a step of pretraining some may have a second batch and others not: these compute with two
    tokens, for nothing. Parameters without a gradient here that have one elsewhere get zeros.
    """

    def __init__(self, network: nn.Module, mesh: DeviceMesh) -> None:
        self.network, self.group, self.device = network, mesh.get_group(), mesh.device_type
        self.fillers, self.waits = 0, False
        network.register_forward_pre_hook(self.add_fillers, with_kwargs=True)
        network.register_forward_hook(self.take_fillers, prepend=True)  # before FSDP's own

    def largest(self, numbers: list[int]) -> list[int]:
        """Each number, as large as on any process."""
        found = torch.tensor(numbers, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX, self.group)
        return found.tolist()

    def add_fillers(self, network: nn.Module, args: tuple, inputs: dict) -> tuple[tuple, dict]:
        batches, self.fillers = inputs.get("batches"), 0
        if batches is None:
            return args, inputs
        (most,) = self.largest([len(batches)])
        self.fillers = most - len(batches)
        texts = {name: batches[0][name][:1, :2] for name in ("src_tokens", "prev_output_tokens")}
        return args, {**inputs, "batches": [*batches, *[texts] * self.fillers]}

    def take_fillers(self, network: nn.Module, args: tuple, outputs: Any) -> Any:
        if self.fillers:
            (logits, extra), *others = outputs
            for nothing, _ in others[-self.fillers :]:
                logits = logits + 0 * nothing.sum()
            outputs = [(logits, extra), *others[: -self.fillers]]
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(self.begin_backward)
        return outputs

    def begin_backward(self, gradient: Tensor) -> None:
        """Have the gradients completed at the end of this backward pass, before FSDP adds up those
        of what is no layer."""
        if not self.waits:
            self.waits = True
            Variable._execution_engine.queue_callback(self.complete_gradients)

    def complete_gradients(self) -> None:
        self.waits = False
        params = [param for param in self.network.parameters() if param.requires_grad]
        here = [not isinstance(it, DTensor) and it.grad is not None for it in params]
        for param, anywhere in zip(params, self.largest(list(map(int, here)))):
            if anywhere and param.grad is None:
                param.grad = torch.zeros_like(param)


def divided_modules(network: nn.Module) -> list[FSDPModule]:
    return [module for module in network.modules() if isinstance(module, FSDPModule)]


@contextmanager
def gathered(*networks: nn.Module) -> Iterator[None]:
    """Inside, each process has whole weights: to generate, which takes each its own number of
    steps. Networks that are not divided are as ever."""
    divided = [module for network in networks for module in divided_modules(network)]
    for module in divided:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
        module.set_reshard_after_backward(False, recurse=False)
    try:
        yield
    finally:
        for module in divided:
            module.reshard()
            module.set_reshard_after_forward(module not in networks, recurse=False)
            module.set_reshard_after_backward(True, recurse=False)


# --- parts and wholes


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """What this process has of a whole tensor that is divided as another one is."""
    whole = whole.to(like.device)
    if not isinstance(like, DTensor):
        return whole
    placed = like.device_mesh, like.placements
    return distribute_tensor(whole, *placed, src_data_rank=None).to_local().clone()


def whole_of(part: Tensor, like: Tensor, keeps: bool) -> Tensor | None:
    """The opposite, for which all processes have to ask. Returns: it on the CPU; None on a process
    that does not keep it."""
    if isinstance(like, DTensor):
        placed = like.device_mesh, like.placements
        part = DTensor.from_local(part, *placed, shape=like.shape, stride=like.stride())
        part = part.full_tensor()
    return part.detach().cpu() if keeps else None


def whole_dict(tensors: Any, like: Mapping[str, Tensor], keeps: bool) -> Any:
    """A dict of parts with whole tensors in their place; one with several names stays one. Args:
    like: by the same names."""
    found: dict[int, Tensor | None] = {}
    for name, tensor in tensors.items():
        if id(tensor) not in found:
            found[id(tensor)] = whole_of(own_part(tensor), like[name], keeps)
        tensors[name] = found[id(tensor)]
    return tensors


class DividedNetwork:
    """A network of which this process trains a part, as a run of fairseq needs it.

    Args: network: is divided in place. group: of processes. device: "cuda" or "cpu".
    Attributes: parts: of the parameters that train, which the optimizer takes for parameters.
    """

    def __init__(self, network: Any, group: Any, device: str) -> None:
        divide(network, DeviceMesh.from_group(group, device))
        self.network, self.group, self.modules = network, group, divided_modules(network)
        self.params = [param for param in network.parameters() if param.requires_grad]
        self.parts = nn.ParameterList(nn.Parameter(own_part(param)) for param in self.params)
        network.all_reduce_grads = self.take_gradients  # called by fairseq after backward passes
        self.gathered: dict[str, Any] = {}
        self.masters: list[Any] = []  # float32 weights of a 16-bit run, gathered

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Give them to the parts, which change now: whole weights would be those of before."""
        self.gathered = {}  # of a save that wrote no file
        for module in self.modules:
            module.reshard()
        for param, part in zip(self.params, self.parts):
            part.grad = None if param.grad is None else own_part(param.grad)
            param.grad = None

    def adopt(self, optimizer: FairseqOptimizer) -> None:
        """Let an optimizer of the parts clip and load as one of the whole parameters would."""
        inner = innermost(optimizer)

        def over_processes(norm: Tensor) -> Tensor:
            squared = norm**2
            dist.all_reduce(squared, group=self.group)
            return squared**0.5

        def clip_grad_norm(max_norm: float, aggregate_norm_fn: Any = None) -> Tensor:
            return norm_of_grads(inner, max_norm, over_processes)

        def load_state_dict(state_dict: dict, overrides: dict | None = None) -> None:
            fit_state(state_dict, self.params, self.params)
            places = [index for group in state_dict["param_groups"] for index in group["params"]]
            state = state_dict["state"]
            cut = {
                index: of_moments(part_of, state[index], param)
                for index, param in zip(places, self.params)
                if index in state
            }
            type(optimizer).load_state_dict(optimizer, {**state_dict, "state": cut}, overrides)

        inner.clip_grad_norm, optimizer.load_state_dict = clip_grad_norm, load_state_dict

    def cut_masters(self, exact: dict[str, Any]) -> None:
        """Replace whole float32 weights of a 16-bit run by parts, in place. Args: exact: what
        ``ExtraTrainerState.restore`` reads."""
        found = exact.get("fp32_params", [])
        if len(found) == len(self.params):  # not where all are one tensor
            exact["fp32_params"] = list(map(part_of, found, self.params))

    def gather(self, trainer: Any) -> None:
        """Called on all processes before a save: the first one gets what the others have."""
        keeps = trainer.should_save_checkpoint_on_current_rank
        named = self.network.state_dict(keep_vars=True)
        found = {"model": whole_dict(named, dict(named), keeps)}
        if not trainer.cfg.checkpoint.no_save_optimizer_state:
            whole = trainer.optimizer.state_dict()
            whole["state"] = {
                index: of_moments(whole_of, state, self.params[index], keeps)
                for index, state in whole["state"].items()
            }
            found["last_optimizer_state"] = whole
        masters = zip(master_weights(trainer.optimizer), self.params)
        self.masters = [whole_of(*pair, keeps) for pair in masters]
        if trainer.cfg.ema.store_ema:
            named = trainer.ema.get_model().state_dict(keep_vars=True)
            precise = trainer.ema.fp32_params
            if trainer.cfg.ema.ema_fp32:
                found["ema_fp32_params"] = whole_dict(dict(precise), named, keeps)
            found["ema"] = whole_dict(named, dict(named), keeps)
        self.gathered = found if keeps else {}

    def complete(self, state: dict[str, Any]) -> None:
        """Put what was gathered into the content of a checkpoint."""
        found, self.gathered = self.gathered, {}
        assert found, "gather before a save"
        for name, whole in found.items():
            (state if name in state else state["extra_state"])[name] = whole


def of_moments(change: Callable[..., Any], state: Mapping[str, Any], *more: Any) -> dict[str, Any]:
    """The state of a parameter, its moments changed by ``change(moment, *more)``."""
    return {
        name: change(value, *more) if name in MOMENTS else value for name, value in state.items()
    }
