"""Attention whose bias is never put together, for training on NVIDIA GPUs from sm_80 on.

The scores get two things added because of where positions are (``positions.py``): a product of
position vectors, which further columns of queries and keys give as well, and a learned number,
which the kernel looks up in the layer's table. So no (H, T, S) is made, none is kept, and no
gradient of one is written. torch.compile writes the kernel (FlexAttention). It adds up the
gradient of the table by atomic additions in float32, whose order differs from run to run.

Letters as in ``attention.py``.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.models.compiling import settle_compiler
from ofa.models.recompute import cheap

# Pairs without a bucket share the first rows of a table, zeros: with a single one their additions
# would wait for each other.
NO_BUCKET = 256


class BiasParts(NamedTuple):
    """What a layer adds to its scores, and which keys it hides. Made by ``join_parts``."""

    queries: Tensor  # of positions, (1 or B, H, T, D); their scores are scaled
    keys: Tensor  # (1 or B, H, S, D)
    buckets: Tensor  # int32[1 or B, T, S], rows of ``table``
    padding_mask: Optional[Tensor]  # bool[B, S], True is hidden
    first_hidden: Optional[int]  # of the first query, the next has one more; None: not causal
    options: dict[str, Any]  # of the kernel
    table: Optional[Tensor] = None  # float32[H, buckets] of a layer, added after scaling


def join_parts(
    queries: Tensor,
    keys: Tensor,
    buckets: Tensor,
    padding_mask: Optional[Tensor],
    first_hidden: Optional[int] = None,
) -> BiasParts:
    """What all layers share. Args: as the fields of `BiasParts`, but buckets: int64[1 or B, T, S],
    0 is none."""
    columns = torch.arange(buckets.size(-1), device=buckets.device) % NO_BUCKET
    rows = torch.where(buckets > 0, buckets + (NO_BUCKET - 1), columns).int()
    options = kernel_options(2 * queries.size(-1), shared_memory_of(queries.device))
    return BiasParts(queries, keys, rows, padding_mask, first_hidden, options)


def table_of_parts(biases: Tensor) -> Tensor:
    """The table of `BiasParts`, in which keys beside each other find theirs beside each other.

    Args: biases: (buckets, H), the first of them 0.
    """
    return F.pad(biases.T.float(), (NO_BUCKET - 1, 0))


def attend_by_parts(
    query: Tensor, keys: Tensor, values: Tensor, bias: BiasParts, scale: float
) -> Tensor:
    """As ``attention.attend`` with a bias: (B, H, T, D)."""
    # autocast leaves the keys of a prompt in float32, and the kernel takes one type only
    keys, values = keys.to(query.dtype), values.to(query.dtype)
    query, keys = cheap(widen, query, bias.queries), cheap(widen, keys, bias.keys)
    kernel: Any
    if torch.compiler.is_compiling():  # part of a larger program
        from torch.nn.attention.flex_attention import flex_attention as kernel
    else:
        kernel = compiled_flex()
    change = score_change(bias)
    return kernel(query, keys, values, score_mod=change, scale=scale, kernel_options=bias.options)


def kernel_options(width: int, shared_memory: int) -> dict[str, Any]:
    """Of FlexAttention, found by compiling for sm_80, sm_89 and sm_90.

    Args: width: of queries and keys. shared_memory: bytes of the GPU for a block of threads.
    """
    options: dict[str, Any] = {"BACKEND": "TRITON"}  # short queries: else another kernel
    if width <= 64:  # 128 x 128 need more shared memory than an H100 has
        options |= {"fwd_BLOCK_M": 128, "fwd_BLOCK_N": 64}
    elif shared_memory < 120_000:
        options |= {"fwd_BLOCK_M": 64, "fwd_BLOCK_N": 64, "fwd_num_stages": 2}
    if width > 128:  # twice as many registers would go to memory
        options["bwd_num_warps"] = 8
    return options


@cache
def shared_memory_of(device: torch.device) -> int:
    """Bytes; many where there is no GPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return 1 << 20
    properties: Any = torch.cuda.get_device_properties(device)
    return properties.shared_memory_per_block_optin


def widen(x: Tensor, positions: Tensor) -> Tensor:
    """(B, H, T, 2 D)."""
    return torch.cat([x, positions.to(x.dtype).expand(x.size(0), -1, -1, -1)], -1)


def score_change(bias: BiasParts) -> Callable[..., Tensor]:
    """The ``score_mod`` of FlexAttention."""
    _, _, buckets, padding_mask, first_hidden, _, table = bias
    assert table is not None
    shared = buckets.size(0) == 1

    def change(score, sample, head, row, column):
        pair = buckets[0, row, column] if shared else buckets[sample, row, column]
        score = score + table[head, pair]
        # As FORBIDDEN in attention.py, whose name would make it an input, which kernels do not
        # take. A far lower number would hide the count of keys of a row that sees none.
        if first_hidden is not None:
            score = torch.where(column >= row + first_hidden, -1e4, score)
        if padding_mask is not None:
            score = torch.where(padding_mask[sample, column], -1e4, score)
        return score

    return change


@cache
def compiled_flex() -> Any:
    from torch.nn.attention import flex_attention as flex  # a second of imports

    settle_compiler()
    return torch.compile(flex.flex_attention, dynamic=True, fullgraph=True)
