"""Pretraining on 1 to 1024 GPUs, worked out: how long an update takes, what the network, the disks
and failures cost, and how long a run takes. docs/scale.md holds the tables that this prints.

What a sample costs is in ``SIZES``, as benchmarks/roofline.py counts it by operator on meta
tensors; ``--measure`` prints it again. Everything that is assumed is in ``ASSUMED`` and printed
with its source. ``--write docs/scale.md`` puts the tables into the page again.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import frame
import roofline
import torch

PIXELS = 384  # as upstream pretrains
SOURCE, TARGET = 40, 20  # tokens; a mean over the tasks of pretraining
GPUS = (1, 8, 16, 32, 64, 128, 256, 512, 1024)
EFFECTIVE, RATE = 2048, 2e-4  # image-text samples of an update and its learning rate in the paper
ROWS = 20e6  # samples of an epoch: the image-text pairs of OFA's pretraining
EPOCHS = 50  # as upstream's recipe

# name -> (value, unit, source)
ASSUMED: dict[str, tuple[float, str, str]] = {
    "gpus_of_a_node": (8, "", "DGX H100"),
    "reached": (0.6, "of the roofline's speed", "assumed, to be measured: benchmarks/gpu.sh"),
    "nvlink": (450e9, "bytes/s each way of a GPU", "H100 SXM data sheet: 900 GB/s both ways"),
    "infiniband": (50e9, "bytes/s of a GPU", "DGX H100: one 400 Gb/s port per GPU"),
    "of_bandwidth": (0.8, "of it that NCCL reaches", "assumed; nccl-tests reach 0.7 to 0.95"),
    "nvlink_latency": (3e-6, "s per step of a ring", "assumed"),
    "network_latency": (10e-6, "s per hop between nodes", "assumed"),
    "hidden": (0.9, "of the backward pass that sends may overlap", "DDP's first bucket waits"),
    "launch": (
        13e-6,
        "s of the host per operator",
        "assumed: eager PyTorch; CUDA graphs need less",
    ),
    "straggler": (0.02, "of a step, times log2(nodes) / 10", "assumed: jitter of many nodes"),
    "disk": (2e9, "bytes/s of writing a checkpoint", "assumed: one client, parallel file system"),
    "restart": (300, "s until a stopped run trains again", "assumed: scheduler, start, reading"),
    "node_failures": (0.0038, "per node and day", "Llama 3's paper: 419 in 54 days on 2048 nodes"),
    "row_bytes": (110e3, "bytes of a row", "COCO as JPEG in base64"),
    "core_rows": (190, "rows/s of a core", "5.2 ms of a row at 384 px"),
    "stream": (80e6, "bytes/s of one stream of object storage", "assumed: S3, per connection"),
}


def assumed(name: str) -> float:
    return ASSUMED[name][0]


@dataclass(frozen=True)
class Size:
    """Of a network. Args: parameters: millions. flops: TFLOP of a sample, forward and backward.
    milliseconds: of it at the roofline. kept: MB for the backward pass. operators: of a
    pass. batch: samples of a pass, a power of two that fits 80 GB with weights and optimizer."""

    parameters: float
    flops: float
    milliseconds: float
    kept: float
    operators: int
    batch: int

    @property
    def weights(self) -> float:
        return self.parameters * 1e6

    def step(self, batch: int) -> float:
        """Seconds of a forward and backward pass: of the GPU, or of the host that starts it."""
        computes = batch * self.milliseconds / 1e3 / assumed("reached")
        return max(computes, self.operators * assumed("launch"))

    @property
    def state(self) -> float:
        """Bytes of weights and optimizer in bf16: weights and gradients in 16 bits, master weights
        and two moments in 32."""
        return self.weights * (2 + 2 + 12)

    @property
    def checkpoint(self) -> float:
        """Bytes of a file: 16-bit weights, master weights, two moments."""
        return self.weights * (2 + 12)


# python benchmarks/scale_simulation.py --measure
SIZES = {
    "ofa_base": Size(182.2, 0.3469, 1.795, 347.2, 1988, 64),
    "ofa_large": Size(473.0, 0.9433, 3.947, 681.4, 3501, 32),
    "ofa_huge": Size(929.5, 2.2993, 8.085, 1243.6, 4413, 16),
}


def measured(arch: str) -> Size:
    """By two small batches on meta tensors: what the batch does not change is left out."""
    small, large = (roofline.step_costs(arch, n, PIXELS, SOURCE, TARGET) for n in (2, 4))
    flops = (large.total_flops - small.total_flops) / 2e12
    seconds = (large.total_seconds - small.total_seconds) / 2e-3
    kept = (large.kept - small.kept) / 2e6
    with torch.device("meta"):
        weights = sum(one.numel() for one in frame.random_model(arch).parameters())
    operators = round(sum(large.operators.values()))
    batch = SIZES[arch].batch
    return Size(
        round(weights / 1e6, 1),
        round(flops, 4),
        round(seconds, 3),
        round(kept, 1),
        operators,
        batch,
    )


# --- network


def all_reduce(count: int, sent: float) -> float:
    """Seconds to add up ``sent`` bytes over GPUs: within the nodes by NVLink, between them one ring
    or tree for each GPU of a node, whichever is sooner. Each ring sends 2 (n - 1) / n of its
    bytes."""
    local = min(count, int(assumed("gpus_of_a_node")))
    nodes = math.ceil(count / local)
    share = assumed("of_bandwidth")
    inside = 2 * (local - 1) / local * sent / (assumed("nvlink") * share)
    inside += 2 * (local - 1) * assumed("nvlink_latency")
    part, speed = sent / local, assumed("infiniband") * share
    hop = assumed("network_latency")
    ring = 2 * (nodes - 1) / nodes * part / speed + 2 * (nodes - 1) * hop
    tree = 2 * part / speed + 2 * math.log2(nodes) * hop if nodes > 1 else 0.0
    return inside + min(ring, tree)


@dataclass(frozen=True)
class Update:
    """Args: steps: forward and backward passes of a GPU. sends: seconds that the network takes;
    waits: of them, what the last backward pass does not hide."""

    count: int
    steps: int
    samples: int
    seconds: float
    sends: float
    waits: float

    @property
    def rate(self) -> float:
        """Samples per second of all GPUs."""
        return self.samples / self.seconds


def update_of(size: Size, count: int, effective: int = EFFECTIVE) -> Update:
    """With gradients in 16 bits. Fewer samples than fill the GPUs make the batch of each smaller,
    down to one, and the update larger where even that is too much."""
    batch = max(1, min(size.batch, effective // count))
    steps = max(1, effective // (batch * count))
    step = size.step(batch)
    sends = all_reduce(count, 2 * size.weights)
    waits = max(0.0, sends - assumed("hidden") * 2 / 3 * step)
    optimizer = size.state * 1.5 / roofline.BANDWIDTH
    nodes = math.ceil(count / assumed("gpus_of_a_node"))
    jitter = assumed("straggler") * math.log2(nodes) / 10 if nodes > 1 else 0.0
    seconds = steps * step * (1 + jitter) + waits + optimizer
    return Update(count, steps, steps * batch * count, seconds, sends, waits)


# --- failures


@dataclass(frozen=True)
class Failures:
    """Args: per_day: of the job. interval: seconds between checkpoints that lose least (Young and
    Daly). lost: share of the time that saving, repeating and restarting take."""

    per_day: float
    interval: float
    lost: float


def failures_of(size: Size, count: int) -> Failures:
    nodes = count / assumed("gpus_of_a_node")
    per_day = nodes * assumed("node_failures")
    between, save = 86400 / per_day, size.checkpoint / assumed("disk")
    # Daly 2006: sqrt(2 * save * between) less the time of saving
    interval = max(save, math.sqrt(2 * save * between) - save)
    again = (interval + save) / 2 + assumed("restart")
    return Failures(per_day, interval, save / (interval + save) + again / between)


# --- tables


def rows_of(header: str, rows: Iterator[list[str]]) -> str:
    names = header.split(" | ")
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def figure(value: float) -> str:
    """Three digits."""
    if value >= 1000:
        return f"{round(value, 2 - int(math.log10(value))):,.0f}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def assumptions() -> Iterator[list[str]]:
    for name, (value, unit, source) in ASSUMED.items():
        shown = f"{value / 1e9:g} G{unit}" if value >= 1e9 else f"{value:g} {unit}"
        yield [name.replace("_", " "), shown.strip(), source]


def sizes() -> Iterator[list[str]]:
    for arch, size in SIZES.items():
        rate = size.batch / size.step(size.batch)
        memory = (size.state + size.batch * size.kept * 1e6 * 1.1) / 2**30
        mfu = size.flops * 1e12 * rate / roofline.PEAK
        cells = [size.parameters, size.flops, size.batch, memory, rate, mfu]
        cells += [2 * size.weights / 1e9, size.checkpoint / 1e9]
        yield [arch, *map(figure, cells)]


def scaling(arch: str) -> Iterator[list[str]]:
    size = SIZES[arch]
    one = update_of(size, 1).rate
    for count in GPUS:
        update, failures = update_of(size, count), failures_of(size, count)
        whole = ROWS * EPOCHS / update.rate / (1 - failures.lost)
        cells = [f"{count:,}", f"{update.samples // count // update.steps} x {update.steps}"]
        cells += [f"{update.samples:,}", duration(update.seconds)]
        cells += [f"{1000 * update.sends:.3g}, {1000 * update.waits:.3g} ms"]
        cells += [figure(update.rate), f"{update.rate / one / count:.0%}", duration(whole)]
        yield cells


def growing() -> Iterator[list[str]]:
    """Updates that grow with the GPUs."""
    for arch, size in SIZES.items():
        one = update_of(size, 1).rate
        for count in (64, 256, 1024):
            update = update_of(size, count, size.batch * count)
            cells = [f"{count:,}", f"{update.samples:,}", duration(update.seconds)]
            cells += [figure(update.rate), f"{update.rate / one / count:.0%}"]
            yield [arch, *cells, duration(ROWS * EPOCHS / update.rate)]


def stops(arch: str) -> Iterator[list[str]]:
    size = SIZES[arch]
    for count in (8, 64, 256, 1024):
        failures = failures_of(size, count)
        save = size.checkpoint / assumed("disk")
        cells = [f"{count:,}", f"{failures.per_day:.3g}", duration(save)]
        cells += [duration(failures.interval), f"{failures.lost:.2%}"]
        yield cells


def data() -> Iterator[list[str]]:
    for arch in SIZES:
        size = SIZES[arch]
        for count in (8, 64, 1024):
            rate = update_of(size, count).rate
            sent = rate * assumed("row_bytes")
            nodes = count / assumed("gpus_of_a_node")
            cells = [figure(rate), figure(sent / 1e9)]
            cells += [figure(math.ceil(rate / nodes / assumed("core_rows")))]
            cells += [figure(math.ceil(sent / nodes / assumed("stream")))]
            yield [arch, f"{count:,}", *cells]


def learning() -> Iterator[list[str]]:
    """By the linear and the square-root rule from the paper's rate."""
    for factor in (1, 2, 4, 8, 16):
        batch = EFFECTIVE * factor
        linear, root = RATE * factor, RATE * math.sqrt(factor)
        updates = ROWS * EPOCHS / batch
        yield [f"{batch:,}", f"{linear:.1e}", f"{root:.1e}", figure(updates)]


SCALING = (
    "GPUs | batch x steps | samples of an update | update | all-reduce, of it waited for"
    " | samples/s | of linear | 50 epochs"
)


def tables() -> dict[str, str]:
    """Name -> Markdown."""
    made = {"assumptions": rows_of("what | value | source", assumptions())}
    header = "size | M parameters | TFLOP/sample | batch | GiB | samples/s of a GPU | MFU"
    made["sizes"] = rows_of(f"{header} | GB of gradients | GB of a checkpoint", sizes())
    for arch in SIZES:
        made[arch] = rows_of(SCALING, scaling(arch))
    header = "size | GPUs | samples of an update | update | samples/s | of linear | 50 epochs"
    made["growing"] = rows_of(header, growing())
    header = "GPUs | failures a day | saving | best interval | time lost"
    made["failures"] = rows_of(header, stops("ofa_huge"))
    header = "size | GPUs | rows/s | GB/s | cores of a node | streams of a node"
    made["data"] = rows_of(header, data())
    header = "samples of an update | lr, linear | lr, square root | updates of 50 epochs"
    made["learning"] = rows_of(header, learning())
    return made


def with_tables(page: str) -> str:
    """The page with the tables as they are now, between ``<!-- NAME -->`` and ``<!-- end -->``."""
    for name, text in tables().items():
        place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
        if not place.search(page):
            raise SystemExit(f"expected a place <!-- {name} --> for a table, found none")
        page = place.sub(f"{text}\n", page, count=1)
    return page


@frame.program(
    write=(str, "the page whose tables to write again"),
    measure=(False, "print what a sample costs, by the roofline"),
)
def main(args: frame.Args) -> dict:
    if args.measure:
        for arch in SIZES:
            print(f"{arch}: {measured(arch)}", flush=True)
    made = tables()
    for name, text in made.items():
        print(f"{name}\n{text}\n")
    if args.write:
        page = Path(args.write)
        page.write_text(with_tables(page.read_text()))
    return made
