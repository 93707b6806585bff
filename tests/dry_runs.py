"""What a script of ``run_scripts/`` would run."""

import os
import shlex
import subprocess
from pathlib import Path

from programs import interpreter

ROOT = Path(__file__).resolve().parents[1]


def dry_run(script: Path, *arguments: str, **settings: str) -> list[str]:
    """Words of the command that a script would run, started from another directory."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    environment |= {"DRY_RUN": "1", "OFA_EXECUTABLE": interpreter(), "CUDA_VISIBLE_DEVICES": ""}
    environment |= settings
    result = subprocess.run(
        ["bash", script, *arguments], capture_output=True, text=True, cwd="/", env=environment
    )
    assert result.returncode == 0, result.stderr
    return shlex.split(result.stdout)


def after(words: list[str], module: str) -> list[str]:
    return words[words.index(module) + 1 :]
