"""Large files are told apart by a sample of their content."""

import random

import pytest

from ofa.io import fingerprint
from ofa.io.fingerprint import BLOCK, PLACES, sample_digest, total_bytes

LARGE = 3 * BLOCK * PLACES


@pytest.fixture(params=[1000, LARGE])
def file(request, tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_bytes(random.Random(request.param).randbytes(request.param))
    return path


def test_a_copy_has_the_digest_of_its_original(file, tmp_path):
    (tmp_path / "copy.tsv").write_bytes(file.read_bytes())
    assert sample_digest([tmp_path / "copy.tsv"]) == sample_digest([file])


def test_appended_rows_keep_the_digest_of_the_beginning(file):
    size, before = total_bytes([file]), sample_digest([file])
    with open(file, "ab") as opened:
        opened.write(b"another row\n")
    assert sample_digest([file], size) == before != sample_digest([file])


@pytest.mark.parametrize("place", [0, -1])
def test_another_first_or_last_byte_changes_the_digest(file, place):
    before, content = sample_digest([file]), bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert sample_digest([file]) != before


def test_a_file_of_the_same_size_with_other_content_has_another_digest(file):
    before, size = sample_digest([file]), total_bytes([file])
    file.write_bytes(random.Random(0).randbytes(size))
    assert sample_digest([file]) != before


def test_several_files_count_as_one_long_file(file, tmp_path):
    content = file.read_bytes()
    parts = []
    for number, start in enumerate(range(0, len(content), len(content) // 3 + 1)):
        parts.append(tmp_path / f"part{number}")
        parts[-1].write_bytes(content[start : start + len(content) // 3 + 1])
    assert len(parts) == 3 and total_bytes(parts) == len(content)
    if len(content) <= BLOCK * PLACES:
        assert sample_digest(parts) == sample_digest([file])
    assert sample_digest(parts) != sample_digest(parts[::-1])


def test_little_of_a_large_file_is_read(tmp_path, monkeypatch):
    (tmp_path / "rows.tsv").write_bytes(bytes(LARGE))
    read, stock = [], fingerprint.os.pread
    monkeypatch.setattr(
        fingerprint.os, "pread", lambda *arguments: read.append(stock(*arguments)) or read[-1]
    )
    sample_digest([tmp_path / "rows.tsv"])
    assert sum(map(len, read)) == BLOCK * PLACES


def test_an_empty_file_has_a_digest(tmp_path):
    (tmp_path / "a").touch()
    assert sample_digest([tmp_path / "a"]) == sample_digest([tmp_path / "a"], 0)
