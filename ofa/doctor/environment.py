"""The machine and its libraries: what training and scoring need, and what is there."""

import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ofa import devices
from ofa.io.jobs import count_cores, memory_size

OK, NOTE, FAULT = "ok", "note", "fault"
PYTHON = (3, 11)
FREE_DISK = 5e9  # bytes: a checkpoint of ofa_large with its optimizer takes as much
FREE_SHARED = 1e9  # bytes of /dev/shm: worker processes hand their batches over through it
OPEN_FILES = 1024
LIBRARIES = (
    *("torchvision", "numpy", "PIL", "sentencepiece", "tokenizers", "tqdm", "jinja2"),
    *("sacrebleu", "rouge_score", "pycocoevalcap"),
)
SETUP = "bash run_scripts/setup.sh"
FAIRSEQ = "fairseq-fixed==0.12.3.1"


@dataclass(frozen=True)
class Check:
    """One thing looked at. Args: state: OK, NOTE (works, with less) or FAULT. fix: what to do,
    unless it is fine."""

    name: str
    state: str
    found: str
    fix: str = ""

    def line(self) -> str:
        fix = f" - {self.fix}" if self.fix else ""
        return f"environment:{self.name} {self.state} - {self.found}{fix}"


def check_environment() -> list[Check]:
    """Every check. Results are taken to be written to the current folder."""
    return [*_software(), *_machine(), *_gpus()]


def _judged(name: str, is_fine: bool, found: str, fix: str, otherwise: str = FAULT) -> Check:
    return Check(name, OK, found) if is_fine else Check(name, otherwise, found, fix)


def _software() -> Iterator[Check]:
    fix = f"use Python 3.11 or 3.12: {SETUP}"
    yield _judged("python", sys.version_info >= PYTHON, platform.python_version(), fix)
    yield _torch()
    yield _fairseq()
    missing = ", ".join(name for name in LIBRARIES if importlib.util.find_spec(name) is None)
    found = f"without {missing}" if missing else f"all {len(LIBRARIES)} of them"
    yield _judged("libraries", not missing, found, f"{SETUP}, or pip install them")
    java, runs = shutil.which("java"), False
    with suppress(OSError, subprocess.TimeoutExpired):
        if java:
            command = [java, "-version"]
            runs = subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    found = (java if runs else f"{java}, which does not run") if java else "none"
    fix = "only METEOR and SPICE need it: install a Java runtime, version 8 or later"
    yield _judged("java", runs, found, fix, NOTE)


def _torch() -> Check:
    try:
        import torch
        import torchvision
        import torchvision.ops  # fails where the two were built for different releases

        torch.ones(2) @ torch.ones(2)
    except Exception as error:  # a broken build raises nearly anything
        found = f"{type(error).__name__}: {error}"
        return Check("torch", FAULT, found, f"install matching torch and torchvision: {SETUP}")
    versions = f"{torch.__version__}, torchvision {torchvision.__version__}"
    return Check("torch", OK, f"{versions}, {torch.get_num_threads()} threads")


def _fairseq() -> Check:
    versions = {}
    for name in ("fairseq-fixed", "fairseq"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    found = ", ".join(f"{name} {version}" for name, version in versions.items()) or "no fairseq"
    fix = f"pip install {FAIRSEQ} (fairseq 0.12.2 fails on Python 3.11 and later)"
    if len(versions) == 2:
        found = "both fairseq and fairseq-fixed, which overwrite each other's files"
        fix = f"pip uninstall both, then pip install {FAIRSEQ}"
    is_whole = importlib.util.find_spec("fairseq") is not None
    return _judged("fairseq", is_whole and [*versions] == ["fairseq-fixed"], found, fix)


def _machine() -> Iterator[Check]:
    fix = "give the container more (docker run --shm-size=8g), or --num-workers 0"
    for name, place, needed, remedy in (
        ("disk", os.getcwd(), FREE_DISK, "free some, or write elsewhere"),
        ("temporary", tempfile.gettempdir(), FREE_DISK / 5, "free some, or set TMPDIR"),
        ("shared-memory", "/dev/shm", FREE_SHARED, fix),
    ):
        if not os.path.isdir(place):  # there is no /dev/shm everywhere
            continue
        if not os.access(place, os.W_OK):
            remedy = "repair its permissions, or write elsewhere"
            yield Check(name, FAULT, f"{place} cannot be written to", remedy)
            continue
        free = shutil.disk_usage(place).free
        found = f"{free / 1e9:.1f} GB free in {place}"
        less = "" if free >= needed else f", less than {needed / 1e9:.0f} GB"
        yield _judged(name, not less, found + less, remedy, NOTE)
    cores = count_cores()
    yield Check("processor", OK, f"{cores} cores, {memory_size() / 1e9:.0f} GB memory")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and limit < OPEN_FILES:
        fix = "ulimit -n 4096, for many worker processes"
        yield Check("open-files", NOTE, f"{limit} at most", fix)


def _gpus() -> Iterator[Check]:
    try:
        import torch
    except Exception:  # said by _torch
        return
    count, problem = devices.gpus_of_torch()
    for number in range(count):
        facts = torch.cuda.get_device_properties(number)
        bf16 = "yes" if devices.has_bf16(f"cuda:{number}") else "no"
        found = f"{facts.name}, sm_{facts.major}{facts.minor}, {facts.total_memory / 1e9:.0f} GB"
        yield Check(f"gpu{number}", OK, f"{found}, bf16 {bf16}")
    if count and not problem:
        return
    state, found, fix = FAULT, "", ""
    if problem:
        found, _, fix = problem.partition("; ")
    elif devices.hidden():
        state, found = NOTE, "hidden by CUDA_VISIBLE_DEVICES"
        fix = "unset it to train and evaluate on a GPU"
    elif shutil.which("nvidia-smi"):
        found = devices.count_without_torch()[1] or "an NVIDIA driver, but torch sees no device"
        fix = "check nvidia-smi and that the driver is loaded; without a GPU, all works on the CPU"
    else:
        state, found = NOTE, "none"
        fix = "trains and evaluates on the processor: fit for ofa_nano and ofa_tiny"
    yield Check("gpu", state, found, fix)
