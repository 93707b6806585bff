"""The machine and its libraries: what training and scoring need, and what is there."""

import importlib.metadata
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ofa import devices

OK, NOTE, FAULT = "ok", "note", "fault"
PYTHON = (3, 11)
FREE_DISK = 5e9  # bytes: a checkpoint of ofa_large with its optimizer takes as much
FREE_SHARED = 1e9  # bytes of /dev/shm: worker processes hand their batches over through it
OPEN_FILES = 1024
LIBRARIES = (
    "torchvision",
    "numpy",
    "PIL",
    "sentencepiece",
    "tokenizers",
    "tqdm",
    "jinja2",
    "sacrebleu",
    "rouge_score",
    "pycocoevalcap",
)


@dataclass(frozen=True)
class Check:
    """One thing looked at. Args: state: OK, NOTE (works, with less) or FAULT. fix: what to do,
    unless it is fine."""

    name: str
    state: str
    found: str
    fix: str = ""

    def line(self) -> str:
        return f"environment:{self.name} {self.state} - {self.found}" + (
            f" - {self.fix}" if self.fix else ""
        )


def check_environment(folder: str = ".") -> list[Check]:
    """Every check. Args: folder: where results will be written."""
    return [check for part in CHECKS for check in part(folder)]


def _python(folder: str) -> Iterator[Check]:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= PYTHON:
        yield Check("python", OK, found)
    else:
        yield Check("python", FAULT, found, "use Python 3.11 or 3.12: bash run_scripts/setup.sh")


def _torch(folder: str) -> Iterator[Check]:
    try:
        import torch
        import torchvision
        import torchvision.ops  # fails where the two were built for different releases

        torch.ones(2) @ torch.ones(2)
    except Exception as error:  # a broken build raises nearly anything
        yield Check(
            "torch",
            FAULT,
            f"{type(error).__name__}: {error}",
            "install matching torch and torchvision: bash run_scripts/setup.sh",
        )
        return
    yield Check(
        "torch",
        OK,
        f"{torch.__version__}, torchvision {torchvision.__version__}, {torch.get_num_threads()}"
        " threads",
    )


def _fairseq(folder: str) -> Iterator[Check]:
    versions = {}
    for name in ("fairseq-fixed", "fairseq"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if importlib.util.find_spec("fairseq") is None or "fairseq-fixed" not in versions:
        found = ", ".join(f"{name} {version}" for name, version in versions.items()) or "no fairseq"
        yield Check(
            "fairseq",
            FAULT,
            found,
            "pip install fairseq-fixed==0.12.3.1 (fairseq 0.12.2 fails on Python 3.11 and later)",
        )
    elif "fairseq" in versions:
        yield Check(
            "fairseq",
            FAULT,
            "both fairseq and fairseq-fixed, which overwrite each other's files",
            "pip uninstall both, then pip install fairseq-fixed==0.12.3.1",
        )
    else:
        yield Check("fairseq", OK, f"fairseq-fixed {versions['fairseq-fixed']}")


def _libraries(folder: str) -> Iterator[Check]:
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        yield Check(
            "libraries",
            FAULT,
            f"without {', '.join(missing)}",
            "bash run_scripts/setup.sh, or pip install them",
        )
    else:
        yield Check("libraries", OK, f"all {len(LIBRARIES)} of them")


def _java(folder: str) -> Iterator[Check]:
    path = shutil.which("java")
    works = False
    if path:
        try:
            works = (
                subprocess.run([path, "-version"], capture_output=True, timeout=30).returncode == 0
            )
        except (OSError, subprocess.TimeoutExpired):
            works = False
    if path and works:
        yield Check("java", OK, path)
    else:
        yield Check(
            "java",
            NOTE,
            "none" if not path else f"{path}, which does not run",
            "only METEOR and SPICE need it: install a Java runtime, version 8 or later",
        )


def _disk(folder: str) -> Iterator[Check]:
    places = {
        "disk": (folder, FREE_DISK, "free some, or write elsewhere"),
        "temporary": (tempfile.gettempdir(), FREE_DISK / 5, "free some, or set TMPDIR"),
    }
    if os.path.isdir("/dev/shm"):
        places["shared-memory"] = (
            "/dev/shm",
            FREE_SHARED,
            "give the container more (docker run --shm-size=8g), or --num-workers 0",
        )
    for name, (place, needed, fix) in places.items():
        free = shutil.disk_usage(place).free
        found = f"{free / 1e9:.1f} GB free in {os.path.abspath(place)}"
        if not os.access(place, os.W_OK):
            yield Check(
                name,
                FAULT,
                f"{os.path.abspath(place)} cannot be written to",
                "repair its permissions, or write elsewhere",
            )
        elif free < needed:
            yield Check(name, NOTE, f"{found}, less than {needed / 1e9:.0f} GB", fix)
        else:
            yield Check(name, OK, found)


def _machine(folder: str) -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    yield Check("processor", OK, f"{cores} cores, {memory:.0f} GB memory")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and limit < OPEN_FILES:
        yield Check(
            "open-files", NOTE, f"{limit} at most", "ulimit -n 4096, for many worker processes"
        )


def _gpu(folder: str) -> Iterator[Check]:
    try:
        import torch
    except Exception:  # said by _torch
        return
    count, problem = devices.gpus_of_torch()
    for number in range(count):
        facts = torch.cuda.get_device_properties(number)
        yield Check(
            f"gpu{number}",
            OK,
            f"{facts.name}, sm_{facts.major}{facts.minor}, {facts.total_memory / 1e9:.0f} GB, "
            f"bf16 {'yes' if devices.has_bf16(f'cuda:{number}') else 'no'}",
        )
    if problem:
        found, _, fix = problem.partition("; ")
        yield Check("gpu", FAULT, found, fix)
    elif count == 0 and devices.hidden():
        yield Check(
            "gpu", NOTE, "hidden by CUDA_VISIBLE_DEVICES", "unset it to train and evaluate on a GPU"
        )
    elif count == 0 and shutil.which("nvidia-smi"):
        yield Check(
            "gpu",
            FAULT,
            devices.count_without_torch()[1] or "an NVIDIA driver, but torch sees no device",
            "check nvidia-smi and that the driver is loaded; without a GPU, all works on the CPU",
        )
    elif count == 0:
        yield Check(
            "gpu",
            NOTE,
            "none",
            "trains and evaluates on the processor: fit for ofa_nano and ofa_tiny",
        )


CHECKS: tuple[Callable[[str], Iterator[Check]], ...] = (
    _python,
    _torch,
    _fairseq,
    _libraries,
    _java,
    _disk,
    _machine,
    _gpu,
)
