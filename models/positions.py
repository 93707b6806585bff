"""Where things are: absolute positions, and buckets of relative distance.

Attention scores get a bias: a product of absolute position vectors, the same for all layers, plus a
learned number per head and *bucket* of relative distance, from a table per layer, among text
positions and inside an image only. Letters: B batch, H heads, T positions, D width of a head.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.errors import UserError

TOKEN_POSITIONS = 1024  # rows of the token bucket table, as in upstream's checkpoints
# cells behind those of a target written as image codes; other projects have one less
CODE_PADDING = 769


def token_buckets(bucket_size: int, num_positions: int = TOKEN_POSITIONS) -> Tensor:
    """Bucket of the relative position i - j: int64[num_positions, num_positions] in [0, 2 *
    bucket_size - 1).

    Distances below ``bucket_size / 2`` have a bucket each; beyond, buckets widen with the
    logarithm. float32 ``log`` and ``ceil`` on purpose: upstream checkpoints carry this table.
    """
    distance = torch.arange(1 - num_positions, num_positions)  # each that there is
    half, last = bucket_size // 2, TOKEN_POSITIONS - 1
    far = torch.where(distance.abs() < half, half - 1, distance.abs()).clamp(max=last)
    widened = torch.ceil(torch.log(far / half) / math.log(last / half) * (half - 1)) + half
    bucket = torch.where(far <= half, distance, widened.long() * distance.sign())
    positions = torch.arange(num_positions)
    return (bucket + bucket_size - 1)[positions[:, None] - positions + num_positions - 1]


def token_bucket_rows(table: Tensor, first: int, last: int) -> Tensor:
    """Buckets of text positions first..last-1 against 0..last-1, of any length: int64[last - first,
    last]. Distances beyond the table share its last bucket."""
    if last <= table.size(0):
        return table[first:last, :last]
    positions = torch.arange(last, device=table.device)
    distance = positions[first:, None] - positions[None, :]
    most = table.size(0) - 1
    return table[distance.clamp(0, most), (-distance).clamp(0, most)]


def num_image_buckets(bucket_size: int) -> int:
    """Row and column offsets of a square grid, and three for the first position."""
    return (2 * bucket_size - 1) ** 2 + 3


def image_buckets(bucket_size: int) -> Tensor:
    """Bucket of two cells of a grid by their row and column offset: int64[bucket_size**2 + 1,
    bucket_size**2 + 1]. Cell 0 (begin of sequence) is before the grid."""
    cells = torch.arange(bucket_size**2)
    rows, columns = cells // bucket_size, cells % bucket_size
    offset_rows = rows[:, None] - rows[None, :] + bucket_size - 1
    offset_columns = columns[:, None] - columns[None, :] + bucket_size - 1
    total = num_image_buckets(bucket_size)
    table = torch.empty(bucket_size**2 + 1, bucket_size**2 + 1, dtype=torch.long)
    table[1:, 1:] = offset_rows * (2 * bucket_size - 1) + offset_columns
    table[0, :], table[:, 0], table[0, 0] = total - 3, total - 2, total - 1
    return table


def grid_positions(height: int, width: int, bucket_size: int, device=None) -> Tensor:
    """Cell numbers of a height x width grid in the corner of the full one, row-major.

    Returns: int64[height * width].
    Raises: UserError when the grid is larger than bucket_size x bucket_size.
    """
    if max(height, width) > bucket_size:
        raise UserError(
            f"an image of {height * 16} x {width * 16} pixels has {height} x {width} patches, "
            f"the model knows {bucket_size} x {bucket_size}: "
            "use a smaller --patch-image-size or a larger --image-bucket-size"
        )
    rows = torch.arange(height, device=device)[:, None] * bucket_size
    return (rows + torch.arange(width, device=device) + 1).flatten()


def code_positions(code_image_size: int, bucket_size: int) -> Tensor:
    """Cell numbers of a target written as w x w image codes: begin of sequence, the grid, padding.

    Returns: int64[1 + w * w + 769]. As upstream the padding is cell 1024.
    """
    side = code_image_size // 8
    cells = grid_positions(side, side, bucket_size)
    return torch.cat([cells.new_zeros(1), cells, cells.new_full((CODE_PADDING,), 1024)])


def bucket_bias(table: Tensor, buckets: Tensor) -> Tensor:
    """Learned bias (B, H, T, T') of pairs. Args: table: (buckets, H); buckets: int64[B, T, T']."""
    if table.device.type != "cpu":
        return F.embedding(buckets, table).movedim(-1, 1)
    # the same numbers, whose gradient on CPU is added in one go, not row by row
    bias = table.T.gather(1, buckets.flatten().expand(table.size(1), -1))  # (H, B * T * T')
    return bias.unflatten(1, buckets.shape).transpose(0, 1)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, C) -> (B, H, T, D)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)
