"""Wrong tokens in what the decoder reads while it learns: it must not rely on its own last words
being right."""

import random
from collections.abc import Sequence

import torch


def noised(
    tokens: Sequence[int], ratio: float, low: int, high: int, rng: random.Random | None
) -> list[int]:
    """The tokens with about ``ratio`` of them replaced; a number of ``rng`` decides which and by
    what."""
    if rng is None or not ratio:
        return list(tokens)
    return replaced(
        torch.tensor(tokens, dtype=torch.int64),
        ratio,
        low,
        high,
        torch.Generator().manual_seed(rng.getrandbits(63)),
    ).tolist()


def replaced(
    tokens: torch.Tensor, ratio: float, low: int, high: int, generator: torch.Generator
) -> torch.Tensor:
    """Each token becomes, with the probability ``ratio``, one of ``low <= id < high``.

    The draws are those of upstream, in its order: which, then by what.
    Args: tokens: int64[T]. Returns: int64[T], a new tensor.
    """
    chosen = torch.empty(len(tokens)).uniform_(generator=generator) < ratio
    others = torch.randint(low, high, (int(chosen.sum()),), generator=generator)
    return tokens.masked_scatter(chosen, others)
