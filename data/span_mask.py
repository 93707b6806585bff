"""Text infilling: some spans of whole words give way to ``<mask>``, the rest of the text stays.

    the little boat sailed across the wide bay  ->  the little <mask> across the wide <mask>

Draws are those of upstream, so that a seed gives its masks (tests/parity/test_span_mask.py).
Source: Lewis et al., BART, ACL 2020: spans of 0, 1, 2, ... words by a Poisson distribution; a span
of no words inserts a mask.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ofa.errors import UserError

LENGTHS = ("span-poisson", "word", "subword")
RAREST = 1e-7  # spans that are less probable are not drawn
LONGEST = 127  # words


@dataclass(frozen=True)
class SpanMask:
    """Masks token ids.

    Args:
        mask: id of ``<mask>``. ordinary: ids that a random token may have.
        starts: bool[V], whether a token begins a word; None: every token is a word of its own
            (``subword``).
        ratio: share of the words that is masked.
        length: ``span-poisson`` or, every span one word, ``word`` or ``subword``.
        poisson: mean length of a span in words.
        replace: a masked span becomes one ``<mask>`` (1), a ``<mask>`` per token (-1), or nothing
            (0).
        random_ratio: share of the masks that become a random token instead. keep_ratio: that stay
            what they were.
    """

    mask: int
    ordinary: range
    starts: Tensor | None
    ratio: float = 0.3
    length: str = "span-poisson"
    poisson: float = 3.0
    replace: int = 1
    random_ratio: float = 0.0
    keep_ratio: float = 0.0

    def __post_init__(self):
        share = "expects a share from 0 to 1, found"
        lengths = ", ".join(LENGTHS)
        for right, message in (
            (
                self.length in LENGTHS,
                f"--mask-length expects one of {lengths}; found {self.length}",
            ),
            (self.replace in (-1, 0, 1), f"--replace-length: -1, 0 or 1, found {self.replace}"),
            (0 <= self.ratio <= 1, f"--mask-ratio {share} {self.ratio}"),
            (0 <= self.random_ratio <= 1, f"--random-ratio {share} {self.random_ratio}"),
            (
                self.keep_ratio >= 0 and self.random_ratio + self.keep_ratio <= 1,
                f"--keep-ratio {self.keep_ratio}"
                f" --random-ratio {self.random_ratio}: expects at most 1 together",
            ),
            (self.poisson > 0, f"--poisson-lambda: expects words above 0, found {self.poisson}"),
        ):
            if not right:
                raise UserError(message)

    def __call__(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Args: tokens: int64[N], begin and end symbol included; both stay. Returns: int64[M]."""
        every = torch.ones(len(tokens), dtype=torch.bool)
        begins = every if self.starts is None else self.starts[tokens]
        begins[0] = begins[-1] = False
        count = math.ceil(begins.sum().float() * self.ratio)
        if count == 0:
            return tokens
        lengths = self.span_lengths(count, generator)
        inserts, lengths = int((lengths == 0).sum()), lengths[lengths > 0]
        if len(lengths):
            tokens = self.cover(tokens, begins, lengths, generator)
        return self.insert(tokens, inserts / len(tokens), generator) if inserts else tokens

    def span_lengths(self, count: int, generator: torch.Generator) -> Tensor:
        """Words of each span, ``count`` words in all: int64[spans]."""
        if self.length != "span-poisson":
            return torch.ones(count, dtype=torch.int64)
        probabilities = poisson_probabilities(self.poisson)
        lengths = torch.empty(0, dtype=torch.int64)
        while lengths.sum() < count:
            more = torch.multinomial(probabilities, count, replacement=True, generator=generator)
            lengths = torch.cat([lengths, more])
        total = lengths.cumsum(0)
        last = int((total >= count).nonzero()[0, 0])
        lengths[last] -= total[last] - count
        return lengths[: last + 1]

    def cover(
        self, tokens: Tensor, begins: Tensor, lengths: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Mask spans of 1, 2, ... words that begin at random words; they may overlap. Args:
        lengths: int64[spans], in words."""
        words = begins.nonzero()[:, 0]
        chosen = words[torch.randperm(len(words), generator=generator)[: len(lengths)]]
        chance = torch.empty(len(chosen)).uniform_(generator=generator)
        masked, remains = tokens.clone(), torch.ones(len(tokens), dtype=torch.bool)
        if self.replace == 0:
            remains[chosen] = False
        else:
            self.hide(masked, tokens, chosen, chance, generator)
        while len(chosen):  # one token further in every span that has words left
            after = chosen + 1
            lengths = lengths - begins[chosen].long()
            goes_on = ((lengths > 0) | ~begins[after]) & (after < len(tokens) - 1)
            chosen, chance, lengths = after[goes_on], chance[goes_on], lengths[goes_on]
            if self.replace == -1:
                self.hide(masked, tokens, chosen, chance, generator)
            else:
                remains[chosen] = False
        return masked[remains]

    def hide(
        self,
        masked: Tensor,
        tokens: Tensor,
        places: Tensor,
        chance: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Put masks, random tokens or the tokens themselves at some places of ``masked``. Args:
        chance: float[places]."""
        masked[places] = self.mask
        random = places[chance < self.random_ratio]
        masked[random] = self.random_tokens(len(random), generator)
        kept = places[chance >= 1 - self.keep_ratio]
        masked[kept] = tokens[kept]

    def random_tokens(self, count: int, generator: torch.Generator) -> Tensor:
        low, high = self.ordinary.start, self.ordinary.stop
        return torch.randint(low, high, (count,), generator=generator)

    def insert(self, tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """Add masks between the tokens, a number per token."""
        # as upstream: one more where the product is rounded up
        count = math.ceil(len(tokens) * share)
        total = len(tokens) + count
        places = torch.randperm(total - 2, generator=generator)[:count] + 1
        result = torch.full((total,), self.mask)
        random = math.ceil(count * self.random_ratio)
        result[places[:random]] = self.random_tokens(random, generator)
        old = torch.ones(total, dtype=torch.bool)
        old[places] = False
        result[old] = tokens
        return result


def poisson_probabilities(mean: float) -> Tensor:
    """Probability of 0, 1, 2, ... words: float32[lengths], sum 1."""
    found = [math.exp(-mean)]
    while len(found) <= LONGEST and (found[-1] >= RAREST or len(found) <= mean):
        found.append(found[-1] * mean / len(found))
    probabilities = torch.tensor(found)
    return probabilities / probabilities.sum()
