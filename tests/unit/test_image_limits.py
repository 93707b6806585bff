"""The worst file of each format: read or refused within bounds of time and memory, no process
started, nothing written.

Files are opened in another process, which says what each took. The bounds are those of any file: 1
GB and 5 s; what is refused is refused in its header, within a second.
"""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from image_bombs import LARGEST, REFUSED, overlapping_tags, segment
from PIL import Image

from ofa.io.images import open_image

PROCESS_MB, REFUSAL_MB, SECONDS = 1000, 100, 5


def opened(*names: str) -> dict[str, dict]:
    """What ``image_bombs.report`` says of each file."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(root / "tests/image_bombs.py"), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def refused() -> dict[str, dict]:
    return opened(*(f"refused: {name}" for name in REFUSED))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_files_that_are_read_stay_within_the_bounds(name):
    report = opened(name)[name]
    assert (
        not report["acts"]
        and report["found"].startswith("(")
        and report["mb"] < PROCESS_MB
        and report["seconds"] < SECONDS
    ), report


@pytest.mark.parametrize("name", REFUSED)
def test_worse_files_are_refused_before_they_cost_anything(refused, name):
    report = refused[f"refused: {name}"]
    assert not report["acts"]
    assert (
        report["found"].startswith("UserError: a.tsv:7: expects a whole image, found")
        and REFUSED[name][1] in report["found"]
    ), report
    assert report["mb"] < REFUSAL_MB and report["seconds"] < 1, report


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_tags_of_metadata_that_share_their_bytes_cost_nothing(kind):
    exif = overlapping_tags(1000, 60_000)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, **({} if kind == "JPEG" else {"exif": exif}))
    data = file.getvalue()
    if kind == "JPEG":  # 64 kB a segment
        exif = overlapping_tags(1000, 50_000)
        data = data[:2] + segment(0xE1, b"Exif\0\0" + exif) + data[2:]
    started = time.monotonic()
    assert open_image(data, upright=True).size == (8, 8)
    assert time.monotonic() - started < 1
