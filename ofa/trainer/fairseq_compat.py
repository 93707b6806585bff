"""Everything of fairseq that is replaced: ``PATCHES``, each with its reason.

None of them changes what fairseq computes. Each replaces a name of its own and is made from that
name's own value, so their order does not matter. What concerns a training stands in ``OFATrainer``.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, Optional

import torch
from fairseq import checkpoint_utils, options
from fairseq import trainer as fairseq_trainer
from fairseq.dataclass import configs
from fairseq.dataclass.initialize import hydra_init
from fairseq.distributed import utils as distributed_utils
from fairseq.logging.meters import MetersDict
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, distributed_fairseq_model
from fairseq.optim.lr_scheduler import LR_SCHEDULER_REGISTRY
from fairseq.tasks import TASK_REGISTRY

from ofa.process_state import silence_known_warnings
from ofa.trainer import fairseq_read_checkpoint
from ofa.trainer.fairseq_commands import replace_call_main, replace_generation
from ofa.trainer.fairseq_lr_scheduler import replace_polynomial_decay
from ofa.trainer.fairseq_resume import INITIAL_WEIGHTS
from ofa.trainer.fairseq_run import PROGRAM_PATCHES
from ofa.trainer.fairseq_saving import copy_whole
from ofa.trainer.patch import ModuleWith, Patch

CHECKPOINT_FLAGS: dict[str, tuple[Any, Any, str]] = {  # name -> (type, default, help)
    INITIAL_WEIGHTS[0]: (bool, False, "start from the averaged weights of the checkpoint"),
    INITIAL_WEIGHTS[1]: (bool, False, "start the averages anew from the checkpoint's last weights"),
    "base": (Optional[str], None, "where the base of a checkpoint of tuned weights is now"),
    "allow_changed_data": (bool, False, "resume although the training data has changed"),
}


def read_checkpoints_as_data(stock: Callable) -> Callable:
    """Since torch 2.6 fairseq cannot read its own checkpoints: they hold an argparse.Namespace.
    Those that hold tuned weights only are completed from their base."""
    return fairseq_read_checkpoint.load_checkpoint_to_cpu


def let_the_trainer_choose(stock: Callable) -> Callable:
    """fairseq takes ``checkpoint_last.pt`` or fails: it knows no older one and no end of a run."""

    def load_checkpoint(cfg, trainer, **iterator_options):
        return trainer.start(stock, cfg, **iterator_options)

    return load_checkpoint


def copy_checkpoints_whole(stock: type) -> Any:
    """fairseq copies a checkpoint to ``checkpoint_last.pt`` in place: a kill leaves half a file."""
    return ModuleWith(stock, copy=copy_whole)


def broadcast_objects_of_any_class(stock: Any) -> Any:
    """Since torch 2.6 objects that one rank sends to another are unpickled with ``weights_only``.
    They come from our own processes, never from a file, so every class is allowed here."""

    def load(buffer, map_location=None):
        return torch.load(buffer, map_location=map_location, weights_only=False)

    return ModuleWith(stock, load=load)


class StaysHere(torch.Tensor):
    def cuda(self, *args, **kwargs):
        return self


def make_zeros_without_gpu(stock: Any) -> Any:
    """When a gradient of ``--fp16`` overflows, fairseq makes a zero on the GPU without looking."""
    if torch.cuda.is_available():
        return stock
    return ModuleWith(stock, tensor=lambda *args: torch.tensor(*args).as_subclass(StaysHere))


def drop_device_ids_on_cpu(stock: type) -> Callable:
    """``--ddp-backend pytorch_ddp`` passes device_ids, which torch refuses for CPU modules."""

    def distributed_data_parallel(module, device_ids=None, output_device=None, **kwargs):
        if next(module.parameters()).device.type == "cpu":
            device_ids = output_device = None
        return stock(module, device_ids=device_ids, output_device=output_device, **kwargs)

    return distributed_data_parallel


def skip_figures_without_value(stock: Callable) -> Callable:
    """A figure that no update since the last log line had would be logged as None."""

    @functools.wraps(stock)
    def get_smoothed_values(self):
        values = stock(self)
        return type(values)((name, value) for name, value in values.items() if value is not None)

    return get_smoothed_values


def parse_with_short_errors(stock: Callable) -> Callable:
    """A typo in --arch or --task prints pages: all options and all names. Ours are enough.
    ``--bf16`` sets ``tpu=True``, which crashes on machines without torch_xla."""

    @functools.wraps(stock)
    def parse_args_and_arch(parser, *args, **kwargs):
        stock_error = parser.error
        parser.usage = (
            "%(prog)s DATA --user-dir ofa --task NAME --arch NAME [...] (--help lists every option)"
        )
        parser.error = lambda message: stock_error(with_our_names(message))
        parsed = stock(parser, *args, **kwargs)
        namespace = parsed[0] if isinstance(parsed, tuple) else parsed
        if getattr(namespace, "bf16", False):
            namespace.tpu = False
        return parsed

    return parse_args_and_arch


def add_checkpoint_flags(stock: type) -> type:
    """Flags of upstream and of this project belong to fairseq's options of checkpoints. The class
    itself is extended: fairseq keeps references to it in other classes."""
    known = {field.name: field for field in dataclasses.fields(stock)}
    for name, (kind, default, text) in CHECKPOINT_FLAGS.items():
        known[name] = dataclasses.field(default=default, metadata={"help": text})
        stock.__annotations__[name] = kind
    for name, field in known.items():
        if name in stock.__annotations__:
            setattr(stock, name, dataclasses.field(default=field.default, metadata=field.metadata))
    dataclasses.dataclass(stock)
    hydra_init()
    return stock


PATCHES = (
    Patch(checkpoint_utils, "load_checkpoint_to_cpu", read_checkpoints_as_data),
    Patch(checkpoint_utils, "load_checkpoint", let_the_trainer_choose),
    Patch(checkpoint_utils, "PathManager", copy_checkpoints_whole),
    Patch(distributed_utils, "torch", broadcast_objects_of_any_class),
    Patch(distributed_utils, "call_main", replace_call_main),
    Patch(distributed_fairseq_model, "DistributedDataParallel", drop_device_ids_on_cpu),
    Patch(fairseq_trainer, "torch", make_zeros_without_gpu),
    Patch(MetersDict, "get_smoothed_values", skip_figures_without_value),
    Patch(options, "parse_args_and_arch", parse_with_short_errors),
    Patch(configs, "CheckpointConfig", add_checkpoint_flags),
    Patch(LR_SCHEDULER_REGISTRY, "polynomial_decay", replace_polynomial_decay),
    Patch("fairseq_cli.generate", "main", replace_generation),
    *PROGRAM_PATCHES,
)


def install() -> None:
    """Apply every patch that is not; a program may have been loaded since the last call."""
    silence_known_warnings()
    for patch in PATCHES:
        patch.apply()


def with_our_names(message: str) -> str:
    """argparse's message about an unknown --arch or --task, with the names of this plugin."""
    ours = {
        "--arch": [name for name, model in ARCH_MODEL_NAME_REGISTRY.items() if model == "ofa"],
        "--task": [name for name, task in TASK_REGISTRY.items() if hasattr(task, "spec")],
    }
    found = re.match(r"argument (--arch|--task)\S*: invalid choice: (\S+)", message)
    if found is None:
        return message
    flag, name = found.groups()
    return (
        f"{flag}: expects one of {', '.join(sorted(ours[flag]))} (or a name of fairseq's own),"
        f" found {name}"
    )
