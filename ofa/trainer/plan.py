"""How long a training takes, what it keeps on the disk and what fits into memory: worked out from
its flags before it starts, without torch."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ofa.devices import ask_nvidia_smi
from ofa.errors import UserError
from ofa.io.jobs import count_threads, memory_size
from ofa.io.terminal import in_time, in_units, with_noun
from ofa.models.config import PRESETS, ModelConfig
from ofa.task.task_spec import TaskOptions
from ofa.tokens.vocabulary import count_entries
from ofa.trainer.checks import Facts
from ofa.trainer.flags import value_of
from ofa.trainer.mfu import peak_flops

MEGAPIXEL = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What a size costs; benchmarks/training_memory.py measures it.

    Args: parameters: millions, besides the table of tokens. kept: MB (float32) that a row keeps for
    the backward pass: of a megapixel, and of its text. work: GFLOP of its forward pass, likewise.
    """

    parameters: float
    kept: tuple[float, float]
    work: tuple[float, float]


COSTS = {
    "ofa_nano": Cost(2.34, (461, 1.2), (13.3, 0.03)),
    "ofa_tiny": Cost(18.27, (2051, 4.2), (161.4, 0.23)),
    "ofa_medium": Cost(62.45, (3299, 8.2), (397.4, 0.94)),
    "ofa_base": Cost(136.58, (4355, 17.9), (671.8, 3.17)),
    "ofa_large": Cost(412.09, (8500, 46.6), (1811, 11.3)),
    "ofa_huge": Cost(853.38, (15_500, 76), (4430, 23.3)),
}
# Flags of 16 bits; the first one counts, as fairseq sets fp16 with memory-efficient-fp16.
PRECISIONS = ("memory-efficient-fp16", "memory-efficient-bf16", "fp16", "bf16", "amp")
# Bytes per weight in training: weight, gradient, Adam's moments and copies in float32.
WEIGHT = {"fp32": 16, "amp": 18, "fp16": 20, "bf16": 20, "memory-efficient-fp16": 12}
HALF = 0.52  # of what a row keeps in float32: what it keeps in other precisions
TRANSIENT = 1.3  # what a step holds at its peak, over what it keeps for the backward pass
LOGITS = 12  # bytes per target token and entry of the vocabulary: logits, probabilities, gradient
BEFORE = 1e9  # bytes of a process before the first step
CORE = 55e9  # FLOP/s of a processor core in training
UPDATE = 0.03  # seconds of an update besides its rows, on a CPU
STEP = 0.04  # seconds that the processor needs for a step on a GPU, which may be waiting for it
IMAGE = 0.006  # seconds of a core to read an image
START = 15  # seconds until the first update
UTILIZATION = 0.15  # share of a GPU's peak that a training reaches
GPUS = {16: "V100", 24: "A10", 40: "A100", 80: "H100"}  # GB of memory -> a GPU with it
HAS_BF16 = ("A10", "A100", "H100")
COUNTS = (1, 2, 4, 8)
PEFT = ("adapter", "adapter_train_backbone", "bitfit", "encoder_prompt", "decoder_prompt")


@dataclass(frozen=True)
class Plan:
    """What the flags of a training come to.

    Args: facts: of its files. flags: all, as fairseq gets them. processes: that share the work, on
    all nodes. gpus: on this node; 0: it runs on the CPU. nodes: each has as many processes.
    """

    facts: Facts
    flags: Sequence[str]
    processes: int = 1
    gpus: int = 0
    nodes: int = 1

    def number(self, flag: str, default: float = 0) -> float:
        """A flag's value; the first of several."""
        text = (value_of(flag, self.flags) or "").strip("[]").split(",")[0]
        try:
            return float(text)
        except ValueError:  # fairseq names it
            return default

    def has(self, flag: str) -> bool:
        return flag in self.flags

    # --- what is computed

    @property
    def arch(self) -> str:
        return value_of("--arch", self.flags) or value_of("-a", self.flags) or ""

    @property
    def cost(self) -> Cost | None:
        return COSTS.get(self.arch)

    @property
    def pixels(self) -> int:
        """Side of an image; 0 for a task of texts."""
        spec = self.facts.spec
        if spec is not None and not spec.has("image"):
            return 0
        return int(self.number("--patch-image-size", TaskOptions.patch_image_size))

    @property
    def precision(self) -> str:
        return next((name for name in PRECISIONS if self.has(f"--{name}")), "fp32")

    @property
    def batch(self) -> int:
        """Rows per process and step."""
        return int(self.number("--batch-size", 1)) or 1

    @property
    def update_freq(self) -> int:
        """Steps per update."""
        return int(self.number("--update-freq", 1)) or 1

    @property
    def effective_batch(self) -> int:
        return self.batch * self.processes * self.update_freq

    @property
    def epoch_updates(self) -> int:
        steps = math.ceil((self.facts.rows or 0) / (self.batch * self.processes))
        return math.ceil(steps / self.update_freq)

    @property
    def updates(self) -> int | None:
        """None where the rows are not known, or nothing ends the training."""
        limits = [int(self.number("--max-update"))]
        if self.facts.rows:
            limits.append(int(self.number("--max-epoch")) * self.epoch_updates)
        return min(filter(None, limits), default=None)

    @property
    def epochs(self) -> int | None:
        if not self.facts.rows or self.updates is None:
            return None
        return math.ceil(self.updates / max(self.epoch_updates, 1))

    @property
    def entries(self) -> int:
        """Of the vocabulary; upstream's English one where no folder is named."""
        return self.facts.entries or count_entries()

    @property
    def weights(self) -> int:
        """Parameters of the network."""
        assert self.cost is not None
        width = PRESETS[self.arch]["encoder_embed_dim"]
        return round(self.cost.parameters * 1e6) + self.entries * width

    @property
    def is_peft(self) -> bool:
        """Whether few weights train, and checkpoints hold these alone."""
        options: dict[str, Any] = {name: self.has(f"--{name.replace('_', '-')}") for name in PEFT}
        options["lora_rank"] = int(self.number("--lora-rank"))
        return bool(ModelConfig(**options).peft_methods)

    @property
    def samples_model(self) -> bool:
        """Whether it learns from samples of the model (SCST)."""
        return (value_of("--criterion", self.flags) or "").startswith("scst")

    @property
    def has_auxiliary_rows(self) -> bool:
        """Whether updates have rows besides those that are counted (pretraining)."""
        return value_of("--task", self.flags) == "unify_task"

    # --- time

    @property
    def row_flops(self) -> float:
        """Of forward and backward pass."""
        assert self.cost is not None
        by_pixel, besides = self.cost.work
        width = PRESETS[self.arch]["encoder_embed_dim"]
        logits = 2 * self.target_tokens * self.entries * width
        return 3 * (1e9 * (by_pixel * self.pixels**2 / MEGAPIXEL + besides) + logits)

    @property
    def target_tokens(self) -> int:
        return min(int(self.number("--max-tgt-length", TaskOptions.max_tgt_length)), 20)

    def seconds(self, gpu_memory: int | None = None) -> float | None:
        """Of the whole training, about. Args: gpu_memory: GB of each GPU. None where nothing is
        known of it, as of samples of the model."""
        is_unknown = self.samples_model or self.has_auxiliary_rows
        if self.updates is None or self.cost is None or is_unknown:
            return None
        reading = IMAGE * bool(self.pixels)
        rows = self.updates * self.effective_batch
        if not gpu_memory:
            row = (self.row_flops / CORE + reading) / (count_threads() * self.nodes)
            return START + rows * row + self.updates * UPDATE
        nearest = min(GPUS, key=lambda memory: abs(memory - gpu_memory))
        peak = peak_flops(GPUS[nearest], self.precision != "fp32")
        assert peak is not None  # the table has these GPUs
        reading /= max(self.number("--num-workers"), 1)
        row = max(self.row_flops / (peak * UTILIZATION), reading, STEP / self.batch)
        return START + rows / self.processes * row

    # --- disk

    @property
    def expected_checkpoint_bytes(self) -> int | None:
        """Of a checkpoint with the state of the optimizer; None of tuned weights alone."""
        if self.cost is None or self.is_peft:
            return None
        bytes_of_weight = 4 + 8 * (not self.has("--no-save-optimizer-state"))
        if self.has("--store-ema"):
            bytes_of_weight += 4 * (1 + self.has("--ema-fp32"))
        return round(self.weights * bytes_of_weight)

    @property
    def kept_checkpoints(self) -> int:
        """The last, the best, and those of epochs and updates that are not removed."""
        if self.has("--no-save"):
            return 0
        best = max(int(self.number("--keep-best-checkpoints", -1)), 0)
        count = (not self.has("--no-last-checkpoints")) + 1 + best
        kinds = [("--save-interval-updates", self.updates or 0, "--keep-interval-updates")]
        if not self.has("--no-epoch-checkpoints"):
            kinds.append(("--save-interval", self.epochs or 0, "--keep-last-epochs"))
        for interval, total, keep in kinds:
            distance = int(self.number(interval, interval == "--save-interval"))
            saved = total // distance if distance else 0
            most = int(self.number(keep, -1))
            count += min(saved, most) if most > 0 else saved
        return count

    def check_expected_space(self, folder: Path) -> str:
        """A warning if the disk is too small for all checkpoints, or "".

        Raises: UserError if not even the last, the best and one being written fit.
        """
        size = self.expected_checkpoint_bytes
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        if size is None or not self.kept_checkpoints:
            return ""
        free = shutil.disk_usage(there).free
        free += sum(path.stat().st_size for path in folder.glob("checkpoint*.pt"))
        needed = size * (self.kept_checkpoints + 1)
        few = size * min(self.kept_checkpoints + 1, 3)
        expected = f"{folder}: expected {in_units(few)} for checkpoints of {in_units(size)}"
        if free < few:
            raise UserError(
                f"{expected}, found {in_units(free)} free; free some space, or write elsewhere"
                " (--out)"
            )
        if free < needed:
            return (
                f"{self.kept_checkpoints} checkpoints of {in_units(size)} will be kept, and"
                f" {in_units(free)} are free; keep fewer: --no-epoch-checkpoints,"
                " --keep-last-epochs=1, --keep-interval-updates=1"
            )
        return ""

    # --- memory

    def memory(self, batch: int) -> float:
        """Bytes of a process at the peak of a step. Args: batch: rows of the step."""
        assert self.cost is not None
        by_pixel, besides = self.cost.kept
        kept = 1e6 * (by_pixel * self.pixels**2 / MEGAPIXEL + besides)
        share = 1.0 if self.precision == "fp32" else HALF
        logits = LOGITS * self.target_tokens * self.entries
        ema = 8 * self.has("--store-ema")
        weights = self.weights * (WEIGHT.get(self.precision, 12) + ema)
        return BEFORE + weights + batch * (TRANSIENT * share * kept + logits)

    def largest_batch(self, memory: float, most: int) -> int:
        """Rows of a step that fit into that memory: ``most``, or equal parts of it (a half, a
        quarter, ...; rounded up); 0: not one."""
        parts = 1
        while self.memory(batch := math.ceil(most / parts)) > 0.92 * memory:
            if batch <= 1:
                return 0
            parts *= 2
        return batch

    # --- words

    def line(self) -> str:
        """``165 rows, batch 32, 15 epochs, 80 updates, about 40 s on 2 cores; checkpoints 48
        MB each, 3 kept``"""
        parts = []
        if self.facts.rows:
            about = "" if self.facts.exact else "about "
            parts.append(f"{about}{with_noun(self.facts.rows, 'row')}")
        parts.append(f"batch {self.effective_batch}")
        if self.epochs:
            parts.append(with_noun(self.epochs, "epoch"))
        if self.updates:
            parts.append(with_noun(self.updates, "update"))
        seconds = self.seconds(gpu_memory() if self.gpus else None)
        if seconds is not None:
            where = _cores()
            if self.gpus:
                where = f"{with_noun(self.processes, 'GPU')} in {self.precision}"
            parts.append(f"about {in_time(seconds)} on {where}")
        disk, kept = self.expected_checkpoint_bytes, self.kept_checkpoints
        text = ", ".join(parts)
        return text + (f"; checkpoints {in_units(disk)} each, {kept} kept" if disk else "")

    def table(self) -> str:
        """For 1 to 8 GPUs of each memory: the batch that fits, ``--update-freq``, time. GPUs of
        which all that is the same share a line."""
        if self.cost is None:
            raise UserError(f"--plan: expected --arch of {', '.join(COSTS)}, found '{self.arch}'")
        rows = []
        for count in COUNTS:
            fitted = [(memory, *self.on_gpus(count, memory)) for memory in GPUS]
            for cells, same in groupby(fitted, key=lambda row: row[2]):
                names = [f"{memory} GB ({GPUS[memory]}, {half})" for memory, half, _ in same]
                rows.append((count, " to ".join(dict.fromkeys((names[0], names[-1]))), cells))
        wide = max(len(where) for _, where, _ in rows)
        head = ("batch", "--update-freq", "rows/update", "    time")
        return "\n".join(
            f"{count:>4}  {where:<{wide}}"
            + "".join(f"{cell:>{len(name) + 2}}" for cell, name in zip(cells, head))
            for count, where, cells in [("GPUs", "memory", head), *rows]
        )

    def on_gpus(self, count: int, memory: int) -> tuple[str, tuple[str, ...]]:
        """Precision, and the cells of the table: batch, ``--update-freq``, rows of an update, time.
        Args: memory: GB of each GPU."""
        wanted = self.effective_batch
        bf16 = GPUS[memory] in HAS_BF16
        half = [f"--{'bf16' if bf16 else 'fp16'}"] * (self.precision == "fp32")
        trial = Plan(self.facts, [*self.flags, *half], count, count)
        batch = trial.largest_batch(memory * 1e9, max(wanted // count, 1))
        if not batch:
            return trial.precision, ("  does not fit; --checkpoint-activations needs less",)
        freq = max(round(wanted / (batch * count)), 1)
        flags = [f"--batch-size={batch}", f"--update-freq={freq}"]
        fitted = Plan(self.facts, [*trial.flags, *flags], count, count)
        seconds = fitted.seconds(memory)
        time = in_time(seconds) if seconds is not None else "-"
        return trial.precision, (str(batch), str(freq), str(fitted.effective_batch), time)


def _cores() -> str:
    return with_noun(count_threads(), "core")


def gpu_memory() -> int | None:
    """GB of the smallest GPU, by nvidia-smi."""
    lines, _ = ask_nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    sizes = [int(line) for line in lines or () if line.strip().isdecimal()]
    return round(min(sizes) * 2**20 / 1e9) if sizes else None


def usable_memory() -> int:
    """Bytes of this machine that a training may use; the same at every start, so that a resumed
    training has the same batches."""
    return round(0.7 * memory_size())
