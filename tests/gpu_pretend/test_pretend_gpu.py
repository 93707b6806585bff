"""The pretend GPU itself: it computes as the CPU does, and counts what one would wait for."""

import pytest
import torch
from pretend_gpu import GPU, PretendGPU, host
from pretend_graph import PretendGraph, pretend_graphs


@pytest.fixture
def gpu():
    with PretendGPU() as gpu:
        yield gpu


def test_tensors_say_that_they_are_on_the_gpu_and_hold_the_same_numbers(gpu):
    x = gpu.move(torch.arange(4.0))
    y = x.exp() + torch.ones(4, device="cuda")
    assert x.device == y.device == GPU and y.is_cuda
    assert torch.equal(host(y), torch.arange(4.0).exp() + 1)
    assert not gpu.waits and not gpu.mixed


def test_gradients_are_those_of_the_cpu(gpu):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    layer(x).logsumexp(-1).sum().backward()
    expected = layer.weight.grad
    layer.zero_grad()
    gpu.move(layer)(gpu.move(x)).logsumexp(-1).sum().backward()
    assert layer.weight.device == layer.weight.grad.device == GPU
    assert torch.equal(host(layer.weight.grad), expected)


@pytest.mark.parametrize(
    ("kind", "look"),
    [
        ("item", lambda x: x[0].item()),
        ("item", lambda x: bool((x > 1).any())),
        ("item", lambda x: int(x[1])),
        ("tolist", lambda x: x.tolist()),
        ("nonzero", lambda x: x.nonzero()),
        ("unique", lambda x: x.unique(return_inverse=True)),
        ("equal", lambda x: torch.equal(x, x + 1)),
        ("index by bool", lambda x: x[x > 1]),
        ("index from the CPU", lambda x: x[torch.tensor([0, 1])]),
        ("copy to the CPU", lambda x: x.cpu()),
        ("copy to the CPU", lambda x: x.to("cpu")),
        ("copy to the CPU", lambda x: torch.zeros(3).copy_(x)),
        ("copy to the GPU", lambda x: torch.ones(3).to("cuda")),
        ("copy to the GPU", lambda x: torch.tensor([1.0, 2.0], device="cuda")),
        ("copy to the GPU", lambda x: x.copy_(torch.ones(3))),
        ("repeat_interleave without output_size", lambda x: x.repeat_interleave(x.long())),
    ],
)
def test_what_the_host_waits_for_is_counted_once(gpu, kind, look):
    look(gpu.move(torch.tensor([1.0, 2.0, 3.0])))
    assert gpu.waits == {f"{kind} elsewhere": 1}


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum() * 2 + 1,
        lambda x: x.masked_fill(x > 1, 0).softmax(-1),
        lambda x: x[1:] @ x[:-1],
        lambda x: x.gather(0, torch.zeros(3, dtype=torch.long, device="cuda")),
        lambda x: x.repeat_interleave(2),
        lambda x: x.half().to("cuda"),
        lambda x: torch.ones(3).to("cuda", non_blocking=True) + x,
    ],
)
def test_nothing_is_waited_for_where_the_gpu_works_alone(gpu, work):
    assert work(gpu.move(torch.tensor([1.0, 2.0, 3.0]))).device == GPU
    assert not gpu.waits and not gpu.mixed


def test_a_wait_is_told_with_its_line_in_the_project(gpu):
    from ofa.criterions.losses import keep_tokens

    loss = gpu.move(torch.rand(4))
    keep_tokens(loss, 0.5)
    assert not gpu.waits
    from ofa.models.positions import bucket_bias

    bucket_bias(gpu.move(torch.rand(3, 2)), torch.zeros(1, 2, 2, dtype=torch.long))
    assert [where.split(":")[0] for where in gpu.mixed] == [
        "embedding (1, 2, 2) models/positions.py"
    ]


def test_an_operator_on_tensors_of_both_devices_is_counted(gpu):
    gpu.move(torch.ones(3)) + torch.ones(3)
    assert gpu.mixed == {"add (3,) elsewhere": 1}
    gpu.reset()
    gpu.move(torch.ones(3)) + torch.tensor(1.0)  # torch takes a scalar of the CPU as a number
    assert not gpu.mixed


def test_operators_are_counted_without_views(gpu):
    x = gpu.move(torch.ones(2, 3))
    gpu.reset()
    (x.t().reshape(6)[2:] + 1).relu()
    assert gpu.operators == {"clone": 1, "add": 1, "relu": 1}


def test_numpy_does_not_see_the_gpu(gpu):
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        gpu.move(torch.ones(2)).numpy()


def test_outside_nothing_is_counted():
    gpu = PretendGPU()
    with gpu:
        x = gpu.move(torch.ones(2))
    assert x[0].item() == 1 and not gpu.waits


def test_a_graph_repeats_operators_on_the_memory_that_it_was_recorded_with(gpu, monkeypatch):
    pretend_graphs(monkeypatch)
    x, graph, number = gpu.move(torch.zeros(3)), PretendGraph(), 1
    graph.capture_begin()
    y = x[1:] + number
    x.mul_(2)
    graph.capture_end()
    assert host(x).tolist() == [0, 0, 0]
    x.copy_(gpu.move(torch.tensor([1.0, 2.0, 3.0])))
    gpu.reset()
    for expected in ([3, 4], [5, 7]):
        graph.replay()
        assert host(y).tolist() == expected
    assert gpu.operators == {"graph": 2}


def test_waiting_while_a_graph_is_recorded_is_an_error(gpu, monkeypatch):
    pretend_graphs(monkeypatch)
    graph, x = PretendGraph(), gpu.move(torch.ones(2))
    graph.capture_begin()
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        bool((x > 0).any())
    graph.capture_end()
