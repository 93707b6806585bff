"""How the next tokens are chosen: beam search, diverse beam search, sampling; what is finished.

The score of a hypothesis is the sum of its log-probabilities. On a CPU sums of all beams and
columns are never written out, only where one of the best may lie. Letters: B images, K beams that
go in (one at the first step, all of them later), M columns, N candidates.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

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


class FinishedHypotheses:
    """Up to ``beam`` finished hypotheses per image, in buffers of fixed size.

    Args: batch: number of images; beam: places per image; length: most tokens of a hypothesis, </s>
    included.

    Attributes: counts: int64[batch]; cut_short: bool[batch], nothing could follow.
    """

    def __init__(self, batch: int, beam: int, length: int, device: torch.device):
        self.beam = beam
        shape = (batch, beam + 1)  # the last place takes what is not kept
        self.tokens = torch.zeros(*shape, length, dtype=torch.int64, device=device)
        self.totals = torch.zeros(*shape, length, device=device)
        self.scores = torch.full(shape, -math.inf, device=device)
        self.lengths = torch.zeros(shape, dtype=torch.int64, device=device)
        self.counts = torch.zeros(batch, dtype=torch.int64, device=device)
        self.cut_short = torch.zeros(batch, dtype=torch.bool, device=device)

    def add(
        self, images: Tensor, ended: Tensor, tokens: Tensor, totals: Tensor, scores: Tensor
    ) -> None:
        """Keep the hypotheses that ``ended``, as far as there are places, the leftmost first.

        Args:
            images: int64[B], numbers of the images that are still searched.
            ended: bool[B, K].
            tokens: int64[B, K, T], </s> included, <s> not.
            totals: float32[B, K, T], summed log-probability up to each token.
            scores: float32[B, K], what hypotheses are compared by.
        """
        counts = self.counts_of(images)[:, None] + ended.cumsum(1)
        place = torch.where(ended, counts - 1, self.beam).clamp(max=self.beam)
        rows, length = images[:, None], tokens.size(-1)
        self.tokens[rows, place, :length] = tokens
        self.totals[rows, place, :length] = totals
        self.scores[rows, place] = scores
        self.lengths[rows, place] = length
        counts = counts[:, -1].clamp(max=self.beam)
        if self.are_all(images):
            self.counts = counts
        else:
            self.counts[images] = counts

    def are_all(self, images: Tensor) -> bool:
        """Whether all images are still searched: looking them up is needless then."""
        return len(images) == len(self.counts)

    def counts_of(self, images: Tensor) -> Tensor:
        """int64[B], of the images that are still searched."""
        return self.counts if self.are_all(images) else self.counts[images]

    def cut(self, images: Tensor, which: Tensor) -> None:
        """Nothing can follow in some of the images. Args: which: bool[B]."""
        if self.are_all(images):
            self.cut_short |= which
        else:
            self.cut_short[images] |= which

    def as_lists(self) -> tuple[list[list[dict[str, Tensor]]], int]:
        """fairseq's form: per image the hypotheses, best first, as dicts; how many were cut short.

        Keys: ``tokens`` int64[T] with </s>; ``score`` float32[]; ``positional_scores`` float32[T],
        log-probability of each token; ``attention`` and ``alignment``, empty. All are on the CPU,
        wherever they were made: two copies for a batch.
        """
        beam, length = self.beam, self.tokens.size(-1)
        numbers = torch.cat(
            [
                self.tokens[:, :beam].flatten(1),
                self.lengths[:, :beam],
                self.counts[:, None],
                self.cut_short[:, None],
            ],
            1,
        ).cpu()
        tokens, lengths, counts, cut_short = numbers.split([beam * length, beam, 1, 1], 1)
        tokens = tokens.unflatten(1, (beam, length))
        values = torch.cat([self.totals, self.scores[..., None]], -1)[:, :beam].cpu()
        totals, scores = values[..., :-1], values[..., -1]
        positional = torch.diff(totals, dim=-1, prepend=torch.zeros_like(totals[..., :1]))
        # free places have -inf and stay last
        order = scores.argsort(dim=1, descending=True, stable=True).tolist()
        empty = torch.empty(0)
        found = [
            [
                {
                    "tokens": tokens[image, k, :end],
                    "score": scores[image, k],
                    "attention": empty,
                    "alignment": empty,
                    "positional_scores": positional[image, k, :end],
                }
                for k, end in ((k, ends[k]) for k in order[image][:count])
            ]
            for image, (ends, count) in enumerate(zip(lengths.tolist(), counts[:, 0].tolist()))
        ]
        return found, int(cut_short.sum())


# Candidates of: log-probabilities (B, K, M) of the next token, scores so far (B, K), beam.
Search = Callable[[Tensor, Tensor, int], Candidates]


def largest(values: Tensor, base: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of ``values[r, k, m] + base[r, k]`` for each r, exactly.

    Args: values: float[R, K, M]; base: float[R, K].
    Returns: (sums, indices into K * M), both [R, n], descending, n = min(count, K * M).

    On a CPU large vocabularies are reduced first: each of the ``count`` largest numbers lies in one
    of the ``count`` chunks with the largest maxima, so one cheap pass of maxima leaves only
    ``count * CHUNK`` numbers to sort.
    """
    rows, beams, width = values.shape
    whole, rest = divmod(width, CHUNK)
    chunks = whole + (rest > 0)
    if values.device.type != "cpu" or beams * chunks <= 2 * count:
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
    """The ``2 * beam`` best continuations: at most ``beam`` end, so ``beam`` others remain."""
    width = log_probs.size(-1)
    scores, flat = largest(log_probs, so_far, 2 * beam)
    empty = (0, 2 * beam - scores.size(1))
    if empty != (0, 0):
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
        """Log-probabilities (B, K', M) of a group, less for what those before it considered."""
        if not before:
            return values.contiguous()
        columns = torch.cat([found.columns for found in before], 1)
        penalty = torch.cat([found.scores for found in before], 1).isfinite() * -self.strength
        shape = (-1, values.size(1), -1)
        return values.scatter_add(2, columns[:, None].expand(shape), penalty[:, None].expand(shape))


class Sampling:
    """Every beam draws its next token; ``topk`` and ``topp`` (above 0) leave the likeliest tokens
    only. Scores are those of the whole distribution, not of the part that was drawn from.

    Args: numbers: float[B, steps, K] in [0, 1) to draw with; None: torch's random numbers.

    Attributes: step: of ``numbers``, which the next call draws with.
    """

    def __init__(self, topk: int, topp: float, numbers: Tensor | None = None):
        self.topk, self.topp, self.numbers = topk, topp, numbers
        self.step = 0

    def __call__(self, log_probs: Tensor, so_far: Tensor, beam: int) -> Candidates:
        batch, beams, _ = log_probs.shape
        values, columns = self.likeliest(log_probs.flatten(0, 1))
        # nan: a beam without any continuation
        weights = (values - values.amax(-1, keepdim=True)).exp().nan_to_num(1.0)
        if self.numbers is None:
            drawn = torch.multinomial(weights, beam // beams, replacement=True)  # (B * K, beam / K)
        else:
            cumulative = weights.cumsum(-1)
            total = cumulative[:, -1:]
            numbers = self.numbers[:, self.step].reshape(batch * beams, -1) * total
            last = cumulative.lt(total).sum(-1, keepdim=True)  # beyond it nothing may be drawn
            drawn = torch.searchsorted(cumulative, numbers, right=True).minimum(last)
        scores = values.gather(1, drawn) + so_far.reshape(-1, 1)
        chosen = drawn if columns is None else columns.gather(1, drawn)
        parents = (torch.arange(beam, device=chosen.device) % beams).expand(batch, beam)
        return Candidates(scores.view(batch, beam), chosen.view(batch, beam), parents)

    def likeliest(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """(R, M) -> those that may be drawn, others -inf or left out; their columns (None: all)."""
        if self.topp <= 0:
            return (rows, None) if self.topk <= 0 else self.top(rows, self.topk)
        on_cpu = rows.device.type == "cpu"  # a GPU sorts all columns sooner than it is waited for
        count = self.topk if self.topk > 0 else NUCLEUS if on_cpu else rows.size(1)
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
    ) -> "Sampling":
        """What an image draws depends on its seed alone, not on what else is in the batch."""
        tables = [
            torch.rand(steps, beam, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        return Sampling(self.topk, self.topp, torch.stack(tables).to(device))

    def select(self, rows: Tensor) -> None:
        """Only these images remain."""
        if self.numbers is not None:
            self.numbers = self.numbers[rows]

    @staticmethod
    def top(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return largest(rows[:, None], rows.new_zeros(rows.size(0), 1), count)


def make_search(options: GenerationOptions) -> Search:
    if options.sampling:
        return Sampling(options.sampling_topk, options.sampling_topp)
    if options.diverse_beam_groups > 0:
        return DiverseBeamSearch(options.diverse_beam_groups, options.diverse_beam_strength)
    return beam_search
