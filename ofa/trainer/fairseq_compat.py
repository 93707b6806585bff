"""Places where stock fairseq breaks on current Python and torch, each mended by one function.

Nothing here changes what fairseq computes; ``install()`` is called once, when the plugin registers.
"""

import functools
import logging
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from fairseq import checkpoint_utils, options
from fairseq import trainer as fairseq_trainer
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.logging.meters import MetersDict
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, distributed_fairseq_model
from fairseq.tasks import TASK_REGISTRY
from fairseq.trainer import Trainer
from fairseq.utils import split_paths
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ofa.checkpoints.delta import load_complete
from ofa.devices import require_bf16, usable_gpus
from ofa.errors import UserError
from ofa.failures import PIPE_CLOSED, message_of, reader_is_gone
from ofa.io.pickles import DAMAGED
from ofa.io.stored_options import drop_from_checkpoint
from ofa.process_state import silence_known_warnings
from ofa.trainer import fairseq_upstream

logger = logging.getLogger(__name__)

DEFAULT_RESTORE_FILE = "checkpoint_last.pt"


def install() -> None:
    """Apply every mend, once per process."""
    if getattr(install, "done", False):
        return
    install.done = True
    silence_known_warnings()
    load_checkpoints_as_data()
    broadcast_objects_of_any_class()
    keep_bf16_off_tpu()
    name_unknown_architectures()
    drop_device_ids_on_cpu()
    survive_overflows_on_cpu()
    keep_boxes_exact()
    check_metric_before_training()
    leave_out_figures_without_value()
    prepare_every_run()


def load_checkpoints_as_data() -> None:
    """Since torch 2.6 fairseq cannot read its own checkpoints (its own files hold an
    argparse.Namespace).

    They are read by ``ofa.io.safe_load`` instead, which rebuilds plain data and runs no code of the
    file. Those that hold tuned weights only are completed from their base;
    ``arg_overrides["base"]`` tells where it is.
    """

    def load_checkpoint_to_cpu(path, arg_overrides=None, load_on_all_ranks=False):
        overrides = dict(arg_overrides or {})
        state = load_complete(PathManager.get_local_path(path), overrides.pop("base", None))
        drop_from_checkpoint(state, path)
        try:
            return as_fairseq_reads(state, overrides)
        except (*DAMAGED, SyntaxError, OmegaConfBaseException) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"{path}: expected the options of a training in 'cfg' or 'args', found others"
                f" ({reason[0][:200]}); is it a checkpoint that training wrote?"
            ) from error

    checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu


def as_fairseq_reads(state: dict, overrides: dict[str, Any]) -> dict:
    """The checkpoint as fairseq's own function returns it. Args: overrides: values of options
    that replace the stored ones."""
    complete_history(state)
    fairseq_upstream.adapt(state)
    if state.get("args") is not None:
        for name, value in overrides.items():
            setattr(state["args"], name, value)
    if state.get("cfg") is not None:
        if isinstance(
            state["cfg"].get("model"), dict
        ):  # overrides may name options that an older file lacks
            state["cfg"]["model"] = Namespace(**state["cfg"]["model"])
        state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
        checkpoint_utils.overwrite_args_by_name(state["cfg"], overrides)
    return checkpoint_utils._upgrade_state_dict(state)


def complete_history(state: dict) -> None:
    """Checkpoints stripped of their training state lack records that fairseq looks up; the empty
    ones go in."""
    state.setdefault("extra_state", {})
    if state.get("optimizer_history") or "best_loss" not in state:
        history = state["optimizer_history"] = state.get("optimizer_history") or [{}]
        if "best_loss" not in history[-1]:
            history[-1].setdefault("lr_scheduler_state", {})
        for name in ("criterion_name", "optimizer_name"):
            history[-1].setdefault(name, "")


def broadcast_objects_of_any_class() -> None:
    """Objects sent between the ranks of one run are unpickled with ``weights_only`` since torch
    2.6.

    They come from our own processes, never from a file, so every class is allowed here.
    """

    def receive(buffer, map_location=None):
        return torch.load(buffer, map_location=map_location, weights_only=False)

    distributed_utils.torch = ModuleWith(torch, load=receive)


class ModuleWith:
    """A module in which some names are replaced, for one importing module only."""

    def __init__(self, module, **replaced):
        self.__dict__.update(replaced, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


def keep_bf16_off_tpu() -> None:
    """``--bf16`` sets ``tpu=True``, which crashes on machines without torch_xla."""
    parse = options.parse_args_and_arch

    @functools.wraps(parse)
    def parse_args_and_arch(*args, **kwargs):
        parsed = parse(*args, **kwargs)
        namespace = parsed[0] if isinstance(parsed, tuple) else parsed
        if getattr(namespace, "bf16", False):
            namespace.tpu = False
        return parsed

    options.parse_args_and_arch = parse_args_and_arch


def name_unknown_architectures() -> None:
    """A typo in --arch or --task prints pages: all options and all of fairseq's own names. Ours are
    enough.

    The parser exists before the plugin is loaded, so it is changed when it is used.
    """
    parse = options.parse_args_and_arch

    @functools.wraps(parse)
    def parse_with_short_errors(parser, *args, **kwargs):
        stock_error = parser.error
        parser.usage = (
            "%(prog)s DATA --user-dir ofa --task NAME --arch NAME [...] (--help lists every option)"
        )
        parser.error = lambda message: stock_error(with_our_names(message))
        return parse(parser, *args, **kwargs)

    options.parse_args_and_arch = parse_with_short_errors


def with_our_names(message: str) -> str:
    """argparse's message about an unknown --arch or --task, listing the names of this plugin
    alone."""
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


def drop_device_ids_on_cpu() -> None:
    """``--ddp-backend pytorch_ddp`` passes device_ids, which torch refuses for modules on the
    CPU."""
    stock = distributed_fairseq_model.DistributedDataParallel

    def distributed_data_parallel(module, device_ids=None, output_device=None, **kwargs):
        if next(module.parameters()).device.type == "cpu":
            device_ids = output_device = None
        return stock(module, device_ids=device_ids, output_device=output_device, **kwargs)

    distributed_fairseq_model.DistributedDataParallel = distributed_data_parallel


def survive_overflows_on_cpu() -> None:
    """When a gradient of ``--fp16`` overflows, the trainer makes a zero on the GPU, whether
    there is one or not."""
    if torch.cuda.is_available():
        return

    class StaysHere(torch.Tensor):
        def cuda(self, *args, **kwargs):
            return self

    def tensor(*args, **kwargs):
        return torch.tensor(*args, **kwargs).as_subclass(StaysHere)

    fairseq_trainer.torch = ModuleWith(torch, tensor=tensor)


BOXES = (
    "w_resize_ratios",
    "h_resize_ratios",
    "region_coords",
)  # keys of a batch that are measures, not input


def keep_boxes_exact() -> None:
    """With --fp16 and --bf16 fairseq rounds every float of a batch; a corner of a box would be
    off by a pixel or more."""
    stock = Trainer._fp_convert_sample

    @functools.wraps(stock)
    def convert(self, sample):
        converted = stock(self, sample)
        if isinstance(sample, dict):
            converted.update({key: sample[key] for key in BOXES if key in sample})
        return converted

    Trainer._fp_convert_sample = convert


def check_metric_before_training() -> None:
    """A typo in ``--best-checkpoint-metric`` is a KeyError after the first epoch; say it at the
    start."""
    init = Trainer.__init__

    @functools.wraps(init)
    def checked_init(self, cfg, task, *args, **kwargs):
        metric = cfg.checkpoint.best_checkpoint_metric
        known = task.metric_names() if hasattr(task, "metric_names") else None
        if known is not None and not cfg.dataset.disable_validation and metric not in known:
            raise UserError(
                f"--best-checkpoint-metric: task '{cfg.task._name}' validates"
                f" {', '.join(sorted(known))}; found '{metric}'. Choose one of these, or switch the"
                " metric on (for example --eval-cider)."
            )
        init(self, cfg, task, *args, **kwargs)

    Trainer.__init__ = checked_init


def leave_out_figures_without_value() -> None:
    """A figure that none of the updates since the last line of the log had is printed as None:
    that of a task without a row."""
    stock = MetersDict.get_smoothed_values

    @functools.wraps(stock)
    def get_smoothed_values(self):
        values = stock(self)
        return type(values)((name, value) for name, value in values.items() if value is not None)

    MetersDict.get_smoothed_values = get_smoothed_values


def prepare_every_run() -> None:
    """Every fairseq command but one ends in ``call_main``: the configuration is put right there."""
    call_main = distributed_utils.call_main
    prepare_generation()

    @functools.wraps(call_main)
    def prepared_call_main(cfg, main, **kwargs):
        with errors_in_one_line(), open_dict(cfg):
            refuse_unusable_gpus(cfg)
            refuse_missing_restore_file(cfg)
            refuse_missing_path(cfg)
            ignore_unused_valid_subsets(cfg)
            use_fp16_without_flat_gradients_on_cpu(cfg)
            refuse_asynchronous_checkpoints(cfg)
            follow_torchrun(cfg)
            call_main(cfg, main, **kwargs)

    distributed_utils.call_main = prepared_call_main


def prepare_generation() -> None:
    """``fairseq-generate`` calls its ``main`` itself. It is running when the plugin is loaded:
    under its name, or as a script."""
    for module in filter(None, map(sys.modules.get, ("fairseq_cli.generate", "__main__"))):
        if getattr(module.__spec__, "name", None) == "fairseq_cli.generate" and hasattr(
            module, "main"
        ):
            module.main = prepared_generation(module.main)


def prepared_generation(main: Callable) -> Callable:
    """``main`` of ``fairseq-generate`` whose errors are one line, and whose log leaves out what
    is for developers."""

    @functools.wraps(main)
    def prepared_main(args: Namespace):
        with errors_in_one_line():
            # An import inside fairseq sets this to DEBUG for every library.
            logging.getLogger().setLevel(os.environ.get("LOGLEVEL", "INFO").upper())
            cfg = convert_namespace_to_omegaconf(args)
            refuse_missing_path(cfg)
            if cfg.generation.lm_path:
                raise UserError(
                    "--lm-path: a language model beside the network is not offered; leave it out"
                )
            return main(cfg)

    return prepared_main


def refuse_missing_path(cfg) -> None:
    """What ``--path`` names is looked for after minutes of reading data, and is a traceback
    then."""
    named = split_paths(cfg.common_eval.path or "")
    whole = not cfg.checkpoint.checkpoint_suffix and cfg.checkpoint.checkpoint_shard_count == 1
    missing = [path for path in named if path and not PathManager.isfile(path)]
    if whole and missing:
        raise UserError(f"--path: expects a checkpoint, found no file {missing[0]}; check the path")


def refuse_unusable_gpus(cfg) -> None:
    """ "no kernel image is available" comes after the data is read; an old driver means training
    on the CPU in silence."""
    if not cfg.common.cpu and usable_gpus()[0] and cfg.common.bf16:
        require_bf16("cuda")


def refuse_missing_restore_file(cfg) -> None:
    """A missing ``--restore-file`` would silently train from scratch."""
    path = cfg.checkpoint.restore_file
    if path != DEFAULT_RESTORE_FILE and not PathManager.isfile(path):
        raise UserError(
            f"--restore-file: expects a checkpoint, found no file {path}. "
            "Check the path, or leave the flag out to train from scratch."
        )


def ignore_unused_valid_subsets(cfg) -> None:
    """fairseq lists the directory of ``data`` to find forgotten subsets; ours is a list of TSV
    files."""
    cfg.dataset.ignore_unused_valid_subsets = True


def refuse_asynchronous_checkpoints(cfg) -> None:
    """Without iopath fairseq ends such a run at once with status 0; with it checkpoints are not
    written in one step."""
    if cfg.checkpoint.write_checkpoints_asynchronously:
        raise UserError(
            "--write-checkpoints-asynchronously: is not offered, a kill could tear a checkpoint;"
            " leave it out"
        )


def use_fp16_without_flat_gradients_on_cpu(cfg) -> None:
    """``--fp16`` on the CPU fails with flattened gradients."""
    if cfg.common.fp16 and (cfg.common.cpu or not torch.cuda.is_available()):
        cfg.common.fp16_no_flatten_grads = True


def follow_torchrun(cfg) -> None:
    """Take rank, world size and device from torchrun's environment.

    fairseq divides by the number of GPUs there (none on a CPU machine), and with one visible device
    per process starts independent runs unless the world size is given as well.
    """
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if (
        world_size == 1
        or "RANK" not in os.environ
        or cfg.distributed_training.distributed_init_method
    ):
        return
    devices = 0 if cfg.common.cpu else torch.cuda.device_count()
    settings = cfg.distributed_training
    settings.distributed_world_size = world_size
    settings.distributed_rank = int(os.environ["RANK"])
    settings.distributed_init_method = "env://"
    settings.distributed_no_spawn = True
    settings.device_id = int(os.environ.get("LOCAL_RANK", 0)) % max(devices, 1)
    if devices == 0:
        settings.distributed_backend = "gloo"


class errors_in_one_line:
    """Context in which an error that a user can correct ends the process with one line and
    status 2, not a traceback."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        try:
            sys.stdout.flush()
        except BrokenPipeError as closed:
            error = closed
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            sys.exit(PIPE_CLOSED)
        message = message_of(error)
        if message is not None:
            print(f"error: {message}", file=sys.stderr, flush=True)
            sys.exit(2)
