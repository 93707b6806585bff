"""Shared test settings: the checkout and the golden-number reader are importable."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT / "tests" / "parity", ROOT):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def bpe_folder(kind: str) -> Path:
    """Folder of the released BPE files (``gpt2`` or ``bert_cn``) below ``OFA_BPE_DIR``; skips when unset."""
    base = os.environ.get("OFA_BPE_DIR")
    if not base or not (Path(base) / kind).is_dir():
        pytest.skip(f"set OFA_BPE_DIR to a folder with {kind}/ to run this test")
    return Path(base) / kind
