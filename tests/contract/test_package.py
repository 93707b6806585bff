"""The package works from a plain checkout and from a wheel, and installs one import name only."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # builds a wheel, starts interpreters

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "ofa",
    "models",
    "data",
    "criterions",
    "tasks",
    "run_scripts",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
PROBE = (
    "import ofa, ofa.models.encoder, ofa.data.tsv, ofa.tasks.caption, ofa.criterions.losses;"
    " print(ofa.models.encoder.__file__)"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the checkout."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / part)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        out,
        copy,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("ofa_fairseq-*.whl"))


def probe(*path: Path) -> str:
    """Where a fresh interpreter in another folder finds the package."""
    code = f"import sys; sys.path[:0] = {[str(p) for p in path]}; {PROBE}"
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd="/", check=True
    )
    return result.stdout.strip()


def test_a_plain_checkout_imports_from_its_folders():
    assert probe(ROOT) == str(ROOT / "models/encoder.py")


def test_a_wheel_holds_everything_under_one_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")
    } == {"ofa"}
    for folder in ("ofa", "models", "data", "criterions", "tasks", "run_scripts"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_dir() or path.suffix == ".pyc":
                continue
            target = (
                path.relative_to(ROOT) if folder == "ofa" else Path("ofa") / path.relative_to(ROOT)
            )
            assert str(target) in names


def test_an_unpacked_wheel_imports(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    assert probe(tmp_path) == str(tmp_path / "ofa/models/encoder.py")


def test_a_recipe_of_an_unpacked_wheel_trains_on_files_of_the_users_folder(wheel, tmp_path):
    (tmp_path / "site").mkdir()
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    command = [sys.executable, "-c", "from ofa.cli.main import main; main()"]
    done = subprocess.run(
        [*command, "train", "vqa", "--size=base", "--dry-run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    here = os.path.realpath(tmp_path)
    assert f" {here}/dataset/vqa_data/vqa_train.tsv," in done.stdout
    assert f"--user-dir={here}/site/ofa " in done.stdout
    assert f"--finetune-from-model={here}/checkpoints/ofa_base.pt" in done.stdout


def test_the_command_works_from_any_folder(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ofa", "--help"]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert "evaluate" in result.stdout and "prepare" in result.stdout


def registers(package: Path, before: str) -> bool:
    """Whether ``--user-dir PACKAGE/ofa`` registers the tasks, in a process of its own."""
    code = (
        f"import sys; sys.path.insert(0, {str(package)!r}); {before}\n"
        "from argparse import Namespace; import fairseq.utils\n"
        f"fairseq.utils.import_user_module(Namespace(user_dir={str(package / 'ofa')!r}))\n"
        "import ofa; from fairseq.tasks import TASK_REGISTRY\n"
        "print(ofa.__file__, 'caption' in TASK_REGISTRY)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True
    )
    return result.stdout.split() == [str(package / "ofa/__init__.py"), "True"]


def test_user_dir_registers_also_when_the_package_was_imported_before_fairseq():
    assert registers(ROOT, "import ofa.metrics")


def test_user_dir_registers_an_unpacked_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    assert registers(tmp_path, "import fairseq")
