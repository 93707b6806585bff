"""The one-pass Adam makes fairseq's updates."""

import pytest
import torch

pytest.importorskip("fairseq")
from fairseq.optim.adam import Adam  # noqa: E402

from ofa.trainer.fairseq_optim import OnePassAdam, is_plain  # noqa: E402

SHAPES = ((5, 7), (3,), (2, 4, 4))


def train(kind, updates: int, **options):
    """Parameters and optimizer after some updates with gradients of very different sizes; the
    last one comes late."""
    generator = torch.Generator().manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    optimizer = kind(params, lr=1e-2, betas=(0.9, 0.98), **options)
    for update in range(updates):
        for number, param in enumerate(params):
            grad = torch.randn(param.shape, generator=generator) * 10.0 ** -(3 * number + 2)
            param.grad = None if number == 2 and update < 2 else grad
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


def test_amsgrad_and_16_bit_gradients_take_the_way_of_fairseq():
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    param.grad = torch.ones_like(param)
    assert not is_plain({"params": [param], "amsgrad": False})
    (ours, _), (stock, _) = (train(OnePassAdam, 5, amsgrad=True), train(Adam, 5, amsgrad=True))
    assert all(map(torch.equal, ours, stock))
