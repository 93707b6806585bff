"""What all criterions share: their options, how they are built, what they score, and what they
report over processes and batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Optional

from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from ofa.data.collate import IMAGE_ROWS
from ofa.io.flags import option
from ofa.models.generation.options import parse_range
from ofa.models.inference_weights import network_inputs, unwrapped

# a task logs it whose nll_loss is not that of a token (a sum of means, weighted rows)
TOKEN_NLL = "_token_nll"


@dataclass
class CriterionConfig(FairseqDataclass):
    ignore_prefix_size: int = option(0, "number of first target tokens without loss")
    sentence_avg: bool = II("optimization.sentence_avg")
    constraint_range: Optional[str] = option(
        None, "START,END: predictions have only these token ids (without END) and 0 to 3"
    )


class OFACriterion(FairseqCriterion):
    """A criterion whose constructor takes the fields of its configuration by name.

    Attributes:
        config: the dataclass of its options; ``cfg``: what they are in this run.
        averages: logged figure -> (count it is divided by, count that weighs it over time).
        optional: figures and counts that are reported only by runs that have them.
        counts: logged as they are.
    """

    config: type[CriterionConfig]
    averages = {"loss": ("sample_size", "sample_size")}
    optional: tuple[str, ...] = ()
    counts: tuple[str, ...] = ("ntokens", "nsentences", "sample_size")

    def __init__(self, task, **options) -> None:
        super().__init__(task)
        self.cfg: Any = self.config(**options)
        self.span = parse_range(self.cfg.constraint_range, "--constraint-range")

    @classmethod
    def build_criterion(cls, cfg, task):
        names = {field.name for field in fields(cls.config)} - {"_name"}
        return cls(task, **{name: getattr(cfg, name) for name in names})

    def prepare(self, sample: Any, training: bool) -> Any:
        """Called by the trainer with a batch that is still on the CPU. Returns: the batch, and in
        it what would be asked of the GPU otherwise, with a wait until it has caught up."""
        return sample

    def scored_positions(self, target: Tensor, ignored: Optional[int] = None) -> Tensor:
        """int64[N]: positions of ``target.view(-1)`` that have a loss. Args: target: int64[...,
        T]; ignored: a token that has none."""
        scored = target != self.padding_idx
        scored[..., : self.cfg.ignore_prefix_size] = False
        if ignored is not None:
            scored &= target != ignored
        return scored.view(-1).nonzero()[:, 0]

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """Log averages over all processes and accumulated batches."""

        def total(key):
            return utils.item(sum(log.get(key, 0) for log in logging_outputs))

        def reported(key):
            return key not in cls.optional or any(key in log for log in logging_outputs)

        for name, (divisor, weight) in cls.averages.items():
            if reported(name):
                value = total(name) / max(total(divisor), 1)
                metrics.log_scalar(name, value, total(weight), round=3)
        for name in filter(reported, cls.counts):
            metrics.log_scalar(name, total(name), 1, round=3)
        if "nll_loss" in cls.averages:
            metrics.log_derived("ppl", perplexity)
        if total("total") > 0:
            metrics.log_scalar("total", total("total"))
            metrics.log_scalar("n_correct", total("n_correct"))
            metrics.log_derived("accuracy", share_of_correct_tokens)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def model_inputs(model, sample: dict) -> dict:
    """``network_inputs``, for a model with ``shares_images`` with the images' rows."""
    inputs, rows = network_inputs(model, sample), sample.get(IMAGE_ROWS)
    if rows is None or not getattr(unwrapped(model), "shares_images", False):
        return inputs
    return {**inputs, IMAGE_ROWS: rows}


def scored_logits(model, net_input: dict, positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits of the positions that have a loss, without a copy where the model can choose.

    Args:
        model: returns (logits float[B, T, V], extra), with ``chooses_outputs`` those asked for.
        positions: int64[N], among all B * T.

    Returns: logits float[M, V], and the rows int64[N] of them that were asked for; None: all.
    """
    if getattr(unwrapped(model), "chooses_outputs", False):
        return model(**net_input, output_positions=positions)[0], None
    logits = model(**net_input)[0]
    return logits.reshape(-1, logits.size(-1)), positions


def scored_logits_of_all(
    model, asked: Sequence[tuple[dict, Tensor]]
) -> list[tuple[Tensor, Tensor | None]]:
    """``scored_logits`` of several batches that share one backward pass.

    torch's DistributedDataParallel expects one forward pass before it: what the last one does not
    use (batches of image codes have no target positions) counts as finished.
    Args: asked: (net_input, positions) of each batch.
    """
    if not getattr(unwrapped(model), "takes_batches", False):
        return [scored_logits(model, *one) for one in asked]
    inputs = [{**net_input, "output_positions": positions} for net_input, positions in asked]
    return [(logits, None) for logits, _ in model(batches=inputs)]


def perplexity(meters) -> float:
    """Of a token, where a task logs what that is."""
    if TOKEN_NLL in meters:
        return utils.get_perplexity(meters[TOKEN_NLL].avg, base=math.e)
    # as upstream: losses are natural logarithms, and yet the base is 2 (tests/parity)
    return utils.get_perplexity(meters["nll_loss"].avg)


def share_of_correct_tokens(meters) -> float:
    """Per cent."""
    return round(meters["n_correct"].sum * 100.0 / meters["total"].sum, 3)
