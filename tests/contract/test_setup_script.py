"""run_scripts/setup.sh: idempotent, locked, and clear when it cannot continue (the installation
itself is not repeated here)."""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]


def fingerprint() -> str:
    requirements = (ROOT / "pyproject.toml").read_text().partition("[tool.ruff]")[0]
    others = [(ROOT / name).read_text() for name in ("setup.py", "run_scripts/torch_versions.txt")]
    parts = [text.encode() for text in (requirements, *others)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def mark_ready(venv: Path, torch: str = "2.11.0") -> None:
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    if not (venv / "bin/python").exists():
        (venv / "bin/python").symlink_to(sys.executable)
    (venv / ".ofa-setup").write_text(f"{fingerprint()}\n{torch}\n")


def program(path: Path, commands: str) -> Path:
    """Write an executable that takes the place of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{commands}\n")
    path.chmod(0o755)
    return path


def python_with(folder: Path, torch: str = "", torchvision: str = "") -> str:
    """This interpreter, with other versions of torch and torchvision (or none), and unable to
    make an environment."""
    found = {"('torch')": torch, "('torchvision')": torchvision}
    cases = "\n".join(
        f'*"{name}"*) {f"echo {version}" if version else "exit 1"} ;;'
        for name, version in found.items()
    )
    return str(
        program(
            folder / "python",
            f'case "$*" in\n{cases}\n*"-m venv"*) exit 7 ;;\n*) exec {sys.executable} "$@"'
            " ;;\nesac",
        )
    )


def start(venv: Path, **settings: str) -> subprocess.Popen:
    environment = (
        {
            name: value
            for name, value in os.environ.items()
            if name not in ("OFA_TORCH", "OFA_PYTHON")
        }
        | {"OFA_VENV": str(venv)}
        | settings
    )
    command = ["bash", str(ROOT / "run_scripts/setup.sh")]
    return subprocess.Popen(
        command, env=environment, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_finished_environment_is_left_alone(tmp_path):
    mark_ready(tmp_path / "venv")
    process = start(tmp_path / "venv")
    assert process.communicate(timeout=30) == ("", "") and process.returncode == 0


def test_a_second_call_waits_for_the_first_and_then_has_nothing_to_do(tmp_path):
    venv = tmp_path / "venv"
    with open(f"{venv}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(venv)
        assert "waiting" in process.stdout.readline()
        assert process.poll() is None
        mark_ready(venv)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize(
    "python, finding", [("/nowhere/python", "found ''"), ("/bin/false", "found ''")]
)
def test_an_unfit_interpreter_is_named(tmp_path, python, finding):
    process = start(tmp_path / "venv", OFA_PYTHON=python)
    _, error = process.communicate(timeout=30)
    assert (
        process.returncode == 2 and "OFA_PYTHON" in error and finding in error and python in error
    )
    assert not (tmp_path / "venv").exists()


V100, H100 = "7.0, 580.65.06", "9.0, 580.65.06"


@pytest.mark.parametrize(
    "nvidia_smi, version, reason",
    [
        (f"echo '{H100}'", "2.11.0", "it has kernels for every GPU found"),
        (f"echo '{V100}'", "2.10.0", "found a GPU of sm_70"),
        (f"echo '{H100}'; echo '{V100}'", "2.10.0", "found a GPU of sm_70"),
        ("echo '9.0, 535.104.05'", "2.10.0", "found driver 535"),
        ("echo '[N/A], 535.104.05'", "2.10.0", "found driver 535"),
        ("echo '[N/A], [N/A]'", "2.11.0", "[N/A]"),
        ("exit 0", "2.11.0", "lists no GPU"),
        ("echo 'no driver is running'; exit 9", "2.11.0", "no driver is running"),
        ("exit 6", "2.11.0", "exit status 6"),
    ],
)
def test_the_gpus_decide_which_torch_is_installed_and_the_reason_is_said(
    tmp_path, nvidia_smi, version, reason
):
    program(tmp_path / "bin/nvidia-smi", nvidia_smi)
    process = start(
        tmp_path / "venv",
        OFA_PYTHON=python_with(tmp_path),
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    )
    output, error = process.communicate(timeout=60)
    (line,) = (line for line in output.splitlines() if "CUDA" in line)
    assert f"torch {version} for CUDA" in line and reason in line
    assert process.returncode == 7 and "ended with status 7" in error, (
        "no environment can be made here: nothing is installed"
    )


def test_the_torch_that_is_asked_for_is_taken_whatever_the_gpus(tmp_path):
    program(tmp_path / "bin/nvidia-smi", f"echo '{H100}'")
    settings = {
        "OFA_PYTHON": python_with(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    output, _ = start(tmp_path / "venv", OFA_TORCH="2.10.0", **settings).communicate(timeout=60)
    assert "torch 2.10.0 for CUDA 12.8: OFA_TORCH=2.10.0" in output
    process = start(tmp_path / "venv", OFA_TORCH="1.13", **settings)
    assert (
        process.communicate(timeout=60)[1]
        == "error: OFA_TORCH: expects 2.11.0 or 2.10.0, found '1.13'\n"
        and process.returncode == 2
    )


def test_a_finished_environment_with_another_torch_than_asked_for_says_what_to_do(tmp_path):
    mark_ready(tmp_path / "venv", torch="2.11.0")
    (tmp_path / "venv/bin/python").unlink()
    python_with(tmp_path / "venv/bin", "2.11.0+cu130", "0.26.0")
    assert start(tmp_path / "venv", OFA_TORCH="2.11.0").wait(timeout=30) == 0
    process = start(tmp_path / "venv", OFA_TORCH="2.10.0", OFA_PYTHON=sys.executable)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and len(error.splitlines()) == 1
    assert (
        "OFA_TORCH=2.10.0, but" in error
        and "has torch 2.11.0+cu130" in error
        and f"remove {tmp_path / 'venv'}" in error
    )


def test_a_finished_environment_is_not_asked_for_gpus(tmp_path):
    """Every training comes by here, and nvidia-smi can take seconds."""
    program(tmp_path / "bin/nvidia-smi", f"touch {tmp_path}/asked")
    mark_ready(tmp_path / "venv")
    assert (
        start(tmp_path / "venv", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}").wait(timeout=30)
        == 0
    )
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    "torch, torchvision, finding",
    [
        ("2.6.0+cu124", "0.21.0", "found 2.6.0+cu124"),
        ("2.12.0", "0.27.0", "found 2.12.0"),
        ("2.11.0a0+nv25", "0.26.0", "found 2.11.0a0+nv25"),
        ("2.10.0", "", "no torchvision beside it"),
    ],
)
def test_an_interpreter_with_an_unfit_torch_is_refused_in_one_line(
    tmp_path, torch, torchvision, finding
):
    python = python_with(tmp_path, torch, torchvision)
    process = start(tmp_path / "venv", OFA_PYTHON=python)
    _, error = process.communicate(timeout=60)
    assert (
        process.returncode == 2
        and len(error.splitlines()) == 1
        and finding in error
        and python in error
    )
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("torch", ["2.10.0", "2.11.1+cu130"])
def test_an_interpreter_with_a_fitting_torch_keeps_it(tmp_path, torch):
    process = start(tmp_path / "venv", OFA_PYTHON=python_with(tmp_path, torch, "0.25.0"))
    assert (
        f"torch {torch} is there: {tmp_path / 'python'}" in process.communicate(timeout=60)[0]
        and process.returncode == 7
    )


def test_the_torch_of_a_python_that_was_only_found_does_not_count(tmp_path):
    """Nobody asked for it: the environment is made without it."""
    asked = python_with(tmp_path, "2.6.0", "0.21.0")
    program(
        tmp_path / "bin/python3.12",
        'case "$*" in *"print(sys.executable)"*) echo "$0" ;; *"sys.version_info"*) echo 3.12 ;;'
        f' *) {asked} "$@" ;; esac',
    )
    process = start(tmp_path / "venv", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    output, _ = process.communicate(timeout=60)
    assert "torch 2.11.0 for CUDA" in output and process.returncode == 7


def test_every_offered_torch_is_tested_and_within_what_the_package_asks_for():
    rows = [
        line.split()
        for line in (ROOT / "run_scripts/torch_versions.txt").read_text().splitlines()
        if line[:1].isdigit()
    ]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["tests"]
    matrix = workflow["strategy"]["matrix"]
    assert sorted(matrix["torch"]) == sorted(row[0] for row in rows) and matrix["python"] == [
        "3.11",
        "3.12",
    ]
    assert workflow["env"] == {"OFA_TORCH": "${{ matrix.torch }}"}
    commands = " ".join(step.get("run", "") for step in workflow["steps"])
    assert "bash run_scripts/setup.sh" in commands and "bash run_scripts/test.sh" in commands
    required = dict(
        re.findall(r'"(torch|torchvision)(>=[^"]+)"', (ROOT / "pyproject.toml").read_text())
    )
    for torch, torchvision, *_ in rows:
        assert torch in SpecifierSet(required["torch"]) and torchvision in SpecifierSet(
            required["torchvision"]
        )


def test_the_steps_of_the_dockerfile_fit_this_repository():
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    steps = re.findall(r"^([A-Z]+) (.*(?:\\\n.*)*)$", text, re.M)
    values = dict(steps)
    python = re.fullmatch(r"python:([\d.]+)-slim-bookworm", values["FROM"])
    project = (ROOT / "pyproject.toml").read_text()
    assert python and python[1] in SpecifierSet(re.search(r'requires-python = "(.*)"', project)[1])
    for command in (rest for name, rest in steps if name == "RUN"):
        subprocess.run(["bash", "-n", "-c", command], check=True)
    scripts = re.findall(r"/opt/ofa/(\S+\.sh)", text)
    assert scripts == ["run_scripts/setup.sh"] and values["COPY"] == ". /opt/ofa"
    torch = values["ARG"].removeprefix("OFA_TORCH=")
    assert torch in (ROOT / "run_scripts/torch_versions.txt").read_text().split()
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv*", "runs"} <= {*ignored}
