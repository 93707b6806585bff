"""A model with the interface that generation uses, and beam search written out in plain Python.

The stub's logits depend on the image, the length and the last two tokens, which it remembers
itself: a wrong order of its cache shows in the scores.
"""

import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn

BOS, PAD, EOS, UNK = 0, 1, 2, 3
VOCAB = 150  # more than one chunk of `largest`


class StubCache:
    def __init__(self, images: Tensor):
        self.images = images
        self.history = torch.zeros(images.numel(), 1, 0, dtype=torch.int64)

    def reorder(self, parents: Tensor) -> None:
        self.history = self.history.gather(
            1, parents[..., None].expand(-1, -1, self.history.size(2))
        )

    def select(self, rows: Tensor) -> None:
        self.images, self.history = self.images[rows], self.history[rows]


class StubDecoder(nn.Module):
    def __init__(self, seed: int, vocab: int, sharpness: float):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.last, self.before, self.image = (
            sharpness * torch.randn(40, vocab, generator=generator) for _ in range(3)
        )
        self.last[:, EOS] += 2
        self.config = SimpleNamespace(max_target_positions=64)
        self.image_position_idx = torch.arange(100)

    def start(
        self, encoder_output: Tensor, beam: int, max_len: int, code_masks: Tensor
    ) -> StubCache:
        return StubCache(encoder_output)

    def step(self, tokens: Tensor, cache: StubCache) -> Tensor:
        cache.history = torch.cat([cache.history, tokens[..., None]], 2)
        return self.logits(cache.history, cache.images[:, None])

    def logits(self, history: Tensor, images: Tensor) -> Tensor:
        """Args: history: int64[..., T]; images: int64, broadcastable to [...]."""
        before = history[..., -2] if history.size(-1) > 1 else history[..., -1]
        return (
            self.last[history[..., -1] % 40]
            + self.before[before % 40]
            + self.image[(images + history.size(-1)) % 40]
        )


class StubModel(nn.Module):
    """The first source token of a sample names its image."""

    def __init__(self, seed: int = 0, vocab: int = VOCAB, sharpness: float = 1.0):
        super().__init__()
        self.decoder = StubDecoder(seed, vocab, sharpness)

    def encode(self, src_tokens: Tensor, **unused) -> Tensor:
        return src_tokens[:, 0]


def batch_of(images: list[int], width: int = 3) -> dict:
    return {
        "net_input": {"src_tokens": torch.tensor(images)[:, None].expand(-1, width).contiguous()}
    }


def naive_beam_search(
    models,
    image,
    *,
    beam,
    max_len,
    min_len=1,
    lenpen=1.0,
    unnormalized=False,
    temperature=1.0,
    ngram=0,
    unkpen=0.0,
    allowed=None,
    zero_shot=False,
    prefix=(),
    prefix_width=0,
):
    """Beam search of one image, hypothesis by hypothesis.

    Args: allowed: function (tokens without <s>) -> ids that may follow, or None; prefix_width:
    longest prefix of the batch.
    Returns: [(score, tokens with </s>, positional scores)], best first.
    """
    beams, finished = [([], [])], []
    for step in range(max_len + 1):
        candidates = []
        for tokens, scores in beams:
            values = distribution(models, image, tokens, temperature, allowed, zero_shot)
            values[UNK] -= unkpen
            for token in range(len(values)):
                value = values[token].item()
                if step == max_len:
                    possible = token == EOS
                elif step < len(prefix):
                    possible = token == prefix[step]
                else:
                    possible = token != PAD and not (
                        token == EOS and prefix_width <= step < min_len
                    )
                    possible = possible and not (ngram and repeats([BOS, *tokens, token], ngram))
                if possible and value > -math.inf:
                    candidates.append((sum(scores) + value, tokens + [token], scores + [value]))
        candidates.sort(key=lambda c: -c[0])
        beams = []
        for rank, (total, tokens, scores) in enumerate(candidates[: 2 * beam]):
            if tokens[-1] != EOS:
                beams.append((tokens, scores))
            elif rank < beam and len(finished) < beam:
                finished.append(
                    (total if unnormalized else total / len(tokens) ** lenpen, tokens, scores)
                )
        beams = beams[:beam]
        if len(finished) == beam or not beams:
            break
    return sorted(finished, key=lambda f: -f[0])


def distribution(
    models, image: int, tokens: list[int], temperature: float, allowed, zero_shot: bool
) -> Tensor:
    history = torch.tensor([BOS, *tokens])
    forbidden = torch.zeros(VOCAB, dtype=torch.bool)
    if allowed is not None:
        forbidden[:] = True
        forbidden[list(allowed(tokens))] = False
    every = []
    for model in models:
        logits = model.decoder.logits(history, torch.tensor(image)) / temperature
        if not zero_shot:
            logits = logits.masked_fill(forbidden, -math.inf)
        every.append(logits.log_softmax(-1))
    values = torch.stack(every).exp().mean(0).log()
    return values.masked_fill(forbidden, -math.inf)


def repeats(tokens: list[int], size: int) -> bool:
    """The last n-gram has occurred before."""
    grams = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    return bool(grams) and grams[-1] in grams[:-1]
