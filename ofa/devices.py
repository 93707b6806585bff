"""NVIDIA GPUs: how many this process sees, and whether a build of torch can use them.

``nvidia-smi`` answers in a tenth of a second and without torch: enough for a dry run and for
choosing a build. torch is asked before a run starts: it alone knows what CUDA will find.

``python -m ofa.devices TABLE``, which setup.sh asks, prints the build to install from a table such
as ``run_scripts/torch_versions.txt``: torch, torchvision and the reason, separated by tabs.
"""

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa.errors import UserError

if TYPE_CHECKING:  # imported only where it is needed: that takes seconds
    import torch

# Major version of CUDA -> smallest major version of the driver (CUDA's release notes, "minor
# version compatibility").
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
BF16_CAPABILITY = (8, 0)  # older GPUs have no instructions for it
SMI_SECONDS = 20  # it may hang for good where a driver has crashed
# The build for older GPUs and drivers, as in run_scripts/torch_versions.txt, which an installed
# copy does not have.
BUILD_OF_CUDA_12, ITS_OLDEST_GPU = "2.10.0", (7, 0)
# One of them is there where a GPU is, also in a container without nvidia-smi (Linux, Tegra, WSL).
DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg")
USE_CPU = "or use the CPU: --cpu or CUDA_VISIBLE_DEVICES=-1"

Capability = tuple[int, int]  # (7, 0) is sm_70


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch or nvidia-smi reports it. None: not reported."""

    name: str
    capability: Capability | None = None
    driver: int | None = None  # major version


# --- by nvidia-smi


def ask_nvidia_smi(*arguments: str) -> tuple[list[str] | None, str]:
    """Its lines, or None without an answer; and why there is none, if it is installed."""
    if shutil.which("nvidia-smi") is None:
        return None, ""
    how: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}
    try:
        done = subprocess.run(["nvidia-smi", *arguments], timeout=SMI_SECONDS, **how)
    except subprocess.TimeoutExpired:
        return None, f"nvidia-smi gives no answer within {SMI_SECONDS} s"
    except OSError as error:
        return None, f"nvidia-smi cannot be run: {error.strerror or error}"
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode == 0:
        return lines, "" if lines else "nvidia-smi lists no GPU"
    reason = next(iter(lines), done.stderr.strip().split("\n")[0]) or "no output"
    return None, f"nvidia-smi finds no GPU: {reason} (exit status {done.returncode})"


def listed_gpus() -> tuple[list[str] | None, str]:
    """UUIDs of the GPUs and their MIG slices, in the driver's order, or None where nvidia-smi is
    not installed; and a line that says why there are none."""
    lines, note = ask_nvidia_smi("-L")
    if lines is None:
        return ([] if note else None), note
    # "GPU 0: NVIDIA A100 (UUID: GPU-5d5b)", "MIG 1g.5gb Device 0: (UUID: MIG-c7d1)"
    found = [
        line.split("UUID:")[-1].strip(" )") for line in lines if line.startswith(("GPU", "MIG"))
    ]
    return found, note or ("" if found else f"nvidia-smi lists no GPU: {lines[0]}")


def count_visible(visible: str | None, uuids: Sequence[str] | None) -> int:
    """Number of GPUs that CUDA shows to a process.

    Args:
        visible: CUDA_VISIBLE_DEVICES, or None if it is not set. Numbers or beginnings of UUIDs,
            read up to the first entry that names no GPU (-1, none, NoDevFiles, a number too large);
            a repeated entry hides all GPUs.
        uuids: the GPUs there are; None: unknown, every number and UUID is believed.
    """
    chosen = list(uuids or [])
    if visible is not None:
        entries = [entry.strip() for entry in visible.split(",")]
        chosen = []
        for entry in entries:
            uuid = _resolve(entry, uuids)
            if not uuid or _kind(entry) != _kind(entries[0]):
                break
            chosen.append(uuid)
    if len(set(chosen)) < len(chosen):
        return 0
    # "CUDA can only enumerate a single compute instance" (NVIDIA's MIG user guide): one slice, and
    # then nothing else.
    has_slices = any(name.startswith("MIG") for name in [*chosen, *(uuids or [])])
    return min(len(chosen), 1) if has_slices else len(chosen)


def _kind(entry: str) -> str:
    return entry[:4] if entry.startswith(("GPU-", "MIG-")) else "number"


def _resolve(entry: str, uuids: Sequence[str] | None) -> str:
    """UUID of the GPU that an entry of CUDA_VISIBLE_DEVICES names (the entry where none is known),
    or ""."""
    if _kind(entry) == "number":
        number = re.match(r"\d+", entry)
        if number is None:
            return ""
        index = int(number[0])
        if uuids is None:
            return str(index)
        gpus = [uuid for uuid in uuids if not uuid.startswith("MIG")]
        return gpus[index] if index < len(gpus) else ""
    matches = [entry] if uuids is None else [uuid for uuid in uuids if uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else ""


def hidden() -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides every GPU there could be: empty, -1, none, ..."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible is not None and count_visible(visible, None) == 0


def count_without_torch() -> tuple[int, str]:
    """Number of GPUs by nvidia-smi and CUDA_VISIBLE_DEVICES, and a line that says why it is 0."""
    if hidden():
        return 0, ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    uuids, note = listed_gpus()
    count = count_visible(visible, uuids)
    if uuids:
        note = (
            f"CUDA_VISIBLE_DEVICES='{visible}' shows none of the {len(uuids)} GPUs of nvidia-smi -L"
        )
    return count, "" if count else note


def described_gpus() -> tuple[list[Gpu], str]:
    """Every GPU with compute capability and driver, by nvidia-smi; and a line that says why there
    is none."""
    lines, note = ask_nvidia_smi("--query-gpu=compute_cap,driver_version", "--format=csv,noheader")
    if lines is None and "compute_cap" in note:  # drivers before 510 do not know this field
        lines, note = ask_nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
        lines = lines and [f"[N/A], {line}" for line in lines]
    found = []
    for line in lines or []:  # "7.0, 535.104.05"; what the driver does not tell is "[N/A]"
        capability = re.match(r"\d+\.\d+(?=,)", line)
        driver = re.search(r", *(\d+)\.", line)
        if capability or driver:
            known = capability and _capability(capability[0])
            found.append(Gpu("GPU", known, driver and int(driver[1])))
    return found, note or ("" if found or not lines else f"nvidia-smi describes no GPU: {lines[0]}")


def half_precision() -> str:
    """``bf16`` if every GPU of this machine has instructions for it, by nvidia-smi; else
    ``fp16``."""
    gpus, _ = described_gpus()
    has = [gpu.capability is not None and gpu.capability >= BF16_CAPABILITY for gpu in gpus]
    return "bf16" if has and all(has) else "fp16"


# --- the build of torch


@dataclass(frozen=True)
class Build:
    """A row of ``run_scripts/torch_versions.txt``."""

    torch: str
    torchvision: str
    cuda: str
    oldest: Capability

    def misses(self, gpus: Sequence[Gpu]) -> str:
        """What keeps this build from one of the GPUs, in a few words, or ""."""
        needed, build = oldest_driver(self.cuda), f"torch {self.torch}"
        for gpu in gpus:
            if gpu.capability and gpu.capability < self.oldest:
                return f"a GPU of {_sm(gpu.capability)} ({build} starts at {_sm(self.oldest)})"
            if gpu.driver and gpu.driver < needed:
                return f"driver {gpu.driver} ({build} of CUDA {self.cuda} needs {needed})"
        return ""


def read_builds(path: str | Path) -> list[Build]:
    """The builds that are offered, the preferred one first."""
    lines = Path(path).read_text().splitlines()
    rows = [line.split() for line in lines if line.strip() and line[0] != "#"]
    return [Build(name, vision, cuda, _capability(oldest)) for name, vision, cuda, oldest in rows]


def _capability(text: str) -> Capability:
    """``"7.0"`` -> (7, 0)."""
    major, minor = map(int, text.split("."))
    return major, minor


def choose_build(
    builds: Sequence[Build], gpus: Sequence[Gpu], wanted: str = "", note: str = ""
) -> tuple[Build, str]:
    """The first build that every GPU can be used with, the last one if none is; and the reason.

    Args: wanted: OFA_TORCH. note: why no GPU was found.
    Raises: UserError if no build has the version wanted.
    """
    known = {build.torch: build for build in builds}
    if wanted and wanted not in known:
        raise UserError(f"OFA_TORCH: expects {' or '.join(known)}, found '{wanted}'")
    if wanted:
        return known[wanted], f"OFA_TORCH={wanted}"
    if not gpus:
        return builds[0], note or "no NVIDIA GPU found"
    missed = [build.misses(gpus) for build in builds]
    if not missed[0]:
        return builds[0], "it has kernels for every GPU found"
    if "" in missed:
        return builds[missed.index("")], f"found {missed[0]}"
    return builds[-1], f"the nearest; found {missed[-1]}"


def oldest_driver(cuda: str) -> int:
    """Smallest major version of the driver for a version of CUDA, e.g. 580 for "13.0"."""
    major = int(cuda.split(".")[0])
    return max((oldest for known, oldest in OLDEST_DRIVER.items() if known <= major), default=0)


def has_kernels(capability: Capability, architectures: Sequence[str]) -> bool:
    """Whether a build runs on a GPU. Args: architectures: as ``torch.cuda.get_arch_list()``: sm_75,
    sm_90a, compute_120.

    Machine code (sm) runs on its own major version from its minor version on, PTX (compute) on
    everything newer, and code with a letter on one GPU alone (a) or within its major version (f).
    """
    for architecture in architectures:
        if parts := re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture):
            built = int(parts[2]), int(parts[3])
            is_near = parts[4] != "a" and built[0] == capability[0]
            is_ptx = parts[1] == "compute" and not parts[4]
            if capability == built or (is_near or is_ptx) and capability > built:
                return True
    return False


def kernel_problem(
    gpus: Sequence[Gpu], torch_version: str, cuda: str, architectures: Sequence[str]
) -> str:
    """One line about the first GPU that a build of torch has no kernels for, or "" (also if
    they are not known)."""
    for number, gpu in enumerate(gpus):
        if gpu.capability and architectures and not has_kernels(gpu.capability, architectures):
            remedy = _another_build(cuda) if gpu.capability >= ITS_OLDEST_GPU else ""
            return (
                f"GPU {number} ({gpu.name}): torch {torch_version} has kernels for"
                f" {', '.join(architectures)}, found {_sm(gpu.capability)}; {remedy}hide this GPU"
                f" by CUDA_VISIBLE_DEVICES, {USE_CPU}"
            )
    return ""


def driver_problem(gpus: Sequence[Gpu], torch_version: str, cuda: str | None) -> str:
    """One line about a driver that is too old for a build of torch, or ""."""
    if not cuda:
        return ""
    needed = oldest_driver(cuda)
    old = min((gpu.driver for gpu in gpus if gpu.driver), default=needed)
    if old >= needed:
        return ""
    remedy = _another_build(cuda) if old >= OLDEST_DRIVER[12] else ""
    return (
        f"GPU driver: torch {torch_version} (CUDA {cuda}) needs version {needed} or newer, found"
        f" {old}; {remedy}update the driver, {USE_CPU}"
    )


def _another_build(cuda: str) -> str:
    """A remedy for a build of CUDA 13 or newer."""
    remedy = f"remove .venv and run OFA_TORCH={BUILD_OF_CUDA_12} bash run_scripts/setup.sh"
    return f"{remedy} (a build of CUDA 12), " if int(cuda.split(".")[0]) > 12 else ""


def _sm(capability: Capability) -> str:
    return "sm_{}{}".format(*capability)


# --- by torch


def usable_gpus() -> tuple[int, str]:
    """Number of GPUs that torch will use; torch is not imported where nothing speaks of a GPU.

    Returns: (number, a line that says why it is 0, or "").
    Raises: UserError if there is a GPU that this build of torch cannot use.
    """
    if hidden():
        return 0, ""
    if not any(Path(path).exists() for path in DEVICE_FILES):
        expected, note = count_without_torch()
        if expected == 0 or shutil.which("nvidia-smi") is None:
            return 0, note
    count, problem = gpus_of_torch()
    if problem:
        raise UserError(problem)
    return count, "" if count else "torch finds no GPU"


def default_device() -> str:
    """``cuda`` if there is a GPU, else ``cpu``. Raises: UserError if this build of torch cannot
    use the GPU."""
    import torch

    usable_gpus()
    return "cuda" if torch.cuda.is_available() else "cpu"


def gpus_of_torch() -> tuple[int, str]:
    """Number of GPUs that CUDA shows to torch, and one line about what keeps torch from using
    them, or ""."""
    import torch

    build, cuda = f"torch {torch.__version__}", torch.version.cuda
    with warnings.catch_warnings():  # torch warns of what is said here in one line
        warnings.simplefilter("ignore")
        if torch.cuda.is_available():
            # With MIG, device_count() may count GPUs that CUDA does not show (it asks the driver's
            # library).
            count = torch._C._cuda_getDeviceCount()
            if cuda is None:  # a build for AMD's GPUs
                return count, ""
            gpus = [
                Gpu(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i))
                for i in range(count)
            ]
            known = torch.cuda.get_arch_list()
            return count, kernel_problem(gpus, torch.__version__, cuda, known)
        expected = count_without_torch()[0] if shutil.which("nvidia-smi") else 0
        if cuda is None and expected:
            found = f"{build} is built without CUDA, found {expected} GPUs"
            return 0, f"{found}; install a CUDA build, {USE_CPU}"
        reason = "no reason given"
        try:
            if cuda is not None and not hidden():
                torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
        if expected == 0 and "driver on your system is too old" not in reason:
            return 0, ""
        problem = driver_problem(described_gpus()[0], torch.__version__, cuda)
        return 0, problem or f"{build} finds no GPU: {reason}; check the driver, {USE_CPU}"


def has_bf16(device: "str | torch.device") -> bool:
    """Whether bfloat16 has instructions there: a GPU from sm_80 on, or a CPU with matrix
    instructions (AMX).

    ``torch.cuda.is_bf16_supported()`` is true on older GPUs as well, which emulate it slowly.
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device) >= BF16_CAPABILITY
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def require_bf16(device: "str | torch.device") -> None:
    """Raises: UserError if ``device`` is a GPU without bfloat16."""
    import torch

    if torch.device(device).type == "cuda" and not has_bf16(device):
        raise UserError(
            f"bf16: expects a GPU of sm_80 or newer, found {torch.cuda.get_device_name(device)} "
            f"({_sm(torch.cuda.get_device_capability(device))}); use fp16 (--fp16, PRECISION=fp16)"
        )


if __name__ == "__main__":
    try:
        wanted = os.environ.get("OFA_TORCH", "")
        gpus, note = ([], "") if wanted else described_gpus()
        build, reason = choose_build(read_builds(sys.argv[1]), gpus, wanted, note)
        print(f"{build.torch}\t{build.torchvision}\tfor CUDA {build.cuda}: {reason}")
    except UserError as error:
        sys.exit(f"error: {error}")
