"""FlexAttention in torch's usual operators: any device, gradients, no compiler."""

import torch
from torch import Tensor


def flex_written_out(
    query: Tensor, keys: Tensor, values: Tensor, score_mod, scale: float, **unused
) -> Tensor:
    """As ``torch.nn.attention.flex_attention.flex_attention``; score_mod gets all pairs at once."""
    shape = *query.shape[:3], keys.size(2)
    places = [
        torch.arange(count, device=query.device).view([-1 if at == own else 1 for own in range(4)])
        for at, count in enumerate(shape)
    ]
    scores = score_mod(query @ keys.mT * scale, *places)
    return scores.softmax(-1).to(values.dtype) @ values
