"""How the next tokens are chosen: beam search, diverse beam search, sampling.

Letters: B images, K beams that go in (one at the first step, all of them later), M columns, N
candidates.

The score of a hypothesis is the sum of its log-probabilities. Sums of all beams and columns are
never written
out: they are needed only where one of the best may lie.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.models.generation.options import GenerationOptions

CHUNK = 128  # columns that the first pass of `largest` reduces to one
NUCLEUS = 256  # columns that the nucleus is looked for in first


class Candidates(NamedTuple):
    """Continuations of an image's hypotheses, the best first; a score of -inf marks an empty place.

    Fields: scores float32[B, N]; columns int64[B, N]; parents int64[B, N], the beam each continues.
    """

    scores: Tensor
    columns: Tensor
    parents: Tensor


class Search(Protocol):
    """Chooses candidates from log-probabilities (B, K, M) of the next token and the scores so
    far (B, K)."""

    def __call__(self, log_probs: Tensor, so_far: Tensor, beam: int) -> Candidates: ...


def largest(values: Tensor, base: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of ``values[r, k, m] + base[r, k]`` for each r, exactly.

    Args: values: float[R, K, M]; base: float[R, K].
    Returns: (sums, indices into K * M), both [R, n], descending, n = min(count, K * M).

    Large vocabularies are reduced first: each of the ``count`` largest numbers lies in one of the
    ``count`` chunks with the largest maxima, so one cheap pass of maxima leaves only ``count *
    CHUNK`` numbers to sort.
    """
    rows, beams, width = values.shape
    whole, rest = divmod(width, CHUNK)
    chunks = whole + (rest > 0)
    if beams * chunks <= 2 * count:
        sums = (values + base[..., None]).flatten(1)
        return sums.topk(min(count, sums.size(1)))
    maxima = values[..., : whole * CHUNK].unflatten(-1, (whole, CHUNK)).amax(-1)
    if rest:
        maxima = torch.cat([maxima, values[..., whole * CHUNK :].amax(-1, keepdim=True)], -1)
    _, chosen = (maxima + base[..., None]).flatten(1).topk(count)
    beam = chosen // chunks
    inside = torch.arange(CHUNK, device=values.device)
    columns = (chosen % chunks * CHUNK)[..., None] + inside  # (R, count, CHUNK)
    flat = (beam[..., None] * width + columns.clamp(max=width - 1)).flatten(1)
    sums = values.flatten(1).gather(1, flat) + base.gather(1, beam).repeat_interleave(CHUNK, 1)
    if rest:
        sums = sums.masked_fill((columns >= width).flatten(1), -math.inf)
    sums, order = sums.topk(count)
    return sums, flat.gather(1, order)


def beam_search(log_probs: Tensor, so_far: Tensor, beam: int) -> Candidates:
    """The ``2 * beam`` best continuations: at most ``beam`` of them end, so ``beam`` others
    always remain."""
    width = log_probs.size(-1)
    scores, flat = largest(log_probs, so_far, 2 * beam)
    empty = (0, 2 * beam - scores.size(1))
    scores, flat = F.pad(scores, empty, value=-math.inf), F.pad(flat, empty)
    return Candidates(scores, flat % width, flat // width)


class DiverseBeamSearch:
    """Beams in groups (Vijayakumar et al. 2018): beam k belongs to group ``k % groups``.

    A group pays ``strength`` for each time that the groups before it have considered a token at
    this step; the penalty stays in the score. As upstream all ``2 * beam / groups``
    candidates of a group count, not only those that live on.
    """

    def __init__(self, groups: int, strength: float):
        self.groups, self.strength = groups, strength

    def __call__(self, log_probs: Tensor, so_far: Tensor, beam: int) -> Candidates:
        found: list[Candidates] = []
        for group in range(self.groups):
            first, step = (0, 1) if log_probs.size(1) == 1 else (group, self.groups)
            values = self.penalize(log_probs[:, first::step], found)
            best = beam_search(values, so_far[:, first::step], beam // self.groups)
            found.append(best._replace(parents=best.parents * step + first))
        # rank by rank, group by group
        return Candidates(*(torch.stack(parts, 2).flatten(1) for parts in zip(*found)))

    def penalize(self, values: Tensor, before: list[Candidates]) -> Tensor:
        """Log-probabilities (B, K', M) of a group, less for what the groups before it have
        considered."""
        if not before:
            return values.contiguous()
        columns = torch.cat([found.columns for found in before], 1)
        penalty = torch.cat([found.scores for found in before], 1).isfinite() * -self.strength
        shape = (-1, values.size(1), -1)
        return values.scatter_add(2, columns[:, None].expand(shape), penalty[:, None].expand(shape))


class Sampling:
    """Every beam draws its next token; ``topk`` and ``topp`` (above 0) leave the likeliest tokens
    only.

    Scores are those of the whole distribution, not of the part that was drawn from.
    """

    def __init__(self, topk: int, topp: float):
        self.topk, self.topp = topk, topp

    def __call__(self, log_probs: Tensor, so_far: Tensor, beam: int) -> Candidates:
        batch, beams, _ = log_probs.shape
        values, columns = self.likeliest(log_probs.flatten(0, 1))
        weights = (values - values.amax(-1, keepdim=True)).exp()
        weights = torch.where(weights.isnan(), 1.0, weights)  # a beam without any continuation
        drawn = torch.multinomial(weights, beam // beams, replacement=True)  # (B * K, beam / K)
        return continued(drawn, values, columns, so_far, beam)

    def likeliest(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """(R, M) -> those that may be drawn, the others -inf or left out, and their columns
        (None: all)."""
        if self.topp <= 0:
            return (rows, None) if self.topk <= 0 else self.top(rows, self.topk)
        count = self.topk if self.topk > 0 else NUCLEUS
        while True:
            values, columns = self.top(rows, count)
            probabilities = values.exp()
            mass = probabilities.cumsum(-1)
            if self.topk > 0 or count >= rows.size(1) or bool((mass[:, -1] >= self.topp).all()):
                break
            count *= 16
        return values.masked_fill(mass - probabilities >= self.topp, -math.inf), columns

    def seeded(
        self, seeds: Sequence[int], steps: int, beam: int, device: torch.device
    ) -> "SeededSampling":
        """The same with random numbers of its own for every image. Args: seeds: one per image.
        steps: tokens to draw."""
        return SeededSampling(self, seeds, steps, beam, device)

    @staticmethod
    def top(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return largest(rows[:, None], rows.new_zeros(rows.size(0), 1), count)


class SeededSampling:
    """Draws that depend on the seed of an image alone, not on what else is in the batch.

    Args: sampling: which tokens may be drawn. seeds: one per image.
    """

    def __init__(
        self, sampling: Sampling, seeds: Sequence[int], steps: int, beam: int, device: torch.device
    ):
        self.likeliest = sampling.likeliest
        tables = [
            torch.rand(steps, beam, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        self.numbers = torch.stack(tables).to(device)  # (B, steps, K) in [0, 1)
        self.step = 0

    def select(self, rows: Tensor) -> None:
        """Only these images remain."""
        self.numbers = self.numbers[rows]

    def __call__(self, log_probs: Tensor, so_far: Tensor, beam: int) -> Candidates:
        batch, beams, _ = log_probs.shape
        values, columns = self.likeliest(log_probs.flatten(0, 1))
        # nan: no continuation
        cumulative = (values - values.amax(-1, keepdim=True)).exp().nan_to_num(1.0).cumsum(-1)
        numbers = self.numbers[:, self.step].reshape(batch * beams, -1) * cumulative[:, -1:]
        self.step += 1
        # beyond it nothing may be drawn
        last = cumulative.lt(cumulative[:, -1:]).sum(-1, keepdim=True)
        # (B * K, beam / K)
        drawn = torch.searchsorted(cumulative, numbers, right=True).minimum(last)
        return continued(drawn, values, columns, so_far, beam)


def continued(
    drawn: Tensor, values: Tensor, columns: Tensor | None, so_far: Tensor, beam: int
) -> Candidates:
    """Candidates of drawn places. Args: drawn: int64[B * K, beam / K] into ``values`` float[B *
    K, n], which are of ``columns``."""
    batch, beams = so_far.shape
    scores = values.gather(1, drawn) + so_far.reshape(-1, 1)
    chosen = drawn if columns is None else columns.gather(1, drawn)
    parents = torch.arange(beam, device=chosen.device) % beams
    return Candidates(
        scores.view(batch, beam), chosen.view(batch, beam), parents.expand(batch, beam)
    )


def make_search(options: GenerationOptions) -> Search:
    if options.sampling:
        return Sampling(options.sampling_topk, options.sampling_topp)
    if options.diverse_beam_groups > 0:
        return DiverseBeamSearch(options.diverse_beam_groups, options.diverse_beam_strength)
    return beam_search
