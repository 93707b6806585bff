"""Self-critical sequence training without its framework: sampled captions as a batch, and what each
has earned.

Letters: B images, K samples of an image, T tokens of the longest sample.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def batch_of_samples(
    samples: Sequence[Sequence[Tensor]], bos: int, pad: int
) -> tuple[Tensor, Tensor]:
    """Sampled captions as targets and as the decoder's input.

    Args: samples: per image its captions, int64[length] each, </s> included. An image may have
        fewer than others: its missing captions are rows of padding.

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

    Args: scores: float64[B, K], NaN where there is no sample or no score. baseline: float64[B].
    Returns: float64[B, K], 0 for those.
    """
    return (scores - baseline[:, None]).nan_to_num(0, 0, 0)


def repeat_rows(net_input: dict, times: int) -> dict:
    """Every row of a batch ``times`` times, one copy after the other row by row: for models that
    share nothing."""
    return {
        name: value.repeat_interleave(times, dim=0) if isinstance(value, Tensor) else value
        for name, value in net_input.items()
    }
