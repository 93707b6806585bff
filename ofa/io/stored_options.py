"""Which options that a file stores are followed: those of a checkpoint, and of a mixture file.

A file never names code to import nor a place to write to; these are said in this call. It may name
data to read where a model needs it to work: regular files of this machine, no devices, no network.
"""

import functools
import logging
import os
import re
import stat
from argparse import Namespace
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MEMBERS = "members"  # in the task state of a joint training's checkpoint: task -> its options
CODE, WRITTEN, NEEDLESS, READ = "code", "written", "needless", "read"
# Option -> what its value names. Options that are not here are plain values, or name files that are
# opened only if this call names them (save_dir, restore_file, tensorboard_logdir, ...). The files
# of data are this call's, too; only the scores of pretraining look at rows that the model was
# trained on.
STORED = {
    name: kind
    for kind, names in {
        # imported and called, or given to eval() by fairseq's networks: dropped with a warning
        CODE: "image_text_scorer feature_extractor _target_ prefix_allowed_tokens_fn"
        " xformers_att_config adaptive_softmax_cutoff wer_args",
        # every training imports its plugin by user_dir, and no reading does; the weights of a stem
        # are read by the first start of a training alone, later they are in the checkpoint: dropped
        NEEDLESS: "user_dir resnet_model_path",
        # by commands that read checkpoints: dropped with a warning
        WRITTEN: "gen_images_path results_path",
        # as data
        READ: "eval_cider_cached_tokens scst_cider_cached_tokens bpe_dir ans2label_file"
        " neg_sample_dir image_tokenizer vqgan_model_path vqgan_config_path clip_model_path",
    }.items()
    for name in names.split()
}
# omegaconf's functions, such as ${oc.env:NAME}; plain references have no colon.
RESOLVER = re.compile(r"\$\{[^}]*:")
NO_PATH = re.compile(r"\0|://|^//|^\\\\")  # also of another machine
DEVICES = ("/dev/", "/proc/", "/sys/")
MEMORY = "/dev/shm/"  # a disk in memory, where clusters keep data; its files are regular ones


def is_readable_path(value: Any) -> bool:
    """Whether a text names a regular file or folder of this machine, or nothing yet."""
    if not isinstance(value, str) or NO_PATH.search(value):
        return False
    try:
        path = os.path.realpath(value)
        if f"{path}/".startswith(DEVICES) and not path.startswith(MEMORY):
            return False
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def is_followed(name: str, value: Any) -> bool:
    """Whether a stored value of an option counts."""
    if not value:
        return True
    if name in STORED and not (STORED[name] == READ and is_readable_path(value)):
        return False
    return not (isinstance(value, (str, list, tuple)) and RESOLVER.search(str(value)))


def drop_unfollowed(options: dict[str, Any], where: str | Path) -> None:
    """Set what is not followed to None, in place; what somebody may miss is warned of once.

    Args: where: the file that stores the options.
    """
    for name, value in options.items():
        if isinstance(value, dict):
            drop_unfollowed(value, where)
        elif not is_followed(name, value):
            options[name] = None
            if STORED.get(name) != NEEDLESS:
                warn_once(str(where), name, str(value)[:100])


def drop_from_checkpoint(checkpoint: Mapping[str, Any], where: str | Path) -> None:
    """As ``drop_unfollowed``, of what ``load_checkpoint`` gives."""
    for options in option_groups(checkpoint):
        drop_unfollowed(options, where)


def option_groups(checkpoint: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The groups of options of a checkpoint: ``args``, those of ``cfg``, those of joint tasks."""
    members = (checkpoint.get("task_state") or {}).get(MEMBERS) or {}
    groups = (checkpoint.get("cfg") or {}).values(), members.values()
    for group in (checkpoint.get("args"), *chain(*groups)):
        if isinstance(group, (dict, Namespace)):
            yield vars(group) if isinstance(group, Namespace) else group


@functools.lru_cache(maxsize=1000)
def warn_once(where: str, name: str, value: str) -> None:
    flag = "--" + name.strip("_").replace("_", "-")
    logger.warning(
        "%s: stores %s %r, which is ignored: a file does not choose code, or where to read or "
        "write; if you want it, give %s in this call",
        where,
        name,
        value,
        flag,
    )
