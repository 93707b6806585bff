"""Scores of all answers of a set at once: each beginning that answers share is computed once.

The score of an answer is the log-probability of its tokens, where at each token only those that
continue some answer compete, as in training with ``constraint_masks``. A token without a competitor
costs nothing and tells nothing. So of the trie only the nodes are fed to the decoder where paths
part, and those on the way there::

    <s> -+- red ----- </s>                   nothing is decided after "red" and "two people":
         +- on -- the -+- table -- </s>      of seven nodes the decoder sees <s>, "on" and "the"
         |             +- left --- </s>
         +- two -- people -- </s>

All these nodes are positions of one pass, each of which sees its own ancestors alone; the input's
keys and values are made once per image. Large tries are cut into parts of a fixed number of nodes:
memory does not grow with the answers.

Letters: B images, N nodes fed together, E edges that are decided there, U different tokens among
them, C width.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ofa.models.cache import DecoderCache
from ofa.models.decoder import Decoder
from ofa.models.encoder import EncoderOutput
from ofa.models.inference_weights import encode_all, inference_networks
from ofa.tokens.trie import ROOT, Trie

STATES_AT_ONCE = 2048  # images x nodes in one pass of the decoder


class TrieChunk(NamedTuple):
    """Nodes that are fed together, and what is decided there."""

    tokens: Tensor  # int64[N]
    depths: Tensor  # int64[N], 1 for the first token of an answer
    sees: Tensor  # bool[N, N], node i sees node j
    columns: Tensor  # int64[U], tokens to choose from
    row: Tensor  # int64[E], node where an edge begins
    column: Tensor  # int64[E], its token
    child: Tensor  # int64[E], where it leads in the trie
    deepest: int  # largest of ``depths``

    def to(self, device: torch.device) -> "TrieChunk":
        return TrieChunk(*(to_device(part, device) for part in self))

    def log_probabilities(self, states: Tensor, weight: Tensor) -> Tensor:
        """Of each edge among those that begin at its node: float[B, E]. Args: states: (B, N, C);
        weight: (V, C)."""
        # (B, N, U) -> (B, E)
        logits = (states @ weight[self.columns].T).float()[:, self.row, self.column]
        row = self.row.expand_as(logits)
        rows = logits.new_zeros(logits.size(0), states.size(1))
        most = rows.scatter_reduce(1, row, logits, "amax", include_self=False)
        logits = logits - most.gather(1, row)
        return logits - rows.scatter_add(1, row, logits.exp()).log().gather(1, row)


class DeviceTables(NamedTuple):
    """What a ranker looks up, on the device that it scores on."""

    parts: list[TrieChunk]
    decided: Tensor  # int64, nodes whose edge is decided, in the order of the parts
    levels: list[tuple[Tensor, Tensor]]  # nodes of a depth, and their parents; from above
    ends: Tensor  # int64[answers], last node of each


def to_device(value: Any, device: torch.device) -> Any:
    """A tensor of the host on the device, without waiting for it; anything else as it is."""
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


class AnswerRanker:
    """Scores all answers of a trie.

    Args:
        trie: sequences from <s> to </s>. bos: id of <s>.
        nodes_at_once: of the trie, in one pass of the decoder.
    """

    def __init__(self, trie: Trie, bos: int, nodes_at_once: int = 512):
        self.table = trie.compile(torch.device("cpu"))
        self.nodes_at_once = max(1, nodes_at_once)
        self.start = int(self.table.advance(torch.tensor(ROOT), torch.tensor(bos)))
        self.parts = self._cut()
        nothing = torch.empty(0, dtype=torch.int64)
        self.decided = torch.cat([nothing, *(part.child for part in self.parts)])
        self._tables: dict[torch.device, DeviceTables] = {}

    def tables(self, device: torch.device) -> DeviceTables:
        """Copied to each device once."""
        if device not in self._tables:
            depth = self.table.depth
            below = range(int(depth[self.start]) + 1, int(depth.max()) + 1)
            levels = [(depth == level).nonzero()[:, 0] for level in below]
            self._tables[device] = DeviceTables(
                [part.to(device) for part in self.parts],
                to_device(self.decided, device),
                [
                    (to_device(nodes, device), to_device(self.table.parent[nodes], device))
                    for nodes in levels
                ],
                to_device(self.table.ends, device),
            )
        return self._tables[device]

    # ------------------------------------------------------------------ which nodes, in which parts

    def _cut(self) -> list[TrieChunk]:
        """The node behind <s> by itself (its state is the prompt's), then others by their paths."""
        first, child = self.table.first.tolist(), self.table.child.tolist()
        children = [child[begin:end] for begin, end in pairwise(first)]
        needed = [False] * len(children)
        for node in reversed(range(self.start, len(children))):
            needed[node] = len(children[node]) > 1 or any(needed[child] for child in children[node])
        # depth first: what is missing of a later part are the ancestors of its first node
        order, stack = [], [self.start]
        while stack:
            node = stack.pop()
            order.append(node)
            stack += [child for child in reversed(children[node]) if needed[child]]
        parents = self.table.parent.tolist()
        parts, begin = [[self.start]], 1
        while begin < len(order):
            ancestors: list[int] = []
            while (above := parents[ancestors[0] if ancestors else order[begin]]) != self.start:
                ancestors.insert(0, above)
            own = max(1, self.nodes_at_once - len(ancestors))
            parts.append(ancestors + order[begin : begin + own])
            begin += own
        decided: set[int] = set()
        return [part for part in (self._part(nodes, decided) for nodes in parts) if len(part.child)]

    def _part(self, nodes: list[int], decided: set[int]) -> TrieChunk:
        """Args: decided: nodes of earlier parts, whose edges are not decided again; grows."""
        table, place = self.table, {node: row for row, node in enumerate(nodes)}
        token_of = torch.zeros(len(table.parent), dtype=torch.int64)
        token_of[table.child] = table.token
        sees = torch.eye(len(nodes), dtype=torch.bool)
        edges = []
        for row, node in enumerate(nodes):
            above = place.get(int(table.parent[node]))
            if above is not None:
                sees[row] |= sees[above]
            begin, end = int(table.first[node]), int(table.first[node + 1])
            if end - begin > 1 and node not in decided:
                edges += [(row, edge) for edge in range(begin, end)]
        decided.update(nodes)
        rows, edge = torch.tensor(edges, dtype=torch.int64).view(-1, 2).unbind(1)
        columns, column = table.token[edge].unique(return_inverse=True)
        index = torch.tensor(nodes)
        depths = table.depth[index] - table.depth[self.start]
        edges_of = columns, rows, column, table.child[edge]
        return TrieChunk(token_of[index], depths, sees, *edges_of, deepest=int(depths.max()))

    # ------------------------------------------------------------------ scores

    @torch.no_grad()
    def scores(
        self,
        models: Sequence[nn.Module],
        sample: dict[str, Any],
        prompts: Sequence[Sequence[int]],
        encoded: Sequence[EncoderOutput] | None = None,
    ) -> Tensor:
        """Log-probability of every answer for every row of a batch.

        Args:
            models: an ensemble; the probabilities of each token are averaged.
            sample: a collated batch. prompts: what the decoder is given in each row, from <s> on.
            encoded: the encoder's output of every model, if it is known already.

        Returns: float[B, answers], in the order in which the answers were inserted.
        """
        device = sample["net_input"]["src_tokens"].device
        # of each node after its parent
        steps = torch.zeros(len(prompts), len(self.table.parent), device=device)
        models = inference_networks(models)
        encoded = encoded or encode_all(models, sample)
        tables = self.tables(device)
        for rows in self._groups(prompts):
            given = to_device(torch.tensor([list(prompts[row]) for row in rows]), device)
            index = to_device(torch.tensor(rows), device)
            found = [
                self._edges(model.decoder, output.select(index), given, tables.parts)
                for model, output in zip(models, encoded)
            ]
            mean = torch.stack(found).logsumexp(0) - math.log(len(found))
            steps[index[:, None], tables.decided] = mean
        # sum over the nodes of each answer's path
        for nodes, parents in tables.levels:
            steps[:, nodes] += steps[:, parents]
        return steps[:, tables.ends]

    def _groups(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Rows that go through the decoder together: their prompts are equally long."""
        by_length: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            by_length.setdefault(len(prompt), []).append(row)
        nodes = max((len(part.tokens) for part in self.parts), default=1)
        size = max(1, STATES_AT_ONCE // nodes)
        return [
            rows[at : at + size] for rows in by_length.values() for at in range(0, len(rows), size)
        ]

    def _edges(
        self, decoder: Decoder, encoded: EncoderOutput, prompts: Tensor, parts: list[TrieChunk]
    ) -> Tensor:
        """Log-probability of every decided edge: float[B, all E]. Args: prompts: int64[B, P]."""
        weight = decoder.output_projection.weight
        cache = decoder.start(encoded, beam=1, max_len=prompts.size(1))
        assert isinstance(cache, DecoderCache)
        states = decoder.states(prompts[:, None], cache)  # (B, 1, C)
        found = [states.new_empty(len(prompts), 0, dtype=torch.float32)]
        for part in parts:
            nodes = states  # of the prompt, for the node behind <s>
            if part.deepest > 0:
                nodes = decoder.branches(part.tokens, part.depths, part.sees, cache, part.deepest)
            found.append(part.log_probabilities(nodes, weight))
        return torch.cat(found, 1)
