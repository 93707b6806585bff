"""The kernels of attention compared with attention written out."""

import pytest
import torch

from ofa.errors import UserError
from ofa.models import attention
from ofa.models.attention import (
    add_padding_columns,
    attend,
    masked_attention,
    remade_weights_attention,
    shared_bias_attention,
)

KERNELS = masked_attention, shared_bias_attention, remade_weights_attention
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


@pytest.fixture(autouse=True)
def small_masks_are_large(monkeypatch):
    monkeypatch.setattr(attention, "LARGE_MASK", 0)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@pytest.mark.parametrize("bias_shape", [(1, H, T, S), (B, H, T, S), (B, 1, T, S)])
@pytest.mark.parametrize("padded", [True, False])
def test_values_and_gradients_are_those_of_attention_written_out(kernel, bias_shape, padded):
    inputs, padding_mask = tensors(bias_shape)
    padding_mask = padding_mask if padded else None
    found = attend(*inputs, padding_mask, 0.3, kernel=kernel)
    direction = torch.randn_like(found)
    gradients = torch.autograd.grad(found, inputs, direction)
    expected = written_out(*inputs, padding_mask, 0.3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    for got, wanted in zip(gradients, torch.autograd.grad(expected, inputs, direction)):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_training_on_a_cpu_remakes_the_weights():
    inputs, padding_mask = tensors((1, H, T, S))
    assert "BiasedAttention" in attend(*inputs, padding_mask, 0.3).grad_fn.name()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_a_sample_of_padding_alone_stays_finite(kernel):
    inputs, padding_mask = tensors((1, H, T, S))
    padding_mask[2] = True
    found = attend(*inputs, padding_mask, 0.3, kernel=kernel)
    found.sum().backward()
    assert found.isfinite().all() and all(x.grad.isfinite().all() for x in inputs)


def test_dropout_and_other_types_take_torchs_own_path():
    inputs, padding_mask = tensors((1, H, T, S))
    assert "BiasedAttention" not in attend(*inputs, padding_mask, 0.3, dropout=0.5).grad_fn.name()
    inputs, _ = tensors((1, H, T, S), torch.float64)
    torch.testing.assert_close(
        attend(*inputs, padding_mask, 0.3), written_out(*inputs, padding_mask, 0.3)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_padding_columns_forbid_keys_in_16_bits_and_change_no_other_score(dtype):
    inputs, padding_mask = tensors((1, H, T, S), dtype)
    query, keys = add_padding_columns(*inputs[:2], padding_mask, 128**-0.5)
    assert query.isfinite().all() and keys.isfinite().all()
    scores = query.double() @ keys.double().mT
    expected = inputs[0].double() @ inputs[1].double().mT
    hidden = padding_mask[:, None, None, :].expand_as(scores)
    assert torch.equal(scores[~hidden], expected[~hidden])
    assert ((scores - expected)[hidden] * 128**-0.5 < -9900).all()


def test_a_shared_bias_is_not_repeated_for_padding(monkeypatch):
    masks = []
    monkeypatch.setattr(
        attention.F,
        "scaled_dot_product_attention",
        lambda query, *rest, attn_mask, **options: masks.append(attn_mask.shape),
    )
    inputs, padding_mask = tensors((1, H, T, S))
    shared_bias_attention(*inputs, padding_mask, 0.3, 0.0)
    assert masks == [(1, H, T, S)]


@pytest.mark.parametrize("kernel", [masked_attention, shared_bias_attention])
def test_a_bias_has_the_type_of_the_query(kernel, monkeypatch):
    types = []
    monkeypatch.setattr(
        attention.F,
        "scaled_dot_product_attention",
        lambda *inputs, attn_mask, **options: types.append(attn_mask.dtype),
    )
    inputs, padding_mask = tensors((1, H, T, S))
    query, keys, values = (x.bfloat16() for x in inputs[:3])
    kernel(query, keys, values, inputs[3], padding_mask, 0.3, 0.0)
    assert types == [torch.bfloat16]


def test_cudnn_kernels_are_off_where_the_network_is_imported():
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_an_unknown_choice_names_the_known_ones(monkeypatch):
    monkeypatch.setenv("OFA_ATTENTION", "flash")
    with pytest.raises(UserError, match="'flash'; known: auto.*flex.*shared.*masked.*cudnn"):
        attention.read_choice()
