"""What the programs of this folder share: flags, figures, clocks, models and batches."""

import argparse
import base64
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

VOCAB_SIZE = 59457  # upstream's English vocabulary
SWITCHES = {"scale_attn": True, "scale_fc": True, "scale_heads": True, "disable_entangle": True}
DROPOUT = {"dropout": 0.1, "encoder_drop_path_rate": 0.1, "decoder_drop_path_rate": 0.1}
Works = Mapping[str, Callable[[], object]]
Args = argparse.Namespace


def program(threads: int | None = None, **flags: Any) -> Callable[[Callable], Callable[[], None]]:
    """A function of the flags that prints figures and returns them -> the program, which writes
    them to ``--json FILE``; it runs where its file is started.

    Args: threads: of torch, 2 for most. flags: by name, the default, or the default and what it is;
        a type stands for a flag without a default, False for a switch.
    """

    def decorate(measure: Callable[[Args], Any]) -> Callable[[], None]:
        def main() -> None:
            args = parse(measure.__globals__["__doc__"], flags, threads)
            figures = measure(args)
            if args.json:
                args.json.write_text(json.dumps(figures, indent=2) + "\n")

        if measure.__module__ == "__main__":
            main()
        return main

    return decorate


def parse(doc: str, flags: dict[str, Any], threads: int | None) -> Args:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=raw)
    for name, given in {**flags, **({"threads": threads} if threads else {})}.items():
        default, about = given if isinstance(given, tuple) else (given, None)
        form: dict[str, Any] = {"type": type(default), "default": default}
        if isinstance(default, type):
            form = {"type": default}
        elif default is False:
            form = {"action": "store_true"}
        parser.add_argument(f"--{name.replace('_', '-')}", help=about, **form)
    parser.add_argument("--json", "--out", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if threads:
        import torch

        torch.set_num_threads(args.threads)
    return args


def print_figures(figures: dict[str, float], digits: int) -> dict[str, float]:
    """A line for each. Returns: them."""
    for name, value in figures.items():
        print(f"{name:<42}{value:>12.{digits}f}")
    return figures


def print_times(title: str, times: Mapping[str, float], **ratios: float) -> dict[str, float]:
    """One line. Args: times: in seconds. Returns: all figures."""
    shown = [f"{name} {value:.3f} s" for name, value in times.items()]
    shown += [f"{name.replace('_', ' ')} {value:.2f}" for name, value in ratios.items()]
    print(f"{title}: {', '.join(shown)}", flush=True)
    return {**times, **ratios}


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" +- {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


# --- clocks


def seconds(function: Callable, *arguments: Any, clock: Callable = time.perf_counter) -> float:
    """Wall time of a call, or what another clock says."""
    start = clock()
    function(*arguments)
    return clock() - start


def fastest(works: Works, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Wall time and processor time of each, the fastest of ``repeats`` alternating runs."""
    wall, cpu = dict.fromkeys(works, float("inf")), dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            wall[name] = min(wall[name], seconds(work))
            cpu[name] = min(cpu[name], time.process_time() - start)
    return wall, cpu


def compare_with_matmul(works: Works, repeats: int) -> None:
    """Print FLOP/s of each work divided by those of a 2048 x 2048 fp32 matrix product between the
    runs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    matrix = torch.randn(2048, 2048)

    def products() -> None:
        for _ in range(20):
            matrix @ matrix

    for work in (products, *works.values()):
        work()
    rates, best = [], dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            rates.append(20 * 2 * 2048**3 / seconds(products))
            best[name] = min(best[name], seconds(work))
    rate = statistics.median(rates)
    for name, work in works.items():
        with FlopCounterMode(display=False) as counter:
            work()
        flop = counter.get_total_flops()
        print(
            f"{name}: {flop / 1e9:.0f} GFLOP in {best[name]:.2f} s, matmul {rate / 1e9:.0f}"
            f" GFLOP/s, ratio {flop / best[name] / rate:.2f}",
            flush=True,
        )


# --- files, models, batches, trainers


def photo_fields(count: int) -> list[str]:
    """Fields as COCO has them: 640 x 480 JPEG of shapes and noise, about 100 KB of base64."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    fields = []
    for _ in range(count):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        image = np.asarray(small.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=90)
        fields.append(base64.b64encode(file.getvalue()).decode())
    return fields


def read_all(path: Path) -> None:
    """Plain sequential read, the floor of indexing."""
    buffer = bytearray(8 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def random_model(arch: str, **switches: Any) -> Any:
    """A network of upstream's size with fresh weights, which are always the same."""
    import torch

    from ofa.models.config import ModelConfig
    from ofa.models.ofa_model import OFAModel

    torch.manual_seed(0)
    return OFAModel(ModelConfig.from_namespace({**SWITCHES, **switches}, arch), VOCAB_SIZE)


def caption_inputs(images: int, pixels: int, source_tokens: int = 12) -> dict[str, Any]:
    """What the encoder gets: made-up tokens and images."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return {
        "src_tokens": torch.randint(5, 50000, (images, source_tokens), generator=generator),
        "patch_images": torch.randn(images, 3, pixels, pixels, generator=generator),
        "patch_masks": torch.ones(images, dtype=torch.bool),
    }


def generator_of(model: Any, **options: Any) -> Any:
    from ofa.models.generation.generator import SequenceGenerator
    from ofa.models.generation.options import GenerationOptions

    return SequenceGenerator([model], GenerationOptions(**options), VOCAB_SIZE)


def trainer_of(data: str, *flags: str) -> Any:
    """The trainer of a command line, as ``ofa train`` completes it, with its training set."""
    import logging

    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import ofa
    from ofa.trainer.fairseq_trainer import OFATrainer
    from ofa.trainer.launch import LaunchOptions, common_flags

    logging.disable(logging.INFO)
    ofa.register_fairseq_plugin()
    words = [data, *common_flags(LaunchOptions(), flags), *flags, "--max-epoch=1"]
    words = [word for word in words if not word.startswith("--tensorboard-logdir")]
    parsed = options.parse_args_and_arch(options.get_training_parser(), words)
    cfg = convert_namespace_to_omegaconf(parsed)
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    task.load_dataset("train")
    return OFATrainer(cfg, task, model, criterion)
