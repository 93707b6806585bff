"""Whether self-attention takes its bias in parts (``flex_attention.py``): by device, type and
size, and by a trial of that kernel on the GPU itself.

torch.compile writes the kernel when it is first needed, for the GPU that is there. So it is
compared with attention written out before it is trusted, and with the kernel that reads a bias
before it is preferred. Letters as in ``attention.py``.
"""

import logging
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, Optional

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ofa.models import attention
from ofa.models.attention import FORBIDDEN, shared_bias_attention
from ofa.models.flex_attention import attend_by_parts, join_parts, table_of_parts
from ofa.models.positions import bucket_bias

logger = logging.getLogger(__name__)

LARGE_BIAS = 1 << 21  # numbers of a (H, T, S); a smaller one costs less than parts of it do
TOLERANCE = 0.05  # of the largest value; 16 bits are 0.02 off
COMPARED = (2, 4, 588)  # samples, heads, positions: 24 x 24 patches and a text
TIMED = (8, 16, 916)  # 30 x 30 patches: the GPU takes longer than its host


class Kind(NamedTuple):
    """What differs between the kernels of a network's parts."""

    causal: bool
    per_sample: bool  # samples have other buckets


def takes_parts(x: Tensor, num_heads: int, num_keys: int, dropout: float, kind: Kind) -> bool:
    """Whether attention takes a bias as `BiasParts`: with gradients on a GPU whose kernel passes
    the trial, where the bias is large. Triton multiplies float32 slowly: it is not tried then.

    Args: x: (B, T, C), the layer's input. dropout: of attention weights, which the kernel has not.
    """
    choice = attention.CHOICE
    if x.device.type != "cuda" or choice not in ("auto", "flex"):
        return False
    exact = torch.are_deterministic_algorithms_enabled()
    if not torch.is_grad_enabled() or dropout or exact or torch.compiler.is_compiling():
        return False
    if is_in_torch_dispatch_mode():  # somebody counts operators, or there are no numbers
        return False
    casts = torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if casts else x.dtype
    small = num_heads * x.size(1) * num_keys < LARGE_BIAS
    if choice == "auto" and (small or dtype == torch.float32):
        return False
    found = tried(x.device, dtype, x.size(2) // num_heads, kind)
    return found.right and (choice == "flex" or found.times < 1)


class Trial(NamedTuple):
    right: bool
    times: float  # the time of the kernel over that of the one that reads a bias


@cache
def tried(device: torch.device, dtype: torch.dtype, width: int, kind: Kind) -> Trial:
    """What the kernel is worth on a GPU. It is compiled here, which takes up to a minute where the
    machine has not compiled it before. Args: width: D."""
    if capability_of(device) < (8, 0):
        return Trial(False, torch.inf)
    logger.info("FlexAttention for %s is compiled and tried, up to a minute", dtype)
    try:
        with torch.autocast(device.type, enabled=False):
            difference = Case(device, dtype, width, kind, *COMPARED).difference()
            if difference >= TOLERANCE:
                raise RuntimeError(f"its values are {difference:.2g} off")
            case = Case(device, dtype, width, kind, *TIMED)
            times = case.seconds(case.by_parts) / case.seconds(case.by_shared_bias)
    except Exception as error:  # compilers raise nearly anything
        level = logging.WARNING if attention.CHOICE == "flex" else logging.INFO
        logger.log(
            level,
            "FlexAttention does not work here (%s: %s); attention takes the kernel that reads a"
            " bias, as with OFA_ATTENTION=shared",
            type(error).__name__,
            (str(error).strip() or "no reason given").splitlines()[0],
        )
        return Trial(False, torch.inf)
    logger.info("FlexAttention takes %.2f times as long as the kernel that reads a bias", times)
    return Trial(True, times)


def capability_of(device: torch.device) -> tuple[int, int]:
    """Of a GPU, 8 and 0 of sm_80; zeros without one."""
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else (0, 0)


class Case:
    """Made-up self-attention with position vectors, buckets and padding, which leaves all
    generators of random numbers alone."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        width: int,
        kind: Kind,
        samples: int,
        heads: int,
        length: int,
    ) -> None:
        self.device, self.scale = device, width**-0.5
        self.rows = rows = torch.arange(length, device=device)
        self.first_hidden: Optional[int] = 1 if kind.causal else None
        buckets = (rows[:, None] - rows + length).masked_fill(rows >= length - length // 50, 0)
        self.buckets = buckets.expand(samples if kind.per_sample else 1, -1, -1)
        self.padding_mask = (rows >= length - length // 100).expand(samples, -1).clone()
        self.padding_mask[0] = False

        def numbers(*shape: int, frequency: float) -> Tensor:
            count = torch.arange(torch.Size(shape).numel(), device=device)
            return torch.sin(count * frequency).view(shape).to(dtype).requires_grad_()

        shape = heads, length, width
        # queries, keys, values; position queries and keys; learned biases
        self.inputs = [numbers(samples, *shape, frequency=one) for one in (1.3, 0.7, 1.9)]
        self.inputs += [numbers(1, *shape, frequency=one) for one in (0.3, 1.1)]
        self.inputs.append(numbers(2 * length, heads, frequency=2.3))
        self.direction = numbers(samples, *shape, frequency=0.9).detach()  # gradient of the values

    def by_parts(self, query, keys, values, position_queries, position_keys, biases) -> Tensor:
        vectors = position_queries, position_keys
        bias = join_parts(*vectors, self.buckets, self.padding_mask, self.first_hidden)
        bias = bias._replace(table=table_of_parts(without_first(biases)))
        return attend_by_parts(query, keys, values, bias, self.scale)

    def by_shared_bias(self, query, keys, values, position_queries, position_keys, biases):
        bias = self.visible(position_queries * self.scale @ position_keys.mT)
        bias = bias + bucket_bias(without_first(biases), self.buckets)
        return shared_bias_attention(
            query, keys, values, bias, self.padding_mask, self.scale, dropout=0.0
        )

    def written_out(self, query, keys, values, position_queries, position_keys, biases) -> Tensor:
        scores = (query @ keys.mT + position_queries @ position_keys.mT) * self.scale
        scores = self.visible(scores + without_first(biases)[self.buckets].movedim(-1, 1))
        scores = scores.masked_fill(self.padding_mask[:, None, None], FORBIDDEN)
        return scores.softmax(-1) @ values

    def visible(self, scores: Tensor) -> Tensor:
        """Scores without those of later keys."""
        if self.first_hidden is None:
            return scores
        return scores.masked_fill(self.rows[:, None] < self.rows, FORBIDDEN)

    def results(self, function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """Values and gradients."""
        values = function(*inputs)
        gradients = torch.autograd.grad(values, inputs, self.direction.to(values.dtype))
        return [values.detach(), *gradients]

    def difference(self) -> float:
        """Largest difference from attention written out in float32, as a share of the largest of
        the values, or of a gradient's."""
        exact = [one.detach().float().requires_grad_() for one in self.inputs]
        found = self.results(self.by_parts, self.inputs)
        expected = self.results(self.written_out, exact)
        differences = [
            ((one.float() - wanted).abs().max() / wanted.abs().max()).nan_to_num(torch.inf)
            for one, wanted in zip(found, expected, strict=True)
        ]
        return float(torch.stack(differences).max())

    def seconds(self, function: Callable[..., Tensor]) -> float:
        """Of five calls behind each other, gradients included: the fastest of three times, after
        one that compiles."""
        best = torch.inf
        self.results(function, self.inputs)
        for _ in range(3):
            self.wait()
            started = time.perf_counter()
            for _ in range(5):
                self.results(function, self.inputs)
            self.wait()
            best = min(best, time.perf_counter() - started)
        return best

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def without_first(biases: Tensor) -> Tensor:
    """Learned biases with 0 for bucket 0, which is none. Args: biases: (buckets, H)."""
    return torch.cat([biases.new_zeros(1, biases.size(1)), biases[1:]])
