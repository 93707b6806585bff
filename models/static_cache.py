"""The decoder's cache for GPUs: a step of fixed shapes, which becomes a CUDA graph.

A step has more than a hundred operators, and to launch them takes a host several times longer than
a GPU takes to compute them. A graph launches them at once, but repeats exactly what was
recorded: the same operators on the same memory. So here

- the position of a token is a number on the GPU, by which its rows of the biases are looked up;
- self-attention reads all places of a block of positions; those to come are masked by the causal
  bias. Blocks end at 32, 64, 128, 256, 384, ...: a short text does not read many places, and a long
  one does not need many graphs;
- the first step, which has one beam, runs with all of them;
- nothing leaves: an image whose search is over is computed until all are done;
- the layers are those of ``fused_layers.py``, which have fewer operators.

The first step of a block runs by itself, the second is recorded; a later batch of the same shapes
uses the memory and the graphs again. Without CUDA, or with ``OFA_CUDA_GRAPHS=0``, every step runs
by itself: the same operators, the same numbers. Letters as in ``cache.py``.
"""

import logging
import math
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.models.attention import KeyValue, Stacked
from ofa.models.cache import PositionRows
from ofa.models.fused_layers import FusedLayers

logger = logging.getLogger(__name__)

RECORDING = threading.Lock()
FIRST_BLOCK, LARGEST_BLOCK = 32, 128  # positions
SOURCE_MULTIPLE = 16  # sources of similar length share their memory; kernels want multiples of 8

Step = Callable[[Tensor, "StaticCache"], Tensor]  # tokens (B, K, 1) -> states (B, K, C)


def end_of_block(position: int) -> int:
    """First position behind the block of a position."""
    end = FIRST_BLOCK
    while end <= position:
        end += min(end, LARGEST_BLOCK)
    return end


def fingerprint(
    keys: Tensor, beam: int, max_len: int, is_code: bool, weights: Sequence[Tensor]
) -> Hashable:
    """Batches with the same one can use the same graphs. Args: keys: of the first layer's source,
    (B, H, S, D); weights: what the decoder computes with."""
    images, heads, length, width = keys.shape
    shape = images, heads, -(-length // SOURCE_MULTIPLE), width, beam, end_of_block(max_len - 1)
    modes = is_code, torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cuda")
    return shape, modes, keys.dtype, keys.device, tuple(weight.data_ptr() for weight in weights)


@dataclass
class Block:
    """Positions first..last-1: what is known of them, and their step."""

    first: int
    last: int
    places: Tensor  # int64[rows, 2]: row of the block, place in the buffer
    # a row of each position: the source's bias (B, H, 1, room for S), biases (layers, 1, H, 1, L +
    # last) and perhaps what is added to embeddings (1, 1, C), behind each other
    rows: Tensor
    shapes: Sequence[tuple[int, ...]]  # of these parts
    states: Optional[Tensor] = None  # (B, K, C), of the last step
    graph: Any = None


class StaticCache:
    """Stands where a `DecoderCache` does, for one token at a time of ``beam`` beams.

    Args: as those of `DecoderCache`; weights: of the decoder, which a graph reads where they are;
    layers: what a step runs.
    """

    def __init__(
        self,
        sources: list[KeyValue],
        prompts: Optional[list[KeyValue]],
        beam: int,
        max_len: int,
        is_code: bool,
        bias_rows: Callable[[int, int], PositionRows],
        weights: Sequence[Tensor],
        layers: FusedLayers,
    ) -> None:
        keys = sources[0][0]
        self.images, heads, length, width = keys.shape
        self.beams, self.is_code, self.weights, self.layers = beam, is_code, weights, layers
        self.prompt_length = prompts[0][0].size(2) if prompts else 0
        self.kind = fingerprint(keys, beam, max_len, is_code, weights)
        source_room = -(-length // SOURCE_MULTIPLE) * SOURCE_MULTIPLE
        shape = (len(sources), 2, self.images, heads, source_room, width)
        self.source_buffer = keys.new_zeros(shape)
        self.sources = [(layer[0], layer[1]) for layer in self.source_buffer]
        room = self.prompt_length + end_of_block(max_len - 1)
        shape = (2, len(sources), self.images * beam, heads, room, width)
        self.buffer = keys.new_zeros(shape)  # keys, values
        rows = torch.arange(self.images * beam, device=keys.device)
        self.first_beams = rows.view(self.images, beam)[:, :1]
        self.rows, self.parents = rows, rows.clone()  # of the buffer
        # of the tokens that are fed: their row of the block, place in the buffer; themselves
        self.fed = rows.new_zeros(2 + len(rows))
        self.row, self.place = self.fed[:1], self.fed[1:2]
        self.tokens = self.fed[2:].view(self.images, beam, 1)
        self.blocks: dict[int, Block] = {}  # by their end
        self.records = can_record(keys.device)
        self.restart(sources, prompts, bias_rows)

    def serves(self, *arguments: Any) -> bool:
        """Whether another batch can use it. Args: as those of `fingerprint`."""
        return self.kind == fingerprint(*arguments)

    def restart(
        self,
        sources: list[KeyValue],
        prompts: Optional[list[KeyValue]],
        bias_rows: Callable[[int, int], PositionRows],
    ) -> None:
        """Begin another batch."""
        self.layers.refresh()
        self.bias_rows, self.source_length = bias_rows, sources[0][0].size(2)
        self.length, self.reordered = 0, False
        self.block: Optional[Block] = None
        for kept, new in zip(self.sources, sources):
            for kind in range(2):
                kept[kind][:, :, : self.source_length].copy_(new[kind])
        self.buffer.zero_()  # what is masked counts zero times, and zero times NaN is NaN
        for layer, prompt in enumerate(prompts or []):
            for kind in range(2):
                self.buffer[kind, layer, :, :, : self.prompt_length] = prompt[kind]

    def reorder(self, parents: Tensor) -> None:
        """Beam k of image b continues the old beam ``parents[b, k]``, with the next step. Args:
        parents: int64[B, K]."""
        torch.add(self.first_beams, parents, out=self.parents.view(parents.shape))
        self.reordered = True

    # ------------------------------------------------------------------ a step

    def run(self, step: Step, tokens: Tensor) -> Tensor:
        """States after the next token. Args: step: makes them; tokens: int64[B, K, 1], or (B, 1, 1)
        that all beams share."""
        beams = tokens.size(1)
        block = self.enter_block()
        place, tokens = block.places[self.length - block.first], tokens.expand_as(self.tokens)
        torch.cat([place, tokens.flatten()], out=self.fed)
        if not self.reordered:
            self.parents.copy_(self.rows)
        self.reordered = False
        if self.records and block.graph is None and block.states is not None:
            self.record(step, block)
        if block.graph is not None:
            block.graph.replay()
        else:
            self.compute(step, block)
        self.length += 1
        assert block.states is not None
        return block.states[:, :beams]

    def record(self, step: Step, block: Block) -> None:
        """The step of a block as a graph."""
        try:
            block.graph = record(lambda: self.compute(step, block), self.buffer.device)
        except RuntimeError as error:  # nothing was computed: the step can still run
            self.records = False
            logger.warning(
                "a step of the decoder cannot be recorded as a CUDA graph (%s); its operators are"
                " launched one by one, as with OFA_CUDA_GRAPHS=0",
                error,
            )

    def compute(self, step: Step, block: Block) -> None:
        """The operators of a step, from ``self.tokens`` to ``block.states``."""
        if self.beams > 1:
            filled = self.buffer[..., : self.prompt_length + block.last, :]
            filled.copy_(filled.index_select(2, self.parents))
        block.states = step(self.tokens, self)

    def enter_block(self) -> Block:
        """The block of the next position; at its begin what is known of its positions."""
        if self.block is not None and self.length < self.block.last:
            return self.block
        first, last = self.length, end_of_block(self.length)
        biases, source_bias, positions = self.bias_rows(first, last)
        masked = torch.finfo(source_bias.dtype).min
        room = self.source_buffer.size(4) - self.source_length
        source_bias = F.pad(source_bias, (0, room), value=masked)
        parts = [source_bias.expand(self.images, -1, -1, -1), torch.stack(biases)]
        parts += [] if positions is None else [positions]
        parts = [part.movedim(-2, 0) for part in parts]  # rows first
        rows = torch.cat([part.flatten(1) for part in parts], 1)
        known = self.blocks.get(last)
        if known is None:
            numbers = torch.arange(last - first, device=rows.device)
            places = torch.stack([numbers, numbers + first + self.prompt_length], 1)
            shapes = [part[0].unsqueeze(-2).shape for part in parts]
            known = self.blocks[last] = Block(first, last, places, rows, shapes)
        else:
            known.rows.copy_(rows)
        self.block = known
        return known

    # ------------------------------------------------------------------ what the decoder asks for

    def begin(self, num_tokens: int, beams: int) -> PositionRows:
        """As that of `DecoderCache`, for one token of all beams."""
        block = self.block
        assert block is not None and num_tokens == 1 and beams == self.beams
        row = block.rows.index_select(0, self.row)[0]
        parts = row.split([math.prod(shape) for shape in block.shapes])
        source_bias, biases, *positions = (
            part.view(shape) for part, shape in zip(parts, block.shapes)
        )
        return PositionRows(list(biases.unbind()), source_bias, positions[0] if positions else None)

    def extend(self, layer: int, new: KeyValue | Stacked) -> KeyValue:
        """Store new keys and values (B * K, H, 1, D). Returns: the block's, (B * K, H, L + last,
        D)."""
        assert self.block is not None
        end = self.prompt_length + self.block.last
        every = self.buffer[:, layer, :, :, :end]
        if isinstance(new, Tensor):
            keys, values = every.index_copy_(3, self.place, new)
        else:
            keys, values = (part.index_copy_(2, self.place, own) for part, own in zip(every, new))
        return keys, values


def can_record(device: torch.device) -> bool:
    """Whether steps become graphs. Not within autocast, whose copies of the weights do not last."""
    wanted = os.environ.get("OFA_CUDA_GRAPHS", "1") != "0"
    on_cuda = device.type == "cuda" and torch.cuda.is_available()
    return wanted and on_cuda and not torch.is_autocast_enabled("cuda")


def record(work: Callable[[], None], device: torch.device) -> Any:
    """What ``work`` launches, as a ``torch.cuda.CUDAGraph``; nothing is computed."""
    with RECORDING, torch.cuda.device(device):
        graph, outer, stream = (
            torch.cuda.CUDAGraph(),
            torch.cuda.current_stream(),
            stream_of(device),
        )
        stream.wait_stream(outer)
        with torch.cuda.stream(stream):
            # threads that load batches may call meanwhile what a recording forbids
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        outer.wait_stream(stream)
    return graph


@cache
def stream_of(device: torch.device) -> Any:
    """One for all recordings: cuBLAS keeps memory for every stream that it has seen."""
    return torch.cuda.Stream(device)
