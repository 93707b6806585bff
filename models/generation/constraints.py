"""What may come next: rules that act on the logits of a generation step.

Letters: B images, K beams, V vocabulary, M columns (what may be chosen at all), T tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ofa.tokens.trie import ROOT, Trie, TrieTable


@dataclass(frozen=True)
class VocabularySubset:
    """The part of the vocabulary that is scored: the special tokens and ``start <= id < end``.

    Special tokens keep their ids as column numbers.
    """

    specials: int
    start: int
    end: int
    vocab_size: int

    @classmethod
    def of_range(
        cls, constraint_range: tuple[int, int] | None, specials: int, vocab_size: int
    ) -> "VocabularySubset":
        start, end = constraint_range or (specials, vocab_size)
        return cls(specials, max(start, specials), min(end, vocab_size), vocab_size)

    @property
    def whole(self) -> bool:
        return self.start == self.specials and self.end == self.vocab_size

    def select(self, logits: Tensor) -> Tensor:
        """(..., V) -> (..., M)."""
        if self.whole:
            return logits
        return torch.cat([logits[..., : self.specials], logits[..., self.start : self.end]], -1)

    def rows(self, weight: Tensor) -> Tensor:
        """(V, C) -> (M, C): what makes the logits of these columns alone."""
        return torch.cat([weight[: self.specials], weight[self.start : self.end]])

    def keep_span(self, scores: Tensor, start: int, end: int) -> None:
        """In place on (..., M): -inf for every token but ``start <= id < end``."""
        shift = 0 if self.whole else self.specials - self.start
        first, last = max(start, self.start) + shift, min(end, self.end) + shift
        scores[..., :first] = -math.inf
        scores[..., max(first, last) :] = -math.inf

    def of_tokens(self, tokens: Tensor, absent: int) -> Tensor:
        """Column of each token; ``absent`` for tokens that are not scored."""
        if self.whole:
            return tokens
        inside = (tokens >= self.start) & (tokens < self.end)
        ranged = torch.where(inside, tokens - self.start + self.specials, absent)
        return torch.where(tokens < self.specials, tokens, ranged)

    def tokens(self, columns: Tensor) -> Tensor:
        """Token of each column."""
        if self.whole:
            return columns
        return torch.where(columns < self.specials, columns, columns - self.specials + self.start)


def repeated_ngrams(tokens: Tensor, size: int, absent: int) -> Tensor:
    """Tokens that would complete an n-gram which the hypothesis already has; <s> counts as a token.

    Args: tokens: int64[B, K, T]; size: n; absent: stands where nothing is forbidden.
    Returns: int64[B, K, T - n + 1 or 0]. Example, n = 3: ``<s> a b c a b`` forbids ``c``.
    """
    if tokens.size(-1) < size:
        return tokens[..., :0]
    windows = tokens.unfold(-1, size, 1)  # (B, K, T - n + 1, n)
    last = tokens[..., tokens.size(-1) - size + 1 :]
    same = (windows[..., :-1] == last[..., None, :]).all(-1)
    return torch.where(same, windows[..., -1], absent)


def keep_only(logits: Tensor, rows: Tensor, columns: Tensor, free: Tensor | None = None) -> None:
    """In place: -inf everywhere but at ``(rows, columns)`` and in rows that are ``free``.

    Args: logits: float[B, K, M]; rows: int64 in [0, B * K); columns: int64, negative: none; both
    have one shape; free: bool[B, K].
    """
    flat = logits.view(-1, logits.size(-1))
    count, width = flat.shape
    forbidden = torch.ones(count, width + 1, dtype=torch.bool, device=flat.device)
    # negative columns point to the one behind the last
    forbidden[rows, torch.where(columns < 0, width, columns)] = False
    forbidden = forbidden[:, :width]
    if free is not None:
        forbidden = forbidden & ~free.reshape(-1, 1)
    flat.masked_fill_(forbidden, -math.inf)


class TrieRule:
    """Hypotheses follow a trie of allowed answers, which begins behind each image's own prefix.

    Args: trie; bos: id of <s>, the first token of every answer; prefix_length: int64[B].
    """

    def __init__(self, trie: Trie, bos: int, prefix_length: Tensor):
        self.table: TrieTable = trie.compile(prefix_length.device)
        # with dimensions: an index without is read by the host
        root, first = (torch.full_like(prefix_length[:1], number) for number in (ROOT, bos))
        self.start = self.table.advance(root, first)
        self.prefix_length = prefix_length
        self.states = self.start.expand(prefix_length.size(0), 1)

    def apply(self, logits: Tensor, step: int, columns: VocabularySubset) -> None:
        """In place on (B, K, M): only tokens that the trie allows; anything inside the prefix."""
        rows, tokens = self.table.allowed(self.states)
        free = (step < self.prefix_length)[:, None].expand(self.states.shape)
        keep_only(logits, rows, columns.of_tokens(tokens, absent=-1), free)

    def advance(self, tokens: Tensor, parents: Tensor, step: int) -> None:
        """The beams (B, K) continue ``parents`` by ``tokens``."""
        followed = self.table.advance(self.states.gather(1, parents), tokens)
        self.states = torch.where((step < self.prefix_length)[:, None], self.start, followed)

    def select(self, rows: Tensor) -> None:
        self.prefix_length, self.states = self.prefix_length[rows], self.states[rows]


def apply_hook(
    logits: Tensor,
    hook: Callable[[int, Tensor], list[int]],
    ids: list[int],
    tokens: Tensor,
    columns: VocabularySubset,
) -> None:
    """In place: only what ``hook(id of the image, tokens so far)`` returns may follow; called for
    every beam.

    Args: logits: float[B, K, M]; ids: one per image; tokens: int64[B, K, T].
    """
    beams = tokens.size(1)
    allowed = [
        (row, int(token))
        for row, prefix in enumerate(tokens.flatten(0, 1))
        for token in hook(ids[row // beams], prefix)
    ]
    rows, chosen = logits.new_tensor(allowed, dtype=torch.int64).view(-1, 2).unbind(1)
    keep_only(logits, rows, columns.of_tokens(chosen, absent=-1))
