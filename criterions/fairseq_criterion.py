"""What all criterions share: their options, how they are built, and what they report over
processes and batches."""

import math

from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from ofa.data.collate import IMAGE_ROWS
from ofa.errors import UserError
from ofa.models.inference_weights import unwrapped

# a task logs it whose nll_loss is not that of a token (a sum of means, weighted rows)
TOKEN_NLL = "_token_nll"


class OFACriterion(FairseqCriterion):
    """A criterion whose constructor takes the fields of its configuration by name.

    Attributes:
        config: the dataclass of its options; ``cfg``: what they are in this run.
        averages: logged figure -> (count it is divided by, count that weighs it over time).
        optional: figures and counts that are reported only by runs that have them.
        counts: logged as they are.
    """

    config: type[FairseqDataclass]
    averages = {"loss": ("sample_size", "sample_size")}
    optional: tuple[str, ...] = ()
    counts: tuple[str, ...] = ("ntokens", "nsentences", "sample_size")

    def __init__(self, task, **options) -> None:
        super().__init__(task)
        self.cfg = self.config(**options)

    @classmethod
    def build_criterion(cls, cfg, task):
        names = cls.config.__dataclass_fields__.keys() - {"_name"}
        return cls(task, **{name: getattr(cfg, name) for name in names})

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
    """``net_input`` of a batch, and for a model with ``shares_images`` which samples have the
    same images."""
    rows = sample.get(IMAGE_ROWS)
    if rows is None or not getattr(unwrapped(model), "shares_images", False):
        return sample["net_input"]
    return {**sample["net_input"], IMAGE_ROWS: rows}


def scored_logits(model, net_input: dict, positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits of the positions that have a loss, in their order, without a copy where the model can
    choose.

    Args:
        model: returns (logits float[B, T, V], extra) or, with ``chooses_outputs``, only the logits
            asked for.
        positions: int64[N], among all B * T.

    Returns: logits float[M, V], and the rows int64[N] of them that were asked for; None means all,
    in order.
    """
    if getattr(unwrapped(model), "chooses_outputs", False):
        return model(**net_input, output_positions=positions)[0], None
    logits = model(**net_input)[0]
    return logits.reshape(-1, logits.size(-1)), positions


def perplexity(meters) -> float:
    """Of a token, where a task logs what that is."""
    if TOKEN_NLL in meters:
        return utils.get_perplexity(meters[TOKEN_NLL].avg, base=math.e)
    # as upstream: losses are natural logarithms, and yet the base is 2 (recorded figures of
    # tests/parity).
    return utils.get_perplexity(meters["nll_loss"].avg)


def share_of_correct_tokens(meters) -> float:
    """Per cent."""
    return round(meters["n_correct"].sum * 100.0 / meters["total"].sum, 3)


def check_share(flag: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UserError(f"{flag} is a share in [0, 1), found {value}")
