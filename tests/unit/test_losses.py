"""The pure loss functions against plain formulas, and their memory-saving application by rows."""

import pytest
import torch

from ofa.criterions import losses

torch.manual_seed(0)
LOGITS = torch.randn(9, 31, dtype=torch.float64)
TARGET = torch.randint(4, 31, (9,))


def test_label_smoothing_equals_torch_when_all_tokens_are_allowed():
    """torch shares epsilon among all V tokens, upstream among the V - 1 others."""
    loss, nll = losses.label_smoothed(LOGITS.log_softmax(-1), TARGET, 0.1)
    expected = torch.nn.functional.cross_entropy(
        LOGITS, TARGET, reduction="none", label_smoothing=0.1 * 31 / 30
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        nll, torch.nn.functional.cross_entropy(LOGITS, TARGET, reduction="none")
    )


def test_masks_and_range_restrict_together():
    masks = torch.rand(3, 3, 31) < 0.5
    allowed = losses.allowed_tokens((9, 31), masks, (10, 20), "cpu")
    inside = torch.tensor([i < 4 or 10 <= i < 20 for i in range(31)])
    assert torch.equal(allowed, masks.view(9, 31) & inside)
    assert torch.equal(losses.allowed_tokens((9, 31), None, (10, 20), "cpu"), inside.expand(9, 31))
    assert losses.allowed_tokens((9, 31), None, None, "cpu") is None


def test_the_bonus_goes_on_as_a_straight_line_above_log_end():
    probs = torch.tensor([0.8, 0.9, 0.95], dtype=torch.float64)
    lprobs = torch.stack([probs, 1 - probs], -1).log()
    bonus = losses.encouragement(lprobs, torch.zeros(3, dtype=torch.long), 0.0, log_end=0.75)
    assert (bonus[1] - bonus[0]) / 0.1 == pytest.approx((bonus[2] - bonus[1]).item() / 0.05)
    at_the_end = losses.encouragement(
        torch.tensor([[0.75, 0.25]]).log(), torch.tensor([0]), 0.0, log_end=0.75
    )
    assert at_the_end.item() == pytest.approx(torch.tensor(0.25).log().item())


def test_divergence_is_zero_for_equal_and_finite_for_restricted_predictions():
    allowed = torch.rand(31) < 0.5
    p = losses.log_probabilities(LOGITS[:8].view(4, 2, 31), allowed.expand(4, 2, 31))
    divergence = losses.symmetric_divergence(p)
    expected = [
        (
            torch.nn.functional.kl_div(a[allowed], b[allowed], log_target=True, reduction="sum")
            + torch.nn.functional.kl_div(b[allowed], a[allowed], log_target=True, reduction="sum")
        )
        / 2
        for a, b in p
    ]
    torch.testing.assert_close(divergence, torch.stack(expected))
    assert losses.symmetric_divergence(p[:, :1].expand(4, 2, 31)).abs().max() == 0


def test_the_most_probable_token_is_the_one_argmax_finds_among_equals_too():
    lprobs = torch.tensor(
        [
            [0.0, -1.0, -2.0],
            [-1.0, 0.0, 0.0],
            [-1.0, 0.0, 0.0],
            [-9.0, -9.0, -9.0],
            [-2.0, 0.0, -1.0],
        ]
    )
    target = torch.tensor([0, 1, 2, 2, 0])
    assert losses.most_probable(lprobs, target).tolist() == [True, True, False, False, False]
    found = [losses.most_probable(LOGITS, torch.full((9,), token)) for token in range(31)]
    assert (
        torch.equal(torch.stack(found).int().argmax(0), LOGITS.argmax(-1))
        and torch.stack(found).sum() == 9
    )
    assert losses.most_probable(LOGITS[:0], TARGET[:0]).shape == (0,)


@pytest.mark.parametrize("ratio, kept", [(0.0, 9), (0.2, 7), (0.5, 4), (0.99, 0)])
def test_the_worst_share_is_dropped(ratio, kept):
    loss = torch.rand(9)
    rows = losses.keep_tokens(loss, ratio)
    assert len(rows) == kept
    assert torch.equal(loss[rows].sort().values, loss.sort().values[:kept])


def test_both_passes_drop_the_same_tokens():
    loss = torch.tensor([3.0, 1.0, 2.0, 1.0, 9.0, 9.0])
    assert losses.keep_tokens(loss, 0.34, paired=True).tolist() == [1, 4]


@pytest.mark.parametrize("chunk_elements", [31, 70, 2**21])
def test_by_rows_equals_the_function_on_all_rows(monkeypatch, chunk_elements):
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", chunk_elements)
    rows = torch.tensor([7, 2, 0, 5, 4])
    weights = torch.rand(9, 2, dtype=torch.float64)

    def function(logits, at, target=TARGET):
        return torch.stack(losses.label_smoothed(logits.log_softmax(-1), target[at], 0.1), -1)

    def of_rows(logits, at):
        return function(logits, at, TARGET[rows])

    def grad(apply):
        logits = LOGITS.clone().requires_grad_()
        values = apply(logits)
        (values * weights[: len(values)]).sum().backward()
        return values.detach(), logits.grad

    for found, expected in zip(
        grad(lambda x: losses.by_rows(of_rows, x, rows)), grad(lambda x: function(x[rows], rows))
    ):
        torch.testing.assert_close(found, expected)
    for found, expected in zip(
        grad(lambda x: losses.by_rows(function, x)), grad(lambda x: function(x, slice(9)))
    ):
        torch.testing.assert_close(found, expected)


def test_by_rows_of_pairs_gives_the_function_both_rows_and_the_number_of_the_pair(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 2 * 31)  # one pair at a time
    pairs = torch.tensor([[7, 2], [0, 5], [4, 8]])
    numbers = torch.arange(3, dtype=torch.float64)[:, None]
    found = losses.by_rows(
        lambda some, at: some[:, 0, :1] - some[:, 1, :1] + numbers[at], LOGITS, pairs
    )
    torch.testing.assert_close(found, LOGITS[pairs[:, 0], :1] - LOGITS[pairs[:, 1], :1] + numbers)


def test_by_rows_of_no_rows_is_empty_and_has_a_zero_gradient():
    logits = LOGITS.clone().requires_grad_()
    losses.by_rows(
        lambda some, at: some[:, :2], logits, torch.zeros(0, dtype=torch.long)
    ).sum().backward()
    assert logits.grad.abs().max() == 0
    assert losses.by_rows(lambda some, at: some[:, :2], LOGITS[:0]).shape == (0, 2)


def test_half_precision_logits_are_widened_and_get_a_half_precision_gradient():
    logits = LOGITS.bfloat16().requires_grad_()
    lprobs = losses.log_probabilities(logits)
    assert lprobs.dtype == torch.float32
    values = losses.by_rows(
        lambda some, at: losses.log_probabilities(some)[:, :1], logits, torch.arange(9)
    )
    values.sum().backward()
    assert logits.grad.dtype == torch.bfloat16
