"""Lists of tensors for torch's operators on many at once, which are quick for tensors of one type;
and float32 copies of 16-bit ones."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK = 1 << 24  # elements that are copied at a time, unless one tensor is larger


class Float32Copies:
    """Memory for the float32 copies of one chunk of tensors after the other.

    The views into it are made once: they would cost as much time as the copies.

    Args: tensors: of one device, whose shapes stay. chunk: elements of a chunk.
    """

    def __init__(self, tensors: list[Tensor], chunk: int = CHUNK) -> None:
        self.chunks = list(chunks_of([tensor.numel() for tensor in tensors], chunk))
        sizes = [sum(tensor.numel() for tensor in tensors[part]) for part in self.chunks]
        memory = torch.empty(max(sizes, default=0), device=tensors[0].device)
        self.views: list[list[Tensor]] = []
        for part, size in zip(self.chunks, sizes):
            flat = memory[:size].split([tensor.numel() for tensor in tensors[part]])
            self.views.append([view.view(own.shape) for view, own in zip(flat, tensors[part])])

    def of(self, tensors: list[Tensor]) -> Iterator[tuple[slice, list[Tensor]]]:
        """Which tensors, and their copies, which last until the next are asked for."""
        for part, views in zip(self.chunks, self.views):
            torch._foreach_copy_(views, tensors[part])
            yield part, views


def chunks_of(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Neighbors of at most ``most`` elements together, or one that is larger."""
    start = total = 0
    for place, size in enumerate(sizes):
        if total and total + size > most:
            yield slice(start, place)
            start, total = place, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def by_type(*lists: Sequence[Tensor]) -> list[tuple[list[Tensor], ...]]:
    """Parallel lists of tensors, divided so that each list of a part has one type."""
    parts: dict[tuple[torch.dtype, ...], list[tuple[Tensor, ...]]] = {}
    for together in zip(*lists, strict=True):
        parts.setdefault(tuple(tensor.dtype for tensor in together), []).append(together)
    return [tuple(map(list, zip(*part))) for part in parts.values()]
