"""A trie of allowed answers, compiled to tensors so that every beam advances by one lookup.

    trie = Trie(eos=2)
    trie.insert([0, 4420, 2])            # <s> yes </s>
    trie.insert([0, 117, 2])             # <s> no </s>
    table = trie.compile(torch.device("cpu"))
    states = table.advance(torch.full((B, K), ROOT), torch.tensor(0))  # every beam after <s>
    rows, tokens = table.allowed(states)              # pairs (beam b * K + k, allowed token)
    states = table.advance(states, chosen)            # int64[B, K]

A beam that leaves the trie is *lost*: from there only the end of the sentence is allowed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

LOST, ROOT = 0, 1


@dataclass(frozen=True)
class TrieTable:
    """The edges of a trie, sorted by (node, token); nodes are numbered level by level, lost (0) and
    root (1) first."""

    first: Tensor  # int64[N + 1], edges of node n are ``first[n]:first[n + 1]``
    token: Tensor  # int64[E], of each edge
    child: Tensor  # int64[E], node that the edge leads to
    key: Tensor  # int64[E], ``node * span + token``, ascending
    parent: Tensor  # int64[N], node above (the root and the lost node are their own parents)
    depth: Tensor  # int64[N], tokens between the root and the node
    ends: Tensor  # int64[A], node behind each inserted sequence, in order of insertion
    span: int  # one more than the largest token
    degree: int  # most edges of a node

    def to(self, device: torch.device) -> "TrieTable":
        """The table on ``device``."""
        tensors: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **tensors)

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Nodes reached by ``tokens`` (int64, broadcastable); lost where no edge leads on."""
        key = states * self.span + tokens
        edge = torch.searchsorted(self.key, key).clamp(max=self.key.numel() - 1)
        found = (self.key[edge] == key) & (tokens < self.span)
        return torch.where(found, self.child[edge], LOST)

    def allowed(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and tokens, both int64[P]: ``tokens[i]`` may follow in row ``rows[i]`` of the
        flattened states. P is the number of these pairs where the host knows it without waiting,
        on a CPU; elsewhere it is rows x ``degree``, and -1 stands for no token."""
        states = states.flatten()
        begin = self.first[states]
        count = self.first[states + 1] - begin
        if states.device.type == "cpu":
            rows = torch.repeat_interleave(torch.arange(len(states)), count)
            place = torch.arange(len(rows)) - (count.cumsum(0) - count)[rows]
            return rows, self.token[begin[rows] + place]
        place = torch.arange(self.degree, device=states.device)
        edges = (begin[:, None] + place).clamp(max=len(self.token) - 1)
        tokens = torch.where(place < count[:, None], self.token[edges], -1)  # (rows, degree)
        rows = torch.arange(len(states), device=states.device)[:, None].expand_as(tokens)
        return rows.flatten(), tokens.flatten()


class Trie:
    """Sequences of token ids that may be generated; built on the host, used as a `TrieTable`. Args:
    eos: the only token allowed behind a path that is not in the trie."""

    def __init__(self, eos: int, sequences: Iterable[Sequence[int]] = ()):
        self.eos = int(eos)
        self._children: list[dict[int, int]] = [{}]
        self._ends: list[int] = []
        self._tables: dict[torch.device, TrieTable] = {}
        for sequence in sequences:
            self.insert(sequence)

    def __len__(self) -> int:
        """Number of sequences inserted."""
        return len(self._ends)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_tables": {}}

    def insert(self, sequence: Sequence[int]) -> None:
        """Allow ``sequence``, <s> and </s> included."""
        node = 0
        for token in map(int, sequence):
            if token not in self._children[node]:
                self._children[node][token] = len(self._children)
                self._children.append({})
            node = self._children[node][token]
        self._ends.append(node)
        self._tables.clear()

    def get_next_layer(self, prefix: Sequence[int]) -> list[int]:
        """Tokens that may follow ``prefix``; [eos] when the prefix is not in the trie."""
        node = 0
        for token in map(int, prefix):
            if token not in self._children[node]:
                return [self.eos]
            node = self._children[node][token]
        return list(self._children[node])

    def compile(self, device: torch.device) -> TrieTable:
        """The trie as tensors on ``device``; kept until the next `insert`."""
        device = torch.device(device)
        if device not in self._tables:
            self._tables[device] = self._build().to(device)
        return self._tables[device]

    def _build(self) -> TrieTable:
        order, parents, depths = [0], [0], [0]
        edges = [(LOST, self.eos, LOST)]
        for position, node in enumerate(order):
            for token in sorted(self._children[node]):
                edges.append((position + 1, token, len(order) + 1))
                order.append(self._children[node][token])
                parents.append(position)
                depths.append(depths[position] + 1)
        number = {node: position + 1 for position, node in enumerate(order)}
        nodes, tokens, child = torch.tensor(edges, dtype=torch.int64).unbind(1)
        first = torch.zeros(len(order) + 2, dtype=torch.int64)
        first[1:] = torch.bincount(nodes, minlength=len(order) + 1).cumsum(0)
        span = int(tokens.max()) + 1
        ends = [number[end] for end in self._ends]
        return TrieTable(
            first=first,
            token=tokens,
            child=child,
            key=nodes * span + tokens,
            parent=torch.tensor([LOST, *(p + 1 for p in parents)]),
            depth=torch.tensor([0, *depths]),
            ends=torch.tensor(ends, dtype=torch.int64),
            span=span,
            degree=max(1, *map(len, self._children)),
        )


def as_trie(trie, bos: int, eos: int) -> Trie:
    """``trie`` itself, or a copy of one with upstream's ``get_next_layer(prefix)``."""
    if isinstance(trie, Trie):
        return trie
    copy, prefixes = Trie(eos), [[bos]]
    for prefix in prefixes:
        for token in trie.get_next_layer(prefix):
            if token == eos:
                copy.insert([*prefix, eos])
            else:
                prefixes.append([*prefix, int(token)])
    return copy
