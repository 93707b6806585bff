"""The share of a device's peak that a training takes."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from ofa.trainer.mfu import Utilization, peak_flops


@pytest.mark.parametrize(
    "name, half, tflops",
    [
        ("NVIDIA H100 80GB HBM3", True, 989),
        ("NVIDIA H100 PCIe", True, 756),
        ("NVIDIA H200", False, 67),
        ("NVIDIA A100-SXM4-80GB", True, 312),
        ("Tesla V100-SXM2-16GB", False, 15.7),
        ("NVIDIA A10", True, 125),
        ("NVIDIA RTX 6000 Ada Generation", True, 364.2),
        ("AMD Instinct MI300X", True, 1307.4),
    ],
)
def test_peaks_are_found_by_the_name_of_the_device(name, half, tflops):
    assert peak_flops(name, half) == tflops * 1e12


def test_an_unknown_device_has_no_peak():
    assert peak_flops("NVIDIA GeForce GTX 1080", True) is None
    utilization = Utilization(None)
    with utilization.counted(4):
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert utilization.peak_seconds(4) == 0.0


def test_operations_of_forward_and_backward_are_counted_once_and_scaled_by_rows():
    """A product of 4x8 and 8x16 is 2*4*8*16 operations; the gradient of either factor as many."""
    utilization, weight = Utilization(1e6), torch.ones(8, 16, requires_grad=True)
    rows = torch.ones(4, 8, requires_grad=True)
    for _ in range(2):
        with utilization.counted(4):
            (rows @ weight).sum().backward()
    assert utilization.flops_per_row == 3 * 2 * 8 * 16
    assert utilization.peak_seconds(10) == 10 * 768 / 1e6


def test_what_runs_under_the_counter_first_is_compiled_afterwards():
    torch._dynamo.reset()
    programs = CompileCounter()
    double = torch.compile(lambda rows: rows * 2, backend=programs)
    with Utilization(1e12).counted(4):
        double(torch.ones(4))
    assert programs.frame_count == 0
    double(torch.ones(4))
    assert programs.frame_count == 1
