"""Finished hypotheses of a batch, collected while the search continues."""

import math

import torch
from torch import Tensor


class FinishedHypotheses:
    """Up to ``beam`` finished hypotheses per image, in buffers of fixed size.

    Args: batch: number of images; beam: places per image; length: most tokens of a hypothesis, </s>
    included.
    """

    def __init__(self, batch: int, beam: int, length: int, device: torch.device):
        self.beam = beam
        self.tokens = torch.zeros(batch, beam, length, dtype=torch.int64, device=device)
        self.totals = torch.zeros(batch, beam, length, device=device)
        self.scores = torch.full((batch, beam), -math.inf, device=device)
        self.lengths = torch.zeros(batch, beam, dtype=torch.int64, device=device)
        self.counts = torch.zeros(batch, dtype=torch.int64, device=device)

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
        place = self.counts[images][:, None] + ended.cumsum(1) - 1
        row, column = (ended & (place < self.beam)).nonzero(as_tuple=True)
        image, place, length = images[row], place[row, column], tokens.size(-1)
        self.tokens[image, place, :length] = tokens[row, column]
        self.totals[image, place, :length] = totals[row, column]
        self.scores[image, place] = scores[row, column]
        self.lengths[image, place] = length
        self.counts[images] = (self.counts[images] + ended.sum(1)).clamp(max=self.beam)

    def complete(self, images: Tensor) -> Tensor:
        """bool[B]: the image needs no further hypotheses."""
        return self.counts[images] >= self.beam

    def as_lists(self) -> list[list[dict[str, Tensor]]]:
        """fairseq's form: per image the hypotheses, best first, as dicts.

        Keys: ``tokens`` int64[T] with </s>; ``score`` float32[]; ``positional_scores`` float32[T],
        log-probability of each token; ``attention`` and ``alignment``, empty.
        """
        # free places have -inf and stay last
        order = self.scores.argsort(dim=1, descending=True, stable=True).tolist()
        positional = torch.diff(self.totals, dim=-1, prepend=torch.zeros_like(self.totals[..., :1]))
        counts, lengths = self.counts.tolist(), self.lengths.tolist()
        empty = torch.empty(0)
        return [
            [
                {
                    "tokens": self.tokens[image, k, : lengths[image][k]],
                    "score": self.scores[image, k],
                    "attention": empty,
                    "alignment": empty,
                    "positional_scores": positional[image, k, : lengths[image][k]],
                }
                for k in order[image][: counts[image]]
            ]
            for image in range(len(counts))
        ]
