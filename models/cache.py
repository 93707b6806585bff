"""What the decoder remembers between the steps of generation.

Keys and values of spoken tokens live in buffers made once; those of the input exist once per image,
whatever the number of beams. Position biases are computed for blocks of rows. Letters: B images, K
beams, H heads, T new tokens, S encoder positions, D head width, L prompt length.
"""

from collections.abc import Callable
from typing import NamedTuple, Optional, Union

import torch
from torch import Tensor

from ofa.models.attention import KeyValue
from ofa.models.encoder import select_rows

ROWS_AT_ONCE = 32  # rows of position bias computed together


class PositionRows(NamedTuple):
    """What a decoder needs to know of some positions of the target, R rows."""

    biases: list[Tensor]  # of each layer, (1 or B, H, R, L + positions up to the last row)
    source_bias: Tensor  # cross-attention, (1 or B, H, R, S)
    positions: Optional[Tensor]  # added to the embeddings, (1 or B, R, C); None: nothing is


class DecoderCache:
    """Made by ``Decoder.start``, filled by ``Decoder.step``.

    Args:
        sources: cross-attention keys and values of each layer, (B, H, S, D).
        prompts: keys and values of each layer that come before every target, (1, H, L, D), or None.
        beam, max_len: room for that many beams and tokens; with more of them the buffers grow.
        is_code: whether targets are image codes; bool[B] when some are.
        bias_rows: (first, last) -> `PositionRows` of these positions.
    """

    def __init__(
        self,
        sources: list[KeyValue],
        prompts: Optional[list[KeyValue]],
        beam: int,
        max_len: int,
        is_code: Union[bool, Tensor],
        bias_rows: Callable[[int, int], PositionRows],
    ) -> None:
        keys = sources[0][0]
        images, heads, _, width = keys.shape
        self.sources = sources
        self.is_code = is_code
        self.length = 0  # tokens fed so far, by every beam
        self.beams = beam  # beams alive
        self.prompt_length = prompts[0][0].size(2) if prompts else 0
        shape = (2, len(sources), images, beam, heads, self.prompt_length + max_len, width)
        self.buffer = keys.new_empty(shape)  # keys, values
        for layer, prompt in enumerate(prompts or []):
            for kind in range(2):
                self.buffer[kind, layer, :, :, :, : self.prompt_length] = prompt[kind]
        self.rows = torch.arange(images, device=keys.device)  # which of the first images are left
        self._bias_rows = bias_rows
        self._first = self._last = 0  # rows that are known
        self._block = PositionRows([], keys.new_empty(0), None)

    @property
    def images(self) -> int:
        return self.rows.numel()

    @property
    def end(self) -> int:
        """Places that are filled, of the prompt and of tokens."""
        return self.prompt_length + self.length

    def run(self, step: Callable[[Tensor, "DecoderCache"], Tensor], tokens: Tensor) -> Tensor:
        """States after the next token(s). Args: step: makes them; tokens: int64[B, K, T]."""
        states = step(tokens, self)
        self.length += tokens.size(2)
        return states

    def begin(self, num_tokens: int, beams: int) -> PositionRows:
        """Make room for T more tokens of K beams.

        Returns: their rows: self-attention biases (1 or B * K, H, T, L + all tokens),
            cross-attention bias (B, H, 1 or K * T, S), positions (1 or B * K, T, C).
        """
        first, last = self.length, self.length + num_tokens
        self._grow(beams, last)
        self.beams = beams
        if last > self._last:
            with torch.no_grad():
                self._first, self._last = first, first + max(num_tokens, ROWS_AT_ONCE)
                self._block = self._keep(self._bias_rows(self._first, self._last), self.rows)
        biases, source_bias, positions = self._block
        rows = slice(first - self._first, last - self._first)
        columns = slice(0, self.prompt_length + last)
        biases = [self._per_beam(bias[:, :, rows, columns]) for bias in biases]
        source_bias = source_bias[:, :, rows]
        if num_tokens > 1:  # beams stand side by side as query positions: K * T rows
            source_bias = source_bias.repeat(1, 1, beams, 1)
        if positions is not None:
            positions = self._per_beam(positions[:, rows])
        return PositionRows(biases, source_bias, positions)

    def extend(self, layer: int, new: KeyValue) -> KeyValue:
        """Store new keys and values (B * K, H, T, D). Returns: all, (B * K, H, L + tokens, D)."""
        end = self.end + new[0].size(2)
        found = []
        for kind in range(2):
            buffer = self.buffer[kind, layer][:, : self.beams]  # (B, K, H, room, D)
            buffer[:, :, :, self.end : end] = new[kind].unflatten(0, (self.images, self.beams))
            found.append(buffer[:, :, :, :end].flatten(0, 1))
        return found[0], found[1]

    def followed_by(self, layer: int, new: KeyValue) -> KeyValue:
        """All so far and new ones (B, H, N, D) behind them, which are not stored; for one beam."""
        keys, values = self.buffer[:, layer, :, 0, :, : self.end]
        return torch.cat([keys, new[0]], 2), torch.cat([values, new[1]], 2)

    def reorder(self, parents: Tensor) -> None:
        """Beam k of image b continues the old beam ``parents[b, k]``.

        Args: parents: int64[B, K'], K' may differ from K.
        """
        beams = parents.size(1)
        first = torch.arange(self.images, device=parents.device)[:, None] * self.buffer.size(3)
        # (2, layers, B * room for beams, H, L + tokens, D)
        spoken = self.buffer.flatten(2, 3)[:, :, :, :, : self.end]
        chosen = spoken.index_select(2, (first + parents).flatten()).unflatten(2, parents.shape)
        self._grow(beams, self.length)
        self.buffer[:, :, :, :beams, :, : self.end] = chosen
        self.beams = beams

    def select(self, rows: Tensor) -> None:
        """Keep these images only (by their present number). Args: rows: int64[B']."""
        self._block = self._keep(self._block, rows)
        self.sources = [(keys[rows], values[rows]) for keys, values in self.sources]
        self.buffer = self.buffer[:, :, rows]
        if isinstance(self.is_code, Tensor):
            self.is_code = self.is_code[rows]
        self.rows = self.rows[rows]

    @staticmethod
    def _keep(block: PositionRows, images: Tensor) -> PositionRows:
        biases = [select_rows(bias, images) for bias in block.biases]
        positions = None if block.positions is None else select_rows(block.positions, images)
        return PositionRows(biases, select_rows(block.source_bias, images), positions)

    def _per_beam(self, bias: Tensor) -> Tensor:
        return bias if bias.size(0) == 1 else bias.repeat_interleave(self.beams, dim=0)

    def _grow(self, beams: int, tokens: int) -> None:
        """Larger buffers when more beams or tokens come than were announced."""
        room_beams, room_tokens = self.buffer.size(3), self.buffer.size(5) - self.prompt_length
        if beams <= room_beams and tokens <= room_tokens:
            return
        more = ROWS_AT_ONCE if tokens > room_tokens else 0
        shape = list(self.buffer.shape)
        shape[3] = max(beams, room_beams)
        shape[5] = self.prompt_length + max(tokens, room_tokens + more)
        old, self.buffer = self.buffer, self.buffer.new_empty(shape)
        self.buffer[:, :, :, :room_beams, :, : old.size(5)] = old
        if beams > room_beams:  # prompts are the same for every beam
            prompt = old[:, :, :, :1, :, : self.prompt_length]
            self.buffer[:, :, :, room_beams:, :, : self.prompt_length] = prompt
