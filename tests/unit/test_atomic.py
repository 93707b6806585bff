"""Files appear whole or not at all, and a full disk is named with the file that it happened to."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.io import atomic
from ofa.io.atomic import names_file, replacing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def full_disk():
    """Files cannot grow beyond 1000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_text(file):
    file.write("x" * 100_000)


@pytest.mark.parametrize(
    "mode, content", [("w", "x" * 5000), ("wb", b"x" * 5000), ("wb", b"x" * 100_000)]
)
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, full_disk, mode, content):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(OSError) as failed, replacing(path, mode) as file:
        file.write(content)
    assert (
        failed.value.filename == str(path)
        and path.read_text() == "old"
        and len(list(tmp_path.iterdir())) == 1
    )


def test_torch_reports_a_full_disk_as_what_it_is(tmp_path, full_disk):
    import torch

    with pytest.raises(OSError) as failed, replacing(tmp_path / "a.pt", "wb") as file:
        torch.save({"weight": torch.zeros(100_000)}, file)
    assert failed.value.filename == str(tmp_path / "a.pt") and not list(tmp_path.iterdir())


def test_a_library_that_hides_the_error_of_a_write_does_not_hide_it_here(tmp_path, full_disk):
    with pytest.raises(OSError, match="a.bin"), replacing(tmp_path / "a.bin", "wb") as file:
        try:
            file.write(b"x" * 100_000)
        except OSError:
            raise RuntimeError("internal error of a writer") from None


def test_an_error_of_the_caller_stays_what_it_was(tmp_path):
    with pytest.raises(KeyError), replacing(tmp_path / "a.txt"):
        raise KeyError("row")
    with pytest.raises(OSError) as failed, replacing(tmp_path / "a.txt"):
        raise OSError("connection closed")
    assert failed.value.filename is None and not list(tmp_path.iterdir())


def test_a_vanished_folder_is_reported_with_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as failed, replacing(tmp_path / "run" / "a.txt"):
        next((tmp_path / "run").iterdir()).unlink()
        (tmp_path / "run").rmdir()
    assert failed.value.filename == str(tmp_path / "run" / "a.txt")


def test_every_write_of_a_context_names_its_file(tmp_path, full_disk):
    with (
        pytest.raises(OSError) as failed,
        names_file("manifest.json.part"),
        open(tmp_path / "x", "w") as file,
    ):
        file.write("x" * 5000)
    assert failed.value.filename == "manifest.json.part"


def test_the_error_of_a_write_that_a_process_dies_of_is_one_line(tmp_path):
    code = (
        "import resource, signal, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "from ofa.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "prepare",
            "synthetic-sentences",
            "--out",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and str(tmp_path / "out") in errors[0], (
        done.stderr
    )
    assert "Traceback" not in done.stderr


def test_the_reasons_that_a_disk_is_full_are_known_by_number():
    assert {os.strerror(number) for number in atomic.FULL} == {
        "No space left on device",
        "Disk quota exceeded",
        "File too large",
    }


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_get_the_mode_of_any_new_file_without_asking_for_the_umask(
    tmp_path, monkeypatch, umask, mode
):
    """It can be asked for by changing it alone, which other threads would see in the files that
    they make."""
    from torch import zeros

    from ofa.io.tensor_files import write_tensors

    before = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")
            with replacing(tmp_path / "a.txt") as file:
                (part,) = tmp_path.iterdir()
                assert part.stat().st_mode & 0o777 == mode  # never more than that
                file.write("a")
            write_tensors({"weight": zeros(2)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "a.txt": mode,
        "a.safetensors": mode,
    }
