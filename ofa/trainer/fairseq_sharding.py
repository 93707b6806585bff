"""``--zero-sharding os``: each process keeps the moments of a part of the parameters and sends the
others what it updates. A checkpoint has the moments of all, in the form of one process."""

from typing import Any

from fairseq.distributed import utils as distributed_utils
from fairseq.optim import FairseqOptimizer
from torch.distributed.optim import ZeroRedundancyOptimizer

from ofa.trainer.fairseq_adam import innermost


class ShardedOptimizer(ZeroRedundancyOptimizer):
    """torch's, with what fairseq asks an optimizer for."""

    disable_mem_eff_fp16_loading_hack = True  # moments are loaded as they are stored, in float32

    def __getattr__(self, name: str) -> Any:
        if name.startswith("supports_") and "optim" in vars(self):
            return getattr(self.optim, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    def broadcast_global_state_dict(self, state_dict: dict[str, Any] | None) -> dict[str, Any]:
        """The state of all parameters, which the first rank has read, on each rank."""
        group = self.process_group
        device = self._default_device
        return distributed_utils.broadcast_object(state_dict, 0, group, dist_device=device)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the part of this rank. Args: state_dict: of all parameters."""
        super().load_state_dict({**state_dict, "state": dict(state_dict["state"])})
        self.state.clear()  # a second copy of this rank's part, in the type of the parameters


def shard_moments(optimizer: FairseqOptimizer, group: Any) -> None:
    """Divide the moments among the processes of a group, in place."""
    inner = innermost(optimizer)
    stock = inner.optimizer
    inner.optimizer = ShardedOptimizer(
        stock.param_groups,
        type(stock),
        process_group=group,
        # one message per rank instead of one per parameter
        parameters_as_bucket_view=True,
        **inner.optimizer_config,
    )
