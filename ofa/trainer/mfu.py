"""Model FLOPs utilization (MFU): which share of a device's peak the arithmetic of a training takes.

Source: PaLM, appendix B (https://arxiv.org/abs/2204.02311). Operations are counted in one update
and taken for proportional to rows afterwards. Recomputed ones count as well: with
``--checkpoint-activations`` the share is what that paper calls hardware FLOPs utilization (HFU),
about a third above the MFU of the same training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # plans are made without it

# Part of a device's name -> TFLOPS of dense matrices in 16 bits, accumulated in fp32, and in fp32
# without TF32, which torch does not use by default. From the makers' data sheets.
PEAKS = {
    "B200": (2250.0, 75.0),
    "GB200": (2500.0, 80.0),
    "H100 PCIe": (756.0, 51.0),
    "H100 NVL": (835.0, 60.0),
    "H100": (989.0, 67.0),
    "H200": (989.0, 67.0),
    "GH200": (989.0, 67.0),
    "H20": (148.0, 44.0),
    "H800": (989.0, 67.0),
    "A100": (312.0, 19.5),
    "A800": (312.0, 19.5),
    "A40": (149.7, 37.4),
    "A30": (165.0, 10.3),
    "A10G": (70.0, 35.0),
    "A10": (125.0, 31.2),
    "L40S": (362.0, 91.6),
    "L40": (181.0, 90.5),
    "L4": (121.0, 30.3),
    "V100": (125.0, 15.7),
    "T4": (65.0, 8.1),
    "RTX A6000": (154.8, 38.7),
    "RTX 6000 Ada": (364.2, 91.1),
    "RTX 3090": (71.0, 35.6),
    "RTX 4090": (165.2, 82.6),
    "RTX 5090": (209.5, 104.8),
    "MI250X": (383.0, 47.9),
    "MI300X": (1307.4, 163.4),
}


def peak_flops(device: str, half: bool) -> float | None:
    """Operations per second; None for a device that the table has not.

    Args: device: its name, such as "NVIDIA H100 80GB HBM3". half: computes in 16 bits.
    """
    words = device.replace("-", " ").split()
    found = [name for name in PEAKS if _has(words, name.split())]
    return PEAKS[max(found, key=len)][0 if half else 1] * 1e12 if found else None


def _has(words: list[str], part: list[str]) -> bool:
    length = len(part)
    return any(words[at : at + length] == part for at in range(len(words) - length + 1))


class Utilization:
    """Args: peak: operations per second of the device; None: unknown, nothing is counted."""

    def __init__(self, peak: float | None):
        self.peak, self.flops_per_row = peak, 0.0

    @contextmanager
    def counted(self, rows: int) -> Iterator[None]:
        """Count the operations of the update that is made inside, unless that is done."""
        if self.peak is None or self.flops_per_row or not rows:
            yield
            return
        import torch
        from torch.utils.flop_counter import FlopCounterMode  # seconds, which few devices need

        # what --compile meets first under a counter would never be compiled
        eager = torch.compiler.set_stance("force_eager")
        with eager, FlopCounterMode(display=False) as counter:
            yield
        self.flops_per_row = counter.get_total_flops() / rows

    def peak_seconds(self, rows: int) -> float:
        """How long an update of ``rows`` takes at the device's peak; 0.0: unknown."""
        return self.flops_per_row * rows / self.peak if self.peak else 0.0


def peak_of(device: "torch.device", half: bool) -> float | None:
    import torch

    if device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(device), half)
