"""Counting GPUs, and telling which builds of torch can use them, on machines made of text."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from ofa import devices
from ofa.devices import (
    Gpu,
    choose_build,
    count_visible,
    driver_problem,
    has_kernels,
    kernel_problem,
    read_builds,
)
from ofa.errors import UserError
from ofa.io import jobs

ROOT = Path(__file__).resolve().parents[2]
BUILDS = read_builds(ROOT / "run_scripts/torch_versions.txt")
NEW, OLD = BUILDS
ARCHITECTURES = {  # torch.cuda.get_arch_list() of the wheels on PyPI
    "2.11.0": ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
    "2.10.0": ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
}
V100, T4, H100 = Gpu("V100", (7, 0), 580), Gpu("T4", (7, 5), 580), Gpu("H100", (9, 0), 580)
TWO = ["GPU-aa11", "GPU-ab22"]


@pytest.mark.parametrize("setting, threads", [("3", 3), ("3,2", 3), ("", 5), ("0", 5), ("x", 5)])
def test_torch_has_the_threads_of_its_setting_or_one_per_core(monkeypatch, setting, threads):
    monkeypatch.setattr(jobs, "count_cores", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert jobs.count_threads() == threads


def test_cores_are_counted_where_a_process_is_bound_to_none(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert jobs.count_cores() == 7


SLICED = ["GPU-aa11", "MIG-c1", "MIG-c2"]


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Function: shell commands -> they are what nvidia-smi does from now on."""

    def replace(commands: str) -> None:
        program = tmp_path / "bin/nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{commands}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return replace


@pytest.mark.parametrize(
    "visible, uuids, count",
    [
        (None, TWO, 2),
        (None, [], 0),
        (None, None, 0),
        ("", TWO, 0),
        ("-1", TWO, 0),
        ("none", TWO, 0),
        ("NoDevFiles", TWO, 0),
        ("-1,0", TWO, 0),
        ("0,-1,1", TWO, 1),
        ("0,1", TWO, 2),
        (" 1 , 0", TWO, 2),
        ("0,7,1", TWO, 1),
        ("1,1", TWO, 0),
        ("0,,1", TWO, 1),
        ("GPU-aa11", TWO, 1),
        ("GPU-ab,GPU-aa", TWO, 2),
        ("GPU-a", TWO, 0),
        ("GPU-ff", TWO, 0),
        ("GPU-aa11,1", TWO, 1),
        ("0,GPU-ab22", TWO, 1),
        ("0,1", None, 2),
        ("GPU-aa", None, 1),
        ("-1", None, 0),
        ("0", [], 0),
        (None, SLICED, 1),
        ("MIG-c2", SLICED, 1),
        ("MIG-c1,MIG-c2", SLICED, 1),
        ("MIG-c9", SLICED, 0),
        ("0", SLICED, 1),
        ("MIG-GPU-aa11/1/0", None, 1),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_does(visible, uuids, count):
    assert count_visible(visible, uuids) == count


@pytest.mark.parametrize(
    "commands, count, note",
    [
        (
            "echo 'GPU 0: NVIDIA A100 (UUID: GPU-aa)'; echo 'GPU 1: NVIDIA A100 (UUID: GPU-ab)'",
            2,
            "",
        ),
        (
            (
                "echo 'GPU 0: NVIDIA A100 (UUID: GPU-aa)'; echo '  MIG 1g.5gb     Device  0: (UUID:"
                " MIG-c1)'"
            ),
            1,
            "",
        ),
        ("echo 'could not talk to the driver'; exit 9", 0, "could not talk to the driver"),
        ("echo 'No devices were found'; exit 6", 0, "No devices were found"),
        ("echo 'No devices were found'", 0, "No devices were found"),
        ("exit 0", 0, "lists no GPU"),
        ("echo broken >&2; exit 1", 0, "broken"),
        ("exit 127", 0, "no output"),
    ],
)
def test_nvidia_smi_counts_or_says_in_one_line_why_it_does_not(nvidia_smi, commands, count, note):
    nvidia_smi(commands)
    found, text = devices.count_without_torch()
    assert found == count and note in text and "\n" not in text and bool(text) == (count == 0)


def test_nvidia_smi_that_hangs_is_given_up(nvidia_smi, monkeypatch):
    nvidia_smi("exec sleep 30")
    monkeypatch.setattr(devices, "SMI_SECONDS", 0.2)
    assert devices.count_without_torch() == (0, "nvidia-smi gives no answer within 0.2 s")


def test_hidden_gpus_are_not_asked_for(nvidia_smi, monkeypatch, tmp_path):
    nvidia_smi(f"touch {tmp_path}/asked")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert (
        devices.count_without_torch() == devices.usable_gpus() == (0, "")
        and not (tmp_path / "asked").exists()
    )


@pytest.mark.parametrize(
    "commands, found",
    [
        (
            "echo '7.0, 535.104.05'; echo '9.0, 535.104.05'",
            [Gpu("GPU", (7, 0), 535), Gpu("GPU", (9, 0), 535)],
        ),
        ("echo '[N/A], 580.65'", [Gpu("GPU", None, 580)]),
        ("echo '8.0, [N/A]'", [Gpu("GPU", (8, 0), None)]),
        ("echo '[N/A], [N/A]'", []),
        ("exit 0", []),
        ("echo 'No devices were found'; exit 6", []),
        (
            (
                'case "$*" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to'
                " query.'; exit 2 ;; *) echo 470.82.01 ;; esac"
            ),
            [Gpu("GPU", None, 470)],
        ),
    ],
)
def test_compute_capability_and_driver_are_read_as_far_as_they_are_told(
    nvidia_smi, commands, found
):
    nvidia_smi(commands)
    gpus, note = devices.described_gpus()
    assert gpus == found and bool(note) == (not found)


@pytest.mark.parametrize(
    "gpus, build, reason",
    [
        ([], NEW, "no NVIDIA GPU"),
        ([T4], NEW, "every GPU"),
        ([H100], NEW, "every GPU"),
        ([V100], OLD, "sm_70"),
        ([H100, V100], OLD, "sm_70"),
        ([Gpu("GPU", (9, 0), 535)], OLD, "driver 535"),
        ([Gpu("GPU", None, 570)], OLD, "driver 570"),
        ([Gpu("GPU", None, 580)], NEW, "every GPU"),
        ([Gpu("GPU", (9, 0), None)], NEW, "every GPU"),
        ([Gpu("GPU", (6, 0), 580)], OLD, "nearest"),
        ([Gpu("GPU", (9, 0), 470)], OLD, "nearest"),
    ],
)
def test_the_build_follows_the_oldest_gpu_and_the_driver(gpus, build, reason):
    chosen, why = choose_build(BUILDS, gpus)
    assert chosen == build and reason in why


def test_a_wanted_build_is_taken_and_an_unknown_one_refused():
    assert choose_build(BUILDS, [H100], OLD.torch)[0] == OLD
    with pytest.raises(UserError, match="OFA_TORCH: expects 2.11.0 or 2.10.0, found '2.9.1'"):
        choose_build(BUILDS, [], "2.9.1")


@pytest.mark.parametrize(
    "capability, architectures, runs",
    [
        ((7, 0), ARCHITECTURES["2.11.0"], False),
        ((7, 0), ARCHITECTURES["2.10.0"], True),
        ((8, 9), ["sm_86"], True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_86"], False),
        ((9, 0), ["sm_86", "compute_86"], True),
        ((7, 0), ["compute_80"], False),
        ((12, 1), ["sm_120"], True),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100a"], False),
        ((10, 3), ["sm_100f"], True),
        ((12, 0), ["sm_100", "compute_90a"], False),
        ((7, 0), [], False),
    ],
)
def test_code_runs_within_its_major_version_and_ptx_on_everything_newer(
    capability, architectures, runs
):
    assert has_kernels(capability, architectures) == runs


def test_a_v100_is_refused_with_the_build_that_serves_it():
    problem = kernel_problem([H100, V100], "2.11.0", "13.0", ARCHITECTURES["2.11.0"])
    assert (
        problem.startswith("GPU 1 (V100): torch 2.11.0 has kernels for sm_75,")
        and "\n" not in problem
    )
    assert f"OFA_TORCH={OLD.torch} bash run_scripts/setup.sh" in problem and "--cpu" in problem
    assert (devices.BUILD_OF_CUDA_12, devices.ITS_OLDEST_GPU) == (
        OLD.torch,
        OLD.oldest,
    ) and OLD.cuda.startswith("12.")


def test_gpus_with_kernels_are_not_refused():
    assert kernel_problem([V100, H100], "2.10.0", "12.8", ARCHITECTURES["2.10.0"]) == ""
    assert kernel_problem([T4, H100], "2.11.0", "13.0", ARCHITECTURES["2.11.0"]) == ""
    assert (
        kernel_problem([V100], "2.11.0", "13.0", [])
        == kernel_problem([], "2.11.0", "13.0", ["sm_75"])
        == ""
    )


def test_no_build_is_recommended_to_a_gpu_that_none_serves():
    problem = kernel_problem([Gpu("P100", (6, 0))], "2.11.0", "13.0", ARCHITECTURES["2.11.0"])
    assert "sm_60" in problem and "setup.sh" not in problem


@pytest.mark.parametrize(
    "driver, cuda, refused, other_build",
    [
        (580, "13.0", False, False),
        (570, "13.0", True, True),
        (535, "13.0", True, True),
        (470, "13.0", True, False),
        (570, "12.8", False, False),
        (525, "12.8", False, False),
        (470, "12.8", True, False),
        (None, "13.0", False, False),
    ],
)
def test_a_driver_too_old_for_the_build_is_refused(driver, cuda, refused, other_build):
    problem = driver_problem([Gpu("GPU", (9, 0), driver)], "2.x", cuda)
    assert bool(problem) == refused and ("OFA_TORCH=2.10.0" in problem) == other_build
    assert not refused or f"found {driver}" in problem and "--cpu" in problem


def test_torch_that_finds_no_gpu_behind_an_old_driver_is_refused(nvidia_smi, monkeypatch):
    nvidia_smi(
        'case "$*" in -L) echo "GPU 0: NVIDIA H100 (UUID: GPU-aa)" ;; *) echo "9.0, 470.82.01" ;;'
        " esac"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(UserError, match=r"needs version 580 or newer, found 470"):
        devices.usable_gpus()


def test_an_old_driver_is_refused_without_nvidia_smi_too(monkeypatch):
    """As in a container: the device files are there, the program is not."""

    def init():
        raise RuntimeError(
            "The NVIDIA driver on your system is too old (found version 11040). Please"
            " update.\nmore"
        )

    monkeypatch.setattr(devices, "DEVICE_FILES", ("/",))
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(
        UserError,
        match=r"finds no GPU: The NVIDIA driver on your system is too old \(found version 11040\)",
    ):
        devices.usable_gpus()


def test_torch_without_cuda_beside_a_gpu_is_refused(nvidia_smi, monkeypatch):
    nvidia_smi('echo "GPU 0: NVIDIA H100 (UUID: GPU-aa)"')
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match="is built without CUDA, found 1 GPUs"):
        devices.usable_gpus()


@pytest.fixture
def v100(monkeypatch):
    """torch as on a machine with one V100."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "DEVICE_FILES", ("/",))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 1, raising=False)
    for name, value in {
        "is_available": True,
        "device_count": 8,
        "get_device_name": "Tesla V100",
        "get_device_capability": (7, 0),
        "get_arch_list": ARCHITECTURES["2.11.0"],
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)


def test_torch_without_kernels_is_refused_before_the_start(v100):
    with pytest.raises(UserError, match=r"GPU 0 \(Tesla V100\).*OFA_TORCH=2.10.0"):
        devices.usable_gpus()


def test_gpus_are_counted_by_cuda_itself(v100, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ARCHITECTURES["2.10.0"])
    assert devices.usable_gpus() == (1, "")


def test_bf16_on_a_gpu_without_it_is_refused_with_a_remedy(v100):
    assert not devices.has_bf16("cuda:0")
    with pytest.raises(
        UserError,
        match=r"bf16: expects a GPU of sm_80 or newer, found Tesla V100 \(sm_70\); use fp16",
    ):
        devices.require_bf16("cuda:0")
    devices.require_bf16("cpu")


def test_evaluation_refuses_a_gpu_that_torch_cannot_use_and_bf16_without_instructions(
    v100, monkeypatch
):
    from ofa.inference.predictor import choose_device

    with pytest.raises(UserError, match="Tesla V100"):
        choose_device(None)
    assert choose_device("cpu", precision="bf16").type == "cpu"
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ARCHITECTURES["2.10.0"])
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert choose_device(None, precision="fp16").type == "cuda"
    assert choose_device("cuda:0").index == 0
    with pytest.raises(UserError, match="'cuda:8': expected the number of a GPU, from 0 to 7"):
        choose_device("cuda:8")
    with pytest.raises(UserError, match="bf16"):
        choose_device(None, precision="bf16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_gpus_of_this_machine_are_counted():
    assert devices.usable_gpus()[0] == torch.cuda.device_count() and shutil.which("nvidia-smi")
