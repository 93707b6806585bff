"""Rows of TSV files, their index, and what is said about broken ones."""

import logging
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from ofa.data import row_files, tsv
from ofa.data.tsv import TsvFile, data_files, open_index
from ofa.errors import UserError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Function (bytes, name) -> path of a file in a folder of its own."""
    monkeypatch.delenv("OFA_INDEX_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def write(content: bytes, name: str = "a.tsv") -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"1\tx\n2\ty\n", [["1", "x"], ["2", "y"]]),
        (b"1\tx\r\n2\ty\r\n", [["1", "x"], ["2", "y"]]),
        (b"1\tx\n2\ty", [["1", "x"], ["2", "y"]]),
        (b"1\tx\n2\ty\n\n\r\n\n", [["1", "x"], ["2", "y"]]),
        (b"1\tx\ry\n2\t\rz\r\r\n", [["1", "x\ry"], ["2", "\rz\r"]]),
        (b"\xef\xbb\xbf1\tx\n2\ty\n", [["1", "x"], ["2", "y"]]),
        ("é\t東京\u2028\x85🔥\n2\t\n".encode(), [["é", "東京\u2028\x85🔥"], ["2", ""]]),
        (b"x", [["x"]]),
        (b"\n\tx\n"[1:], [["", "x"]]),
    ],
    ids=[
        "LF",
        "CRLF",
        "no last newline",
        "empty last lines",
        "CR inside",
        "BOM",
        "UTF-8",
        "one field",
        "empty field",
    ],
)
def test_rows_are_what_lies_between_newlines(write, content, rows):
    file = TsvFile(write(content))
    assert [file[i] for i in range(len(file))] == rows
    assert file[-1] == rows[-1]
    with pytest.raises(IndexError):
        file[len(rows)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_rows_do_not_depend_on_the_chunks_of_the_scan(write, monkeypatch, chunk):
    monkeypatch.setattr(tsv, "CHUNK", chunk)
    rows = [[str(i), "x" * (i % 5)] for i in range(20)]
    file = TsvFile(write("\n".join("\t".join(row) for row in rows).encode()))
    assert [*file] == rows


def test_rows_come_in_any_order_with_selected_columns(write):
    path = write(b"a\tb\tc\nd\te\tf\ng\th\ti\n")
    assert [TsvFile(path, "2,0")[i] for i in (2, 0, 1, 2)] == [
        ["i", "g"],
        ["c", "a"],
        ["f", "d"],
        ["i", "g"],
    ]
    assert TsvFile(path, [1])[1] == ["e"]


def test_texts_of_a_short_row_take_one_read(write, monkeypatch):
    file = TsvFile(write(b"a\tb\tc\nd\te\tf\n"))
    reads, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
    assert file.texts(1, [2, 0]) == ["f", "d"] and len(reads) == 1


def test_raw_rows_keep_what_is_no_line_feed_and_notice_a_change(write):
    path = write(b"\xef\xbb\xbfa\tb\r\nc\n\xff\n")
    file = TsvFile(path)
    assert file.raw(0, 3) == [b"a\tb\r", b"c", b"\xff"] and file.raw(1, 2) == [b"c"]
    path.write_bytes(b"a\tb\nc\n")
    with pytest.raises(UserError, match="a.tsv:1: expects a row at byte 3, found something else"):
        file.raw(0, 3)


def test_file_travels_to_workers_and_is_opened_there(write):
    file = TsvFile(write(b"1\tx\n2\ty\n"), "1")
    copy = pickle.loads(pickle.dumps(file))
    assert copy._file is None and copy[1] == ["y"]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(file.__getitem__, [0, 1] * 50) == [["x"], ["y"]] * 50


def test_rows_beyond_four_gigabytes_are_found(write):
    path = write(b"1\tfirst\n")
    with open(path, "r+b") as file:  # a sparse file: nothing is written between the rows
        file.truncate(5 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n3\tlast\n")
    size = path.stat().st_size
    starts = np.array([0, 8, size - 7, size], dtype=np.uint64)
    row_files.store(starts, path.stat(), [Path(f"{path}.idx")], tsv.MAGIC)
    file = TsvFile(path)
    assert len(file) == 3 and file[2] == ["3", "last"]


# index files


def test_index_is_made_once_and_memory_mapped(write, monkeypatch):
    path = write(b"1\tx\n2\ty\n")
    TsvFile(path)
    monkeypatch.setattr(tsv, "_scan", None)  # a second scan would fail
    offsets = open_index(path)
    assert isinstance(offsets, np.memmap) and offsets.tolist() == [0, 4, 8]


def test_opening_a_million_indexed_rows_takes_less_than_50_ms(write):
    path = write(b"1\tx\n" * 1_000_000)
    assert len(TsvFile(path)) == 1_000_000
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert TsvFile(path)[999_999] == ["1", "x"]
        times.append(time.perf_counter() - start)
    assert min(times) < 0.050


@pytest.mark.parametrize("change", ["longer", "same size"])
def test_outdated_index_is_made_again(write, change):
    path = write(b"1\tx\n2\ty\n")
    TsvFile(path)
    write(b"1\tx\n2\ty\n3\tz\n" if change == "longer" else b"1\tabc\n2\n")
    os.utime(path, ns=(1, 1))
    assert TsvFile(path)[0] == (["1", "x"] if change == "longer" else ["1", "abc"])
    assert len(TsvFile(path)) == (3 if change == "longer" else 2)


@pytest.mark.parametrize(
    "content", [b"", b"OFA-TSV1", b"x" * 80], ids=["empty", "cut off", "other"]
)
def test_damaged_index_is_made_again(write, content):
    path = write(b"1\tx\n2\ty\n")
    Path(f"{path}.idx").write_bytes(content)
    assert len(TsvFile(path)) == 2
    assert len(np.memmap(f"{path}.idx", dtype="<u8")) == row_files.HEADER + 3


def test_half_an_index_is_made_again(write):
    path = write(b"1\tx\n2\ty\n")
    TsvFile(path)
    with open(f"{path}.idx", "r+b") as file:
        file.truncate(8 * (row_files.HEADER + 2))
    assert len(TsvFile(path)) == 2


def test_index_goes_to_the_named_folder(write, tmp_path, monkeypatch):
    monkeypatch.setenv("OFA_INDEX_DIR", str(tmp_path / "indices"))
    path = write(b"1\tx\n")
    assert len(TsvFile(path)) == 1
    assert [file.suffix for file in (tmp_path / "indices").iterdir()] == [".idx"]
    assert [file.name for file in path.parent.iterdir()] == ["a.tsv"]


def test_index_goes_to_the_cache_when_the_folder_of_the_tsv_cannot_take_it(write, tmp_path):
    path = write(b"1\tx\n")
    Path(f"{path}.idx").mkdir()  # stands for a read-only folder, which root could write to
    assert len(TsvFile(path)) == 1
    assert len(list((tmp_path / "home/.cache/ofa/index").iterdir())) == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.tsv", "a.tsv.idx"]


def test_index_stays_in_memory_when_no_folder_can_take_it(write, tmp_path, caplog):
    path = write(b"1\tx\n2\ty\n")
    Path(f"{path}.idx").mkdir()
    (tmp_path / "home").write_text("a file where a folder is needed")
    with caplog.at_level(logging.WARNING):
        assert [*TsvFile(path)] == [["1", "x"], ["2", "y"]]
    assert "OFA_INDEX_DIR" in caplog.text


def _open_slowly(path, barrier, scans, results):
    scan = tsv._scan

    def counted(*arguments):
        with scans.get_lock():
            scans.value += 1
        time.sleep(0.2)
        return scan(*arguments)

    tsv._scan = counted
    barrier.wait()
    file = TsvFile(path)
    results.put((len(file), file[-1]))


def test_four_processes_at_once_make_one_index(write):
    path = write(b"".join(b"%d\tx\n" % i for i in range(5000)))
    context = multiprocessing.get_context("fork")
    barrier, scans, results = context.Barrier(4), context.Value("i", 0), context.Queue()
    processes = [
        context.Process(target=_open_slowly, args=(path, barrier, scans, results)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert found == [(5000, ["4999", "x"])] * 4
    assert scans.value == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.tsv", "a.tsv.idx"]


# upstream index files


def test_upstream_index_is_used(write, monkeypatch):
    path = write(b"1\tx\n2\ty\n3\tz\n")
    Path(f"{path}.index").write_bytes(pickle.dumps((3, [0, 4, 8])))
    monkeypatch.setattr(tsv, "_scan", None)
    assert [*TsvFile(path)] == [["1", "x"], ["2", "y"], ["3", "z"]]


def test_upstream_index_of_a_file_with_a_mark_skips_the_mark(write, monkeypatch):
    path = write(tsv.BOM + b"1\tx\n2\ty\n")
    Path(f"{path}.index").write_bytes(pickle.dumps((2, [0, 7])))
    monkeypatch.setattr(tsv, "_scan", None)
    assert [*TsvFile(path)] == [["1", "x"], ["2", "y"]]


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    "index",
    [
        (3, [0, 4, 8]),  # counted in text mode
        (2, [0, 5, 10]),
        (2, [0, 5]),  # the last row is missing
        (3, [0, 10, 5]),
        (3, [0, 5, 100]),
        (3, [1, 5, 10]),
        (0, []),
        "rubbish",
        Evil(),
    ],
)
def test_wrong_upstream_index_is_not_believed(write, index, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(b"1\tx\r\n2\ty\r\n3\tz\r\n")
    Path(f"{path}.index").write_bytes(pickle.dumps(index))
    assert [*TsvFile(path)] == [["1", "x"], ["2", "y"], ["3", "z"]]
    assert "a.tsv.index" in caplog.text
    assert not (tmp_path / "evil").exists()


# broken files: one message with place, expectation, finding and remedy


def test_missing_column_is_named_with_its_row(write):
    file = TsvFile(write(b"1\tx\ty\n2\tx\n3\tx\ty\tz\n"))
    with pytest.raises(
        UserError,
        match=r"a.tsv:2: expects 3 tab-separated columns .*found 2; is there a line break",
    ):
        file[1]
    with pytest.raises(UserError, match=r"a.tsv:3: expects 3 .*found 4; is there a tab inside"):
        file[2]


def test_empty_line_inside_the_file_is_named_with_its_row(write):
    with pytest.raises(UserError, match=r"a.tsv:2: expects 2 .*found 1"):
        TsvFile(write(b"1\tx\n\n3\tx\n"))[1]


@pytest.mark.parametrize("columns", ["0,3", "0,-1", [5]])
def test_selected_column_beyond_the_last_is_refused_at_opening(write, columns):
    with pytest.raises(UserError, match=r"a.tsv:1: --selected-cols=.* found 3 columns \(0 to 2\)"):
        TsvFile(write(b"1\tx\ty\n"), columns)


@pytest.mark.parametrize("columns", ["0,x", "", "0;1"])
def test_selected_columns_are_numbers(write, columns):
    with pytest.raises(UserError, match="expects numbers such as 0,4,2"):
        TsvFile(write(b"1\tx\ty\n"), columns)


@pytest.mark.parametrize("content", [b"", b"\n\r\n\n", tsv.BOM, tsv.BOM + b"\n"])
def test_empty_file_is_refused(write, content):
    path = write(content)
    with pytest.raises(UserError, match="a.tsv: expected rows .* found an empty file"):
        TsvFile(path)
    assert [file.name for file in path.parent.iterdir()] == ["a.tsv"]


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="none.tsv: expected a TSV file, No such file or directory"):
        TsvFile(tmp_path / "none.tsv")
    with pytest.raises(UserError, match="Is a directory"):
        TsvFile(tmp_path)


def test_other_encodings_are_named(write):
    with pytest.raises(UserError, match="a.tsv: expects UTF-8, found UTF-16"):
        TsvFile(write("1\tx\n".encode("utf-16")))
    with pytest.raises(
        UserError, match="a.tsv:2: expects UTF-8 text, found the byte 0xe9 in column 1"
    ):
        TsvFile(write(b"1\tx\n2\tcaf\xe9\n", "a.tsv"))[1]


@pytest.mark.parametrize("change", [b"1\tx\n", b"1\tlong\n2\n", b"12\tx2\t\n", b"1\t\n3\n4\n"])
def test_file_changed_while_in_use_is_noticed(write, change):
    file = TsvFile(write(b"1\tx\n2\ty\n"))
    write(change)
    with pytest.raises(UserError, match="a.tsv:2: .*changed after"):
        file[1]


def test_file_growing_while_indexed_is_refused(write, monkeypatch):
    path = write(b"1\tx\n" * 10)
    status, fstat = os.stat(path), os.fstat
    later = os.stat_result(list(status)[:8] + [0, 0], {"st_mtime_ns": 1})
    answers = iter([status, status])
    monkeypatch.setattr(os, "fstat", lambda fd: next(answers, later))
    with pytest.raises(UserError, match="changed while it was indexed"):
        open_index(path)
    monkeypatch.setattr(os, "fstat", fstat)
    assert [file.name for file in path.parent.iterdir()] == ["a.tsv"]


@pytest.mark.parametrize("change", ["grows", "shrinks"])
@pytest.mark.parametrize("way", ["row", "texts of a short row", "texts of a long row"])
def test_a_file_that_grows_or_shrinks_while_it_is_read_is_one_message(write, change, way):
    content = b"1\tx\n2\t" + (b"y" * 100_000 if "long" in way else b"y") + b"\n3\tz\n"
    path = write(content)
    file = TsvFile(path)
    read = (lambda: file[1]) if way == "row" else lambda: file.texts(1, [0])
    read()
    with open(path, "r+b") as out:
        (
            out.truncate(len(content) - 2)
            if change == "shrinks"
            else out.seek(0, os.SEEK_END) and out.write(b"4\tnew\n")
        )
    with pytest.raises(
        UserError,
        match=r"^[^\n]*a.tsv:2: expects a row at byte 4, found something else; the file changed",
    ) as found:
        read()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("change", ["grows", "shrinks", "vanishes"])
def test_a_worker_that_opens_another_file_than_the_first_process_is_one_message(write, change):
    path = write(b"1\tx\n2\ty\n")
    traveled = pickle.dumps(TsvFile(path))
    (
        path.unlink()
        if change == "vanishes"
        else write(b"1\tx\n2\ty\n3\tz\n" if change == "grows" else b"1\tx\n")
    )
    with pytest.raises(
        UserError, match="a.tsv.* (expects 2 rows as when it was opened|No such file)"
    ):
        pickle.loads(traveled)[0]


def test_a_long_row_of_a_file_that_was_rewritten_is_noticed_where_texts_are_read(write):
    path = write(b"1\t" + b"x" * 100_000 + b"\n2\t" + b"y" * 100_000 + b"\n")
    file = TsvFile(path)
    write(b"1\t" + b"x" * 99_999 + b"\n2\t" + b"y" * 100_001 + b"\n")
    with pytest.raises(UserError, match="a.tsv:1: .*changed after"):
        file.texts(0, [0])
    with pytest.raises(UserError, match="a.tsv:2: .*changed after"):
        file.texts(1, [0])


def put_index(path: Path, *words: int) -> None:
    """An index of the file as it is now, with any content."""
    status = path.stat()
    head = [tsv.MAGIC, status.st_size, status.st_mtime_ns]
    Path(f"{path}.idx").write_bytes(
        np.array([word % (1 << 64) for word in (*head, *words)], dtype="<u8").tobytes()
    )


@pytest.mark.parametrize(
    "words",
    [
        (0, 0),
        (10**18,),
        (-1, 0, 4, 8),
        (2**64 - 2,),
        (2, 0, 5, 8),
        (2, 0, 4, 9),
        (2, 0, 4, 10**18),
        (2, 0, 8, 4),
        (2, -4, 4, 8),
        (2, 4, 4, 8),
        (1, 1, 8),
        (3, 0, 4, 4, 8),
        (1, 0),
        (2, 0, -1, 8),
        (2, 0, 2**63, 8),
        (2, 0, 0, 8),
        (2, 1, 4, 8),
        (1, 0, 4),
        (3, 0, 4, 6, 8),
    ],
)
def test_an_index_that_does_not_fit_the_file_is_made_again(write, words):
    path = write(b"1\tx\n2\ty\n")
    put_index(path, *words)
    assert [*TsvFile(path)] == [["1", "x"], ["2", "y"]]
    assert np.fromfile(f"{path}.idx", dtype="<u8")[row_files.HEADER :].tolist() == [0, 4, 8]


def test_the_index_of_another_file_of_the_same_size_and_time_is_made_again(write):
    one, other = write(b"1\tlong\n2\tx\n", "one.tsv"), write(b"1\tx\n2\tlong\n", "other.tsv")
    for path in (one, other):
        os.utime(path, ns=(5, 5))
        TsvFile(path)
    os.replace(f"{one}.idx", f"{other}.idx")
    assert [*TsvFile(other)] == [["1", "x"], ["2", "long"]]


@pytest.mark.parametrize("offset", [10**18, 2**63, 2**64 - 1, 0, 5])
def test_an_offset_that_was_made_up_asks_for_no_memory(write, offset):
    path = write(b"1\tx\n" * 100)
    row = next(row for row in range(1, 100) if not {row, row - 1} & set(row_files.sampled(100)))
    offsets = [4 * number for number in range(101)]
    offsets[row] = offset
    put_index(path, 100, *offsets)
    file = TsvFile(path)
    with pytest.raises(
        UserError, match=f"a.tsv:{row + 1}: expects a row at byte {offset}, found something else"
    ):
        file[row]
    with pytest.raises(UserError, match="changed after"):
        file[row - 1]


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UserError, match="expected a TSV file, found a pipe or a device"):
            TsvFile(path)


# several files


def test_training_takes_all_but_the_last_file_in_turn():
    files = "a.tsv, b.tsv,val.tsv"
    assert data_files(files, "train") == ["a.tsv", "b.tsv"]
    assert data_files(files, "train", only_training=True) == ["a.tsv", "b.tsv", "val.tsv"]
    assert data_files(files, "valid") == data_files(files, "test") == ["val.tsv"]
    assert data_files("only.tsv", "train") == data_files("only.tsv", "valid") == ["only.tsv"]
    assert data_files(" , ", "train") == data_files(None, "valid") == []
