"""A model that makes only the logits with a loss learns the same as one that makes all."""

from argparse import Namespace

import pytest
import torch

pytest.importorskip("fairseq")
import fairseq.benchmark.dummy_lm  # noqa: E402, F401

from ofa.criterions.fairseq_criterion import scored_logits  # noqa: E402
from ofa.criterions.fairseq_label_smoothed import (
    AdjustLabelSmoothedCrossEntropyCriterion,
    AdjustLabelSmoothedEncouragingLossCriterion,
)  # noqa: E402

B, T, V, PAD, EOS = 4, 6, 23, 1, 2
TASK = Namespace(target_dictionary=Namespace(pad=lambda: PAD, eos=lambda: EOS))
OPTIONS = {
    "plain": dict(label_smoothing=0.1),
    "no prefix, no end": dict(label_smoothing=0.1, ignore_prefix_size=1, ignore_eos=True),
    "restricted": dict(label_smoothing=0.1, constraint_range="4,20"),
    "the worst dropped": dict(label_smoothing=0.1, drop_worst_ratio=0.3),
    "R-Drop": dict(
        label_smoothing=0.1, use_rdrop=True, constraint_range="4,20", drop_worst_ratio=0.3
    ),
}


class AllLogits(torch.nn.Module):
    """A row of logits for every position of a batch, or of a batch that stands there twice."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(2 * B, T, V, generator=generator))
        self.made = []

    def forward(self, src_tokens):
        return self.keep(self.table[: len(src_tokens)])

    def keep(self, logits):
        self.made.append(logits.shape[:-1].numel())
        return logits, {}


class ChosenLogits(AllLogits):
    chooses_outputs = True

    def forward(self, src_tokens, output_positions):
        return self.keep(self.table[: len(src_tokens)].flatten(0, 1)[output_positions])


def batch() -> dict:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(4, 20, (B, T), generator=generator)
    lengths = torch.tensor([6, 4, 5, 2])
    target[torch.arange(B), lengths - 1] = EOS
    target[torch.arange(T) >= lengths[:, None]] = PAD
    masks = torch.rand(B, T, V, generator=generator) < 0.7
    masks.scatter_(2, target[..., None], True)
    conf = 0.5 + torch.rand(B, generator=generator)
    inputs = {"src_tokens": torch.zeros(B, 3, dtype=torch.long)}
    return {
        "id": list(range(B)),
        "net_input": inputs,
        "target": target,
        "ntokens": int(lengths.sum()),
        "nsentences": B,
        "conf": conf,
        "constraint_masks": masks,
    }


@pytest.mark.parametrize(
    "criterion",
    [AdjustLabelSmoothedCrossEntropyCriterion, AdjustLabelSmoothedEncouragingLossCriterion],
)
@pytest.mark.parametrize("name", OPTIONS)
def test_loss_log_and_gradient_are_the_same(criterion, name):
    found = []
    for model in (ChosenLogits(), AllLogits()):
        loss, sample_size, log = criterion(
            TASK, sentence_avg=False, report_accuracy=True, **OPTIONS[name]
        )(model, batch(), update_num=1)
        loss.backward()
        found.append(
            (loss, sample_size, {key: float(value) for key, value in log.items()}, model.table.grad)
        )
    (loss, size, log, grad), (expected_loss, expected_size, expected_log, expected_grad) = found
    torch.testing.assert_close(loss, expected_loss)
    assert size == expected_size > 0 and log == pytest.approx(expected_log)
    torch.testing.assert_close(grad, expected_grad)
    assert grad.abs().sum() > 0


def test_no_logits_of_padding_and_prefix_are_made():
    model, sample = ChosenLogits(), batch()
    AdjustLabelSmoothedCrossEntropyCriterion(
        TASK, sentence_avg=False, label_smoothing=0.1, ignore_prefix_size=1
    )(model, sample)
    assert model.made == [sample["ntokens"] - B]


def test_a_wrapped_model_is_asked_as_well():
    """Training on several processes wraps the model; what it can do is said by the one inside."""

    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, **inputs):
            return self.module(**inputs)

    logits, rows = scored_logits(
        Wrapper(ChosenLogits()), batch()["net_input"], torch.tensor([3, 0])
    )
    assert logits.shape == (2, V) and rows is None
