"""Which tests are fast, and the option of ``run_scripts/test.sh`` that runs those alone."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, tier


@pytest.mark.parametrize(
    "folder",
    sorted(path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))),
)
def test_units_recorded_numbers_and_contracts_are_fast_unless_marked(folder):
    assert tier(folder, marked_slow=False) == (
        "fast" if folder in ("unit", "parity", "contract", "gpu_pretend") else "slow"
    )
    assert tier(folder, marked_slow=True) == "slow"


def test_every_test_has_one_tier(request):
    for item in request.session.items:
        assert len([mark for mark in item.iter_markers() if mark.name in ("fast", "slow")]) == 1, (
            item.nodeid
        )


@pytest.mark.parametrize(
    ("given", "passed"), [([], []), (["--fast", "-k", "box"], ["-m", "fast", "-k", "box"])]
)
def test_the_script_selects_the_fast_tier(tmp_path: Path, given, passed):
    shutil.copytree(ROOT / "run_scripts", tmp_path / "run_scripts")
    for name in ("setup.sh", "lint.sh"):
        (tmp_path / "run_scripts" / name).write_text("true\n")
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/usr/bin/env bash\necho "$@"\n')
    python.chmod(0o755)
    environment = os.environ | {"OFA_VENV": str(tmp_path / "venv")}
    done = subprocess.run(
        ["bash", tmp_path / "run_scripts/test.sh", *given],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    words = done.stdout.splitlines()[-1].split()
    assert words[:3] == ["-m", "pytest", "tests"] and words[words.index("loadfile") + 1 :] == passed
