"""A training command as a dict of all its options, the defaults among them."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from ofa.checkpoints.contents import training_settings
from ofa.errors import UserError

TRAINER = "fairseq_cli.train"


def settings_of_command(arguments: list[str]) -> dict[str, Any]:
    """Args: arguments: of ``fairseq-train``. Ends the process if a flag is wrong."""
    parsed = options.parse_args_and_arch(options.get_training_parser(), arguments)
    config = convert_namespace_to_omegaconf(parsed)
    return training_settings(
        {"cfg": OmegaConf.to_container(config, resolve=True, enum_to_str=True)}
    )


def command_of_script(script: str | Path, flags: list[str]) -> list[str]:
    """The arguments that a run script gives to fairseq: what it prints with DRY_RUN=1. Raises:
    UserError if the script fails or trains nothing."""
    found = subprocess.run(
        ["bash", str(script), *flags],
        env={**os.environ, "DRY_RUN": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    words = [shlex.split(line) for line in found.stdout.splitlines() if TRAINER in line]
    if found.returncode or not words:
        reason = (found.stderr.strip().splitlines() or ["it starts no training"])[-1]
        raise UserError(
            f"{script}: expected a run script that trains, found: {reason}; name one of"
            " run_scripts/*/train*.sh"
        )
    return words[-1][words[-1].index(TRAINER) + 1 :]
