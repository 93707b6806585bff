"""The CPU training kernel against attention written out."""

import pytest
import torch

from ofa.models.attention import BiasedAttention, attend

B, H, T, S, D = 3, 2, 5, 7, 4


def written_out(query, keys, values, bias, padding_mask, scale):
    scores = query @ keys.mT * scale + bias
    if padding_mask is not None:
        scores = scores.masked_fill(padding_mask[:, None, None, :], float("-inf"))
    return scores.softmax(-1) @ values


def tensors(bias_shape, dtype=torch.float32):
    torch.manual_seed(0)
    made = [
        torch.randn(shape, dtype=dtype, requires_grad=True)
        for shape in ((B, H, T, D), (B, H, S, D), (B, H, S, D), bias_shape)
    ]
    padding_mask = torch.zeros(B, S, dtype=torch.bool)
    padding_mask[1, 4:] = True
    return made, padding_mask


@pytest.mark.parametrize("bias_shape", [(1, H, T, S), (B, H, T, S), (B, 1, T, S)])
@pytest.mark.parametrize("padded", [True, False])
def test_values_and_gradients_are_those_of_attention_written_out(bias_shape, padded):
    inputs, padding_mask = tensors(bias_shape)
    padding_mask = padding_mask if padded else None
    found = attend(*inputs, padding_mask, 0.3)
    assert "BiasedAttention" in found.grad_fn.name()
    direction = torch.randn_like(found)
    gradients = torch.autograd.grad(found, inputs, direction)
    expected = written_out(*inputs, padding_mask, 0.3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    for got, wanted in zip(gradients, torch.autograd.grad(expected, inputs, direction)):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_a_sample_of_padding_alone_stays_finite():
    inputs, padding_mask = tensors((1, H, T, S))
    padding_mask[2] = True
    found = BiasedAttention.apply(*inputs, padding_mask, 0.3)
    found.sum().backward()
    assert found.isfinite().all() and all(x.grad.isfinite().all() for x in inputs)


def test_dropout_and_other_types_take_torchs_own_path():
    inputs, padding_mask = tensors((1, H, T, S))
    assert "BiasedAttention" not in attend(*inputs, padding_mask, 0.3, dropout=0.5).grad_fn.name()
    inputs, _ = tensors((1, H, T, S), torch.float64)
    torch.testing.assert_close(
        attend(*inputs, padding_mask, 0.3), written_out(*inputs, padding_mask, 0.3)
    )
