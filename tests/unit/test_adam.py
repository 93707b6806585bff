"""Adam, norms and 16-bit copies of all tensors at once are what fairseq makes of each."""

from types import SimpleNamespace

import pytest
import torch
from fairseq import optim
from fairseq.optim.adam import Adam
from fairseq.utils import clip_grad_norm_
from fairseq_setup import configuration

from ofa.trainer import float32_copies
from ofa.trainer.fairseq_adam import FP16Optimizer, OnePassAdam, is_plain, norm_of_grads

SEPARATE = "--fp16-no-flatten-grads"
SHAPES = ((5, 7), (3,), (2, 4, 4))


def train(kind, updates: int, dtype: torch.dtype = torch.float32, **options):
    """Parameters and optimizer after some updates with gradients of very different sizes; the
    last one comes late."""
    generator = torch.Generator().manual_seed(1)
    params = [
        torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES
    ]
    optimizer = kind(params, lr=1e-2, betas=(0.9, 0.98), **options)
    for update in range(updates):
        for number, param in enumerate(params):
            grad = torch.randn(param.shape, generator=generator) * 10.0 ** -(3 * number + 2)
            param.grad = None if number == 2 and update < 2 else grad.to(dtype)
        optimizer.step()
    return params, optimizer


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"eps": 1e-3}], ids=str)
@pytest.mark.parametrize("updates", [1, 20])
def test_the_updates_are_those_of_fairseq(options, updates):
    (ours, optimizer), (stock, expected) = (
        train(OnePassAdam, updates, **options),
        train(Adam, updates, **options),
    )
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-6)
    for state, wanted in zip(
        optimizer.state_dict()["state"].values(),
        expected.state_dict()["state"].values(),
        strict=True,
    ):
        assert state.keys() == wanted.keys() and state["step"] == wanted["step"]
        torch.testing.assert_close(state["exp_avg_sq"], wanted["exp_avg_sq"], rtol=1e-5, atol=0)


def test_a_state_of_stock_fairseq_goes_on():
    _, stock = train(Adam, 3)
    params, ours = train(OnePassAdam, 0)
    ours.load_state_dict(stock.state_dict())
    params[1].grad = torch.ones(3)
    ours.step()
    assert ours.state[params[1]]["step"] == 4 and torch.isfinite(params[1]).all()


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}], ids=str)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_weights_are_trained_as_by_fairseq(monkeypatch, kind, options):
    """Moments stay float32; a chunk holds two of the three tensors."""
    monkeypatch.setattr(float32_copies.Float32Copies.__init__, "__defaults__", (40,))
    (ours, optimizer), (stock, expected) = (
        train(one, 20, kind, **options) for one in (OnePassAdam, Adam)
    )
    for own, wanted in zip(ours, stock):
        assert own.dtype == kind
        # at most the rounding of a weight to 16 bits falls to the other side
        torch.testing.assert_close(own, wanted, rtol=torch.finfo(kind).eps, atol=1e-6)
    for state, wanted in zip(optimizer.state.values(), expected.state.values(), strict=True):
        assert state["exp_avg"].dtype == wanted["exp_avg"].dtype == torch.float32
        torch.testing.assert_close(state["exp_avg"], wanted["exp_avg"], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(state["exp_avg_sq"], wanted["exp_avg_sq"], rtol=1e-5, atol=0)


def test_other_parameters_with_a_gradient_get_copies_of_their_own():
    params, optimizer = train(OnePassAdam, 3, torch.bfloat16)
    before = params[0].detach().clone()
    params[0].grad, params[1].grad = None, torch.ones_like(params[1])
    optimizer.step()
    assert torch.equal(params[0], before) and optimizer.state[params[1]]["step"] == 4


def test_amsgrad_takes_the_way_of_fairseq():
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones_like(param)
    assert not is_plain({"params": [param], "amsgrad": True})
    (ours, _), (stock, _) = (train(OnePassAdam, 5, amsgrad=True), train(Adam, 5, amsgrad=True))
    assert all(map(torch.equal, ours, stock))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_the_norm_of_all_gradients_is_that_of_fairseq(kind, count):
    params = [torch.nn.Parameter(torch.randn(shape, dtype=kind)) for shape in SHAPES[:count]]
    norms, grads = [], []
    for norm_of in (lambda of: norm_of_grads(of, 0.5), lambda of: clip_grad_norm_(of.params, 0.5)):
        torch.manual_seed(2)
        for param in params:
            param.grad = torch.randn(param.shape, dtype=kind)
        norms.append(norm_of(SimpleNamespace(params=params)))
        grads.append([param.grad for param in params])
    assert torch.equal(*norms) and norms[0].dtype == torch.float32
    assert all(map(torch.equal, *grads))


def wrapped(kind: type, updates: int, *more: str):
    """A 16-bit model's parameters and their float32 weights after some updates; one never has a
    gradient, one overflows in the second update."""
    generator = torch.Generator().manual_seed(3)
    params = [torch.nn.Parameter(torch.randn(one, generator=generator).half()) for one in SHAPES]
    flags = "--task=caption --arch=ofa_nano --optimizer=adam --lr=0.01 --fp16"
    cfg = configuration(["a.tsv,b.tsv", *flags.split(), *more])
    optimizer = kind.build_optimizer(cfg, params)
    for update in range(updates):
        optimizer.zero_grad()
        loss = sum((param.float() ** 2).sum() for param in params[:2])
        optimizer.backward(loss * (1e6 if update == 1 else 1))
        try:
            optimizer.clip_grad_norm(1.0)
            optimizer.step()
        except OverflowError:
            optimizer.zero_grad()
    return params, optimizer


def test_float32_weights_of_a_16_bit_model_are_those_of_fairseq():
    (ours, optimizer), (stock, expected) = (
        wrapped(kind, 4, SEPARATE) for kind in (FP16Optimizer, optim.FP16Optimizer)
    )
    assert all(map(torch.equal, ours, stock))
    assert all(map(torch.equal, optimizer.fp32_params, expected.fp32_params))
    assert optimizer.scaler.loss_scale == expected.scaler.loss_scale < 128


def test_one_flat_tensor_trains_what_separate_ones_do(monkeypatch):
    """As on a GPU."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    (flat, optimizer), (separate, other) = (
        wrapped(FP16Optimizer, 4),
        wrapped(FP16Optimizer, 4, SEPARATE),
    )
    (whole,) = optimizer.fp32_params.values()
    torch.testing.assert_close(whole, torch.cat([one.flatten() for one in other.fp32_params]))
    torch.testing.assert_close(flat, separate)
