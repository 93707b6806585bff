"""The losses of OFA as pure functions on tensors.

Letters: N scored tokens ("rows"), V vocabulary entries, B images, K samples of an image, T tokens
of the longest. ``lprobs`` are log-probabilities float[..., V], ``allowed`` is bool[..., V] or None
(every token may be an answer); tokens that are not allowed have log-probability -inf.

A vocabulary of 60 000 entries makes one copy of the logits larger than the rest of a decoder step,
so ``by_rows`` applies these functions to some rows at a time and recomputes them for the gradient:
besides the logits only their gradient is ever held.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

CHUNK_ELEMENTS = 2**21  # logits per chunk: 8 MiB in float32


def allowed_tokens(
    shape: tuple[int, int], masks: Tensor | None, span: tuple[int, int] | None, device
) -> Tensor | None:
    """Which tokens may be predicted: bool[rows, V] (the intersection), or None for all.

    Args:
        shape: (rows, V).
        masks: bool[..., V] of these rows, e.g. by a trie of answers.
        span: (start, end), the ids of a task's answers; the specials (0 to 3) stay allowed.
    """
    allowed = None if masks is None else masks.reshape(shape)
    if span is not None:
        ids = torch.arange(shape[1], device=device)
        in_span = (ids < 4) | ((ids >= span[0]) & (ids < span[1]))
        allowed = in_span.expand(shape) if allowed is None else allowed & in_span
    return allowed


def may_be_predicted(
    target: Tensor, masks: Tensor | None, positions: Tensor, span: tuple[int, int] | None
) -> Tensor:
    """Whether each target is one of its ``allowed_tokens``: bool[N].

    Args: target: int64[N], at ``positions`` (int64[N]) of ``masks`` (bool[..., V]).
    """
    possible = torch.ones_like(target, dtype=torch.bool)
    if masks is not None:
        possible &= masks.reshape(-1, masks.size(-1))[positions, target]
    if span is not None:
        possible &= (target < 4) | ((target >= span[0]) & (target < span[1]))
    return possible


def log_probabilities(
    logits: Tensor, allowed: Tensor | None = None, conf: Tensor | None = None
) -> Tensor:
    """Log-softmax over the allowed tokens, at least float32, times the confidence of each row.

    ``conf`` (float[N]) weighs log-probabilities and not losses, as upstream: the two differ for
    R-Drop and for the encouraging loss.
    """
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -math.inf)
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    lprobs = torch.log_softmax(logits, dim=-1, dtype=wide)
    return lprobs if conf is None else lprobs * conf[..., None]


def label_smoothed(
    lprobs: Tensor, target: Tensor, epsilon: float, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy against a target that shares ``epsilon`` of its weight with the other tokens.

    Each of n allowed tokens gets ``eps_i = epsilon / (n - 1)``, the target ``1 - epsilon`` in all.
    With a restricted vocabulary upstream divides by ``n - 1 + 1e-6``, which also covers n = 1.

    Args: lprobs: float[N, V]. target: int64[N].
    Returns: loss float[N], negative log-likelihood float[N].
    """
    nll = -lprobs.gather(-1, target[..., None])[..., 0]
    if epsilon == 0:
        return nll, nll
    if allowed is None:
        share: float | Tensor = epsilon / (lprobs.size(-1) - 1)
        spread = -lprobs.sum(-1)
    else:
        share = epsilon / (allowed.sum(-1) - 1 + 1e-6)
        spread = -lprobs.masked_fill(~allowed, 0).sum(-1)
    return (1 - epsilon - share) * nll + share * spread, nll


def most_probable(lprobs: Tensor, target: Tensor) -> Tensor:
    """Whether ``argmax`` finds the target: bool[N]. Args: lprobs: float[N, V]; target: int64[N]."""
    if lprobs.device.type != "cpu":
        return lprobs.argmax(-1) == target
    # argmax is slow on CPU: only for rows whose target has the largest number, maybe with others
    right = lprobs.gather(-1, target[:, None])[:, 0] == lprobs.amax(-1)
    rows = right.nonzero()[:, 0]
    right[rows] = lprobs[rows].argmax(-1) == target[rows]
    return right


def encouragement(lprobs: Tensor, target: Tensor, epsilon: float, log_end: float = 1.0) -> Tensor:
    """Bonus ``log(1 - p)`` (negative) that keeps rewarding tokens which are already well predicted.

    Above ``p = log_end`` the logarithm continues as its tangent; with ``log_end = 1`` it goes up to
    1e-5 before one. The label is smoothed with ``epsilon / V`` per token, as upstream.

    Args: lprobs: float[N, V]. target: int64[N]. Returns: float[N], to add to the cross-entropy.
    Source: Zhao et al., Well-classified Examples are Underestimated in Classification, AAAI 2022.
    """
    probs = lprobs.exp()
    bonus = (1 - probs).clamp(min=1e-5).log()
    if log_end != 1:
        tangent = math.log(1 - log_end) - (probs - log_end) / (1 - log_end)
        bonus = torch.where(probs > log_end, tangent, bonus)
    at_target = bonus.gather(-1, target[..., None])[..., 0]
    return (1 - epsilon) * at_target + epsilon * bonus.mean(-1)


def rewarded(lprobs: Tensor, target: Tensor, reward: Tensor) -> Tensor:
    """Policy gradient: minus the log-probability of a sampled token times what its sentence earned.

    Args: lprobs: float[N, V]. target: int64[N]. reward: float[N]. Returns: float[N].
    Source: Rennie et al., Self-critical Sequence Training for Image Captioning, CVPR 2017.
    """
    return -lprobs.gather(-1, target[..., None])[..., 0] * reward


def leave_one_out(scores: Tensor) -> Tensor:
    """How much better each sample is than the mean of the other samples of its image.

    Args: scores: float64[B, K], NaN where there is no sample or no score.
    Returns: float64[B, K], 0 for those, and for the only sample of an image.
    """
    known = scores.isfinite()
    count = known.sum(1, keepdim=True)
    sums = scores.masked_fill(~known, 0).sum(1, keepdim=True)
    baseline = (sums - scores) / (count - 1).clamp(min=1)
    return (scores - baseline).masked_fill(~known | (count < 2), 0)


def better_than(scores: Tensor, baseline: Tensor) -> Tensor:
    """How much better each sample is than the baseline of its image.

    Args: scores: float64[B, K]; baseline: float64[B]. Returns: float64[B, K], 0 where one is not
    finite.
    """
    return (scores - baseline[:, None]).nan_to_num(0, 0, 0)


def batch_of_samples(
    samples: Sequence[Sequence[Tensor]], bos: int, pad: int
) -> tuple[Tensor, Tensor]:
    """Sampled captions as targets and as the decoder's input.

    Args: samples: per image its captions, int64[length] each, </s> included. Where an image has
        fewer than others, the missing ones are rows of padding.

    Returns: target int64[B, K, T]; prev_output_tokens int64[B, K, T], the same shifted right behind
    <s>.
    """
    most = max(map(len, samples))
    nothing = samples[0][0].new_empty(0)
    rows = [row for captions in samples for row in (*captions, *[nothing] * (most - len(captions)))]
    target = pad_sequence(rows, batch_first=True, padding_value=pad)
    previous = target.roll(1, dims=1).masked_fill(target == pad, pad)
    previous[:, 0] = bos
    return target.unflatten(0, (-1, most)), previous.unflatten(0, (-1, most))


def kl_to_reference(lprobs: Tensor, other: Tensor) -> Tensor:
    """KL(p, q) of two predictions of the same tokens; tokens that are not allowed count nothing.

    Args: lprobs, other: float[N, V], of p and of q. Returns: float[N].
    """
    p, q = (x.masked_fill(lprobs == -math.inf, 0) for x in (lprobs, other))
    return (lprobs.exp() * (p - q)).sum(-1)


def symmetric_divergence(lprobs: Tensor) -> Tensor:
    """Half of KL(p, q) + KL(q, p) of two predictions of the same tokens.

    Args: lprobs: float[N, 2, V]. Returns: float[N].
    Source: Liang et al., R-Drop: Regularized Dropout for Neural Networks, NeurIPS 2021.
    """
    p, q = lprobs.masked_fill(lprobs == -math.inf, 0).unbind(1)
    return ((q.exp() - p.exp()) * (q - p)).sum(-1) / 2


def keep_tokens(
    loss: Tensor, drop_ratio: float, paired: bool = False, drop_worst: bool = True
) -> Tensor:
    """Rows that remain when a share of the tokens is dropped: ``int(n * (1 - drop_ratio))`` of n.

    Args:
        loss: float[N], what the tokens are ranked by.
        paired: the second half repeats the tokens of the first, which decides for both (R-Drop).
        drop_worst: drop the largest losses; else the smallest.

    Returns: int64[kept], rows of ``loss``; halves stay halves, in the same order.
    """
    count = len(loss) // 2 if paired else len(loss)
    left = int(count * (1 - drop_ratio))
    kept = torch.topk(loss[:count].detach(), left, largest=not drop_worst).indices
    return torch.cat([kept, kept + count]) if paired else kept


def by_rows(
    function: Callable[[Tensor, slice], Tensor], logits: Tensor, rows: Tensor | None = None
) -> Tensor:
    """``function(logits[rows], slice(N))``: float[N, C], in both passes some rows at a time.

    Args:
        function: (float[n, ..., V], the places of these n among all N) -> float[n, C]; treats its
            rows independently.
        logits: float[M, V].
        rows: int64[N] or int64[N, k], no row twice; None: all M, in their order and without a copy.
    """
    return _ByRows.apply(function, logits, rows)


class _ByRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, logits, rows):
        ctx.function = function
        ctx.save_for_backward(logits, rows)
        return torch.cat([function(logits[which], part) for part, which in _parts(logits, rows)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        logits, rows = ctx.saved_tensors
        grad = torch.empty_like(logits) if rows is None else torch.zeros_like(logits)
        for part, which in _parts(logits, rows):
            with torch.enable_grad():
                some = logits[which].detach().requires_grad_()
                output = ctx.function(some, part)
            (grad[which],) = torch.autograd.grad(output, some, grad_output[part])
        return None, grad, None


def _parts(logits: Tensor, rows: Tensor | None) -> list[tuple[slice, slice | Tensor]]:
    """Places, and which logits they are; at least one, so that the number of columns is known."""
    count, together = (len(logits), 1) if rows is None else (len(rows), rows[:1].numel())
    size = max(1, CHUNK_ELEMENTS // max(1, logits.size(-1) * together))
    starts = range(0, max(count, 1), size)
    parts = [slice(first, min(first + size, count)) for first in starts]
    return [(part, part if rows is None else rows[part]) for part in parts]
