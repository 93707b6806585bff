"""What a training tells the person who watches it: what it is going to do, how fast it does it, and
what came of it. ``console`` shows it."""

import logging
import math
import resource
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from fairseq import checkpoint_utils
from fairseq.logging import metrics
from omegaconf import OmegaConf

from ofa.checkpoints.options import comparable, options_of
from ofa.io.atomic import replacing
from ofa.trainer import console
from ofa.trainer.launch import CONFIG
from ofa.trainer.mfu import Utilization, peak_of
from ofa.trainer.plan import PRECISIONS

logger = logging.getLogger(__name__)

BYTES = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss


def write_config(cfg) -> None:
    """All options of the run into its folder, by name."""
    groups = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    with replacing(Path(cfg.checkpoint.save_dir) / CONFIG) as file:
        yaml.safe_dump(comparable(options_of({"cfg": groups})), file, allow_unicode=True)


class Progress:
    """What the first rank tells while it trains. Args: trainer: fairseq's."""

    def __init__(self, trainer):
        self.trainer, self.ticks, self.begun = trainer, console.Ticks(), False
        self.updates = math.inf  # of the whole run
        self.epochs: int | None = None  # of it
        half = precision_of(trainer.cfg.common) != "fp32"
        self.utilization = Utilization(peak_of(trainer.device, half))

    def begin(self) -> None:
        """Before the first update."""
        trainer, cfg = self.trainer, self.trainer.cfg
        if self.begun or not trainer.is_data_parallel_master:
            return
        self.begun, device, hours = True, trainer.device, cfg.optimization.stop_time_hours
        memory, name = None, device.type
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            memory, name = properties.total_memory / 2**30, properties.name
        console.tell(
            run={
                "first": trainer.get_num_updates(),
                "updates": None if self.updates == math.inf else int(self.updates),
                "epochs": self.epochs,
                "seconds": hours * 3600 - trainer.cumulative_training_time() if hours else None,
                "metric": cfg.checkpoint.best_checkpoint_metric,
                "maximize": cfg.checkpoint.maximize_best_checkpoint_metric,
                "best": getattr(checkpoint_utils.save_checkpoint, "best", None),
                "memory": memory,
            }
        )
        parameters, count = list(trainer.get_model().parameters()), trainer.data_parallel_world_size
        trained = sum(one.numel() for one in parameters if one.requires_grad)
        every, processes = sum(one.numel() for one in parameters), "process" + "es" * (count > 1)
        where = f"{count} {processes} ({name}, {precision_of(cfg.common)})"
        logger.info("training %s of %s parameters on %s", f"{trained:,}", f"{every:,}", where)

    def log(self, rows: int) -> None:
        """After each update: figures of the next log line. Args: rows: of the update, here."""
        if self.trainer.device.type == "cpu":  # of a GPU fairseq logs ``gb_free``
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES / 2**30
            metrics.log_scalar("memory", used, weight=0, priority=1500, round=2)
        if seconds := self.utilization.peak_seconds(rows):
            metrics.log_speed("mfu", 100 * seconds, priority=1600, round=1)
        if self.trainer.is_data_parallel_master:
            self.ticks.tick(self.trainer.get_num_updates())


def precision_of(common) -> str:
    """By the group ``common`` of fairseq's configuration."""
    names = (name for name in PRECISIONS if getattr(common, name.replace("-", "_"), False))
    return next(names, "fp32")


def rows_of(samples: Sequence[Any]) -> int:
    """Rows of the batches of an update; a batch of a pretraining is a pair of batches."""
    parts = [part for sample in samples for part in _parts(sample) if part]
    return sum(int(part["nsentences"]) for part in parts if "nsentences" in part)


def _parts(sample: Any) -> Sequence[Any]:
    return sample if isinstance(sample, (list, tuple)) else [sample]


def on_host(figures: Any) -> Any:
    """Lists and dicts of figures, those of a GPU on the CPU: by one copy for all of one type, where
    looking at each makes the host wait each time."""
    found: dict[torch.dtype, list[torch.Tensor]] = {}

    def collect(value: Any) -> None:
        if isinstance(value, torch.Tensor) and value.dim() == 0 and value.device.type != "cpu":
            found.setdefault(value.dtype, []).append(value)

    each_of(figures, collect)
    copies = {
        id(value): copy
        for values in found.values()
        for value, copy in zip(values, torch.stack(values).cpu())
    }
    return each_of(figures, lambda value: copies.get(id(value), value))


def each_of(thing: Any, change: Callable[[Any], Any]) -> Any:
    """A nest of lists and dicts whose values are changed."""
    if isinstance(thing, dict):
        return {key: each_of(value, change) for key, value in thing.items()}
    return [each_of(v, change) for v in thing] if isinstance(thing, list) else change(thing)


class Outcome:
    """What came of the run of this process; ``reset`` before it begins."""

    reason: str | None = None  # of its end; None: the learning rate
    best_update: int | None = None  # None: of an earlier start
    updates = 0
    planned = math.inf

    @classmethod
    def reset(cls) -> None:
        cls.reason, cls.best_update, cls.updates, cls.planned = None, None, 0, math.inf

    @classmethod
    def last_line(cls, cfg) -> str:
        """Why the training ended, and where."""
        if cls.updates < cls.planned < math.inf:
            ended = f"stopped early after update {cls.updates} of {cls.planned:.0f}"
        else:
            ended = f"finished after update {cls.updates}"
        rate = cfg.optimization.stop_min_lr
        return f"{ended}: {cls.reason or f'the learning rate is at most --stop-min-lr {rate:g}'}"


def announce(text: str) -> None:
    """Show a line about the run as a whole: of a trainer's own lines only warnings are shown."""
    logger.info("%s", text)


def log_best(cfg) -> None:
    """Tell where the best checkpoint is, how good it is, and what to do with it."""
    folder, suffix = Path(cfg.checkpoint.save_dir), cfg.checkpoint.checkpoint_suffix
    best = getattr(checkpoint_utils.save_checkpoint, "best", None)
    file, last = (folder / f"checkpoint_{name}{suffix}.pt" for name in ("best", "last"))
    if best is not None and file.is_file():
        at = f" (update {Outcome.best_update})" if Outcome.best_update else ""
        logger.info("best %s %.4g%s: %s", cfg.checkpoint.best_checkpoint_metric, best, at, file)
    elif last.is_file():
        file = last
        logger.info("no validation chose a best checkpoint; the last one: %s", file)
    else:
        return
    logger.info("next: %s", shlex.join(next_command(cfg, file)))


def next_command(cfg, checkpoint: Path) -> list[str]:
    """What shows how good a checkpoint is."""
    task, page = cfg.task, checkpoint.parent / "report.html"
    data = str(task.data).split(",")[-1]
    words = ["ofa", "evaluate", str(checkpoint), data, "--report", str(page)]
    if task._name == "unify_task":
        words = ["ofa", "pretraining", "score", str(checkpoint), "--data", data]
        words += ["--out", str(checkpoint.parent / "scores.json")]
    elif task._name == "joint":  # each of its tasks has a file of its own
        return ["ofa", "demo", str(checkpoint)]
    return [*words, *["--ema"] * bool(getattr(task, "uses_ema", False))]
