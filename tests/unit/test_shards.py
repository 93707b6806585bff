"""WebDataset shards: rows by number as from a TSV, written and read by the webdataset library as
well."""

import base64
import hashlib
import io
import json
import logging
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import webdataset
from PIL import Image

from ofa.cli.main import main
from ofa.data import row_files
from ofa.data.rows import open_rows
from ofa.data.shards import ShardFile
from ofa.data.tsv import MAGIC, TsvFile
from ofa.errors import UserError
from ofa.io.images import decode_image
from ofa.io.values import load_values
from ofa.task.text import as_cell


def make_image(number: int, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (20, 10), random.Random(number).randbytes(600)).save(file, kind)
    return file.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


ROWS = [
    [
        f"{i}_0",
        f"caption {i} mit Ümlaut",
        ["", "dog&&cat"][i % 2],
        text_of(make_image(i, ["JPEG", "PNG"][i % 2])),
    ]
    for i in range(7)
]


def write_rows(path, rows=ROWS) -> str:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def tsv(tmp_path):
    return write_rows(tmp_path / "rows.tsv")


@pytest.fixture
def folder(tmp_path, tsv):
    """Shards of three rows."""
    assert pack(tsv, tmp_path / "shards", "--shard-rows", "3") == 0
    return tmp_path / "shards"


def pack(rows, out, *options: str) -> int:
    return main(["pack", str(rows), "--out", str(out), "--jobs", "1", *options])


def write_tar(path, samples: list[dict], **more) -> str:
    with webdataset.TarWriter(str(path), encoder=False, **more) as tar:
        for sample in samples:
            tar.write(sample)
    return str(path)


# rows


def test_shards_have_the_rows_of_the_tsv_in_any_order_and_selection(folder, tsv):
    assert sorted(path.name for path in folder.glob("*.tar")) == [
        f"rows-00000{i}.tar" for i in range(3)
    ]
    shards, rows = open_rows(folder), open_rows(tsv)
    assert (
        isinstance(shards, ShardFile)
        and isinstance(rows, TsvFile)
        and shards.num_columns == rows.num_columns == 4
    )
    assert [shards[i] for i in (6, 0, 3, 2, 2, -1)] == [
        ROWS[i] for i in (6, 0, 3, 2, 2, -1)
    ] and len(shards) == 7
    for columns in ("3,0", [1], "0,1,2,3"):
        assert [open_rows(folder, columns)[i] for i in range(7)] == [
            open_rows(tsv, columns)[i] for i in range(7)
        ]
    assert shards.texts(4, [1, 0]) == [ROWS[4][1], "4_0"]
    with pytest.raises(IndexError):
        shards[7]


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "/rows-{000000..000002}.tar",
        "/rows-*.tar",
        "/rows-00000[0-2].tar",
        "/{rows,none*}-*.tar",
    ],
)
def test_a_folder_and_patterns_name_shards(folder, pattern):
    rows = open_rows(f"{folder}{pattern}", "0")
    assert [row[0] for row in (rows[i] for i in range(len(rows)))] == [row[0] for row in ROWS]
    assert rows.where(4) == f"{folder}/rows-000001.tar:2"


def test_the_webdataset_library_reads_what_was_packed(folder):
    samples = list(
        webdataset.WebDataset(str(folder / "rows-{000000..000002}.tar"), shardshuffle=False)
    )
    assert [sample["__key__"] for sample in samples] == [f"{i:09d}" for i in range(7)]
    assert [json.loads(sample["json"]) for sample in samples] == [[*row[:3], None] for row in ROWS]
    assert [sample[["jpg", "png"][i % 2]] for i, sample in enumerate(samples)] == [
        base64.b64decode(row[3]) for row in ROWS
    ]


def test_shards_become_the_same_tsv_again(folder, tsv, tmp_path, capsys):
    assert pack(folder, tmp_path / "back.tsv") == 0
    assert (tmp_path / "back.tsv").read_bytes() == (tmp_path / "rows.tsv").read_bytes()
    assert "back.tsv: 7 rows" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir() if "back" in path.name) == [
        "back.tsv",
        "back.tsv.manifest.json",
    ]


def test_base64_is_normalized_and_what_is_no_image_stays_as_it_is(tmp_path):
    data = next(
        data
        for data in map(make_image, range(99))
        if {"+", "/"} <= set(text_of(data)) and text_of(data).endswith("=")
    )
    url_safe = base64.urlsafe_b64encode(data).decode().rstrip("=")
    cells = [
        "/9j/ is how a JPEG begins but this is a text",
        text_of(data)[:101],
        "b'" + text_of(data) + "'",
        "QUJD" * 20,
        " ",
        "\\N",
        "é\r",
    ]
    rows = [["a", url_safe], *([f"{i}", cell] for i, cell in enumerate(cells))]
    assert pack(write_rows(tmp_path / "x.tsv", rows), tmp_path / "s") == 0
    shards = open_rows(tmp_path / "s")
    assert shards[0][1] == text_of(data)
    # a carriage return before the line end is none of the row's, in a TSV as in shards
    assert [shards[i + 1][1] for i in range(len(cells))] == [*cells[:-1], "é"]


def test_rows_without_images_and_with_several_keep_them_apart(tmp_path):
    rows = [
        ["1", text_of(make_image(1)), "text", text_of(make_image(2, "PNG"))],
        ["2", "none", text_of(make_image(3)), ""],
    ]
    assert pack(write_rows(tmp_path / "x.tsv", rows), tmp_path / "s") == 0
    assert [open_rows(tmp_path / "s")[i] for i in range(2)] == rows
    assert (
        pack(write_rows(tmp_path / "text.tsv", [["t0", "plain"], ["t1", "words"]]), tmp_path / "t")
        == 0
    )
    assert open_rows(tmp_path / "t")[1] == ["t1", "words"]


def test_rows_travel_to_workers_and_are_opened_there(folder):
    file = open_rows(folder, "0")
    file[0]
    copy = pickle.loads(pickle.dumps(file))
    assert "_opened" not in vars(copy) and copy[5] == ["5_0"]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(file.__getitem__, [0, 5] * 50) == [["0_0"], ["5_0"]] * 50


def test_a_shard_that_a_pattern_names_twice_is_read_twice(folder):
    rows = open_rows(f"{folder}/{{rows-000002,rows-000002,rows-*}}.tar", "0")
    assert [*rows] == [["6_0"], ["6_0"], *([row[0]] for row in ROWS)]


def test_raw_rows_are_lines_of_a_tsv_and_say_why_one_is_none(tmp_path, folder, tsv):
    assert open_rows(folder, "0").raw(2, 5) == open_rows(tsv, "0").raw(2, 5)
    assert open_rows(folder).offsets[0] == 0 and len(open_rows(folder).offsets) == 8
    path = write_tar(
        tmp_path / "x.tar", [{"__key__": "a", "json": b'["0","x"]'}, {"__key__": "b", "json": b"["}]
    )
    row, error = open_rows(path).raw(0, 2)
    assert row == b"0\tx" and str(error).startswith("expects JSON in the member .json, found")


def test_only_so_many_shards_stay_open(folder, monkeypatch):
    monkeypatch.setattr("ofa.data.shards.OPEN_SHARDS", 1)
    file = open_rows(folder, "0")
    assert [file[i] for i in (0, 6, 3, 0)] == [["0_0"], ["6_0"], ["3_0"], ["0_0"]]
    assert file._opened.cache_info().currsize == 1


# packing


def test_the_manifest_tells_rows_and_checksums(folder):
    manifest = json.loads((folder / "rows.shards.json").read_text())
    assert manifest["counts"] == {"rows": 7, "columns": 4} and manifest["finished"]
    assert [shard["rows"] for shard in manifest["files"].values()] == [3, 3, 1]
    for name, shard in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_shard_that_the_manifest_lists_alone_is_missing(folder):
    (folder / "rows-000002.tar").unlink()
    assert "rows-000002.tar: expected a shard, found no such file" in error_of(folder)


def test_packing_goes_on_where_it_was_stopped(tmp_path, tsv, folder, monkeypatch):
    from ofa.data import shard_writer

    whole = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    stock, again = shard_writer.write_shard, tmp_path / "again"

    def stops(path, part, **more):
        if part[0].name == "rows-000001.tar.part":
            raise KeyboardInterrupt
        return stock(path, part, **more)

    assert pack(tsv, again, "--shard-rows", "7") == 0  # another plan first: its shard goes
    monkeypatch.setattr(shard_writer, "write_shard", stops)
    assert pack(tsv, again, "--shard-rows", "3") == 130
    assert [path.name for path in again.glob("*.tar")] == ["rows-000000.tar"]
    stamp = (again / "rows-000000.tar").stat().st_mtime_ns
    monkeypatch.setattr(shard_writer, "write_shard", stock)
    assert pack(tsv, again, "--shard-rows", "3") == 0
    assert {path.name: path.read_bytes() for path in again.glob("*.tar")} == whole
    assert (again / "rows-000000.tar").stat().st_mtime_ns == stamp


def test_unpacking_goes_on_where_it_was_stopped(folder, tmp_path, monkeypatch):
    stock = ShardFile.texts

    def stops(self, index, columns):
        if index == 5:
            raise KeyboardInterrupt
        return stock(self, index, columns)

    monkeypatch.setattr(ShardFile, "texts", stops)
    assert pack(folder, tmp_path / "back.tsv") == 130
    part = tmp_path / "back.tsv.part"
    part.write_bytes(part.read_bytes()[:-9])  # as after a crash: half a row
    read = []
    monkeypatch.setattr(
        ShardFile,
        "texts",
        lambda self, index, columns: read.append(index) or stock(self, index, columns),
    )
    assert pack(folder, tmp_path / "back.tsv") == 0
    assert (
        read == [4, 5, 6]
        and (tmp_path / "back.tsv").read_bytes() == (tmp_path / "rows.tsv").read_bytes()
    )


def test_shards_are_about_as_large_as_asked_and_the_same_from_several_processes(tmp_path):
    rows = [[str(i), text_of(make_image(i))] for i in range(60)]
    tsv = write_rows(tmp_path / "x.tsv", rows)
    assert pack(tsv, tmp_path / "one", "--shard-size", "0.05") == 0
    assert (
        main(["pack", tsv, "--out", str(tmp_path / "two"), "--shard-size", "0.05", "--jobs", "2"])
        == 0
    )
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / out).glob("*.tar")}
        for out in ("one", "two")
    )
    assert (
        one == two
        and len(one) > 1
        and all(20_000 < len(data) < 75_000 for data in list(one.values())[:-1])
    )


@pytest.mark.parametrize(
    "options, words",
    [
        (["x.tsv", "--out", "y.tsv"], "expected a name ending in .tsv for rows of shards"),
        (["x.tsv", "y.tsv", "--out", "s"], "expected one file or pattern, found 2"),
        (["x-0.tar", "--out", "y.tsv", "--image-size", "32"], "--image-size: expected a TSV"),
    ],
)
def test_wrong_options_of_pack_are_one_message(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "x.tsv")
    assert main(["pack", *options]) == 2
    assert words in capsys.readouterr().err


def test_images_become_the_square_of_a_training_once_and_the_manifest_says_so(tmp_path):
    wide = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
    file = io.BytesIO()
    wide.save(file, "PNG")
    rows = [["1", "a ball", text_of(file.getvalue())], ["2", "1,5 m, 3,4", text_of(make_image(3))]]
    tsv, out = write_rows(tmp_path / "x.tsv", rows), tmp_path / "small"
    assert pack(tsv, out, "--image-size", "48") == 0
    manifest = json.loads((out / "x.shards.json").read_text())
    assert manifest["image_size"] == 48 and "JPEG" in manifest["images"] and manifest["finished"]
    packed = open_rows(out)
    assert [packed[row][:2] for row in range(2)] == [row[:2] for row in rows]
    images = [decode_image(packed[row][2]) for row in range(2)]
    assert [image.size for image in images] == [(48, 48), (48, 48)]
    expected = np.asarray(wide.resize((48, 48), Image.Resampling.BICUBIC), dtype=int)
    assert np.abs(np.asarray(images[0], dtype=int) - expected).mean() < 2


def test_an_image_that_is_the_square_stays_byte_for_byte(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "PNG")
    tsv = write_rows(tmp_path / "x.tsv", [["1", text_of(file.getvalue())]])
    assert pack(tsv, tmp_path / "small", "--image-size", "32") == 0
    assert open_rows(tmp_path / "small")[0][1] == text_of(file.getvalue())


@pytest.mark.parametrize("box", ["10,20,300.5,400", "1,2,3,4,dog,d&&5,6,7,8,cat,c"])
def test_rows_with_boxes_keep_their_image(tmp_path, capsys, box):
    tsv = write_rows(tmp_path / "x.tsv", [ROWS[0], [*ROWS[1][:2], box, ROWS[1][3]]])
    assert pack(tsv, tmp_path / "small", "--image-size", "32") == 2
    assert "x.tsv:2: --image-size expects rows without boxes" in capsys.readouterr().err
    assert pack(tsv, tmp_path / "small") == 0


def test_shards_of_another_image_size_are_not_taken_for_finished(tmp_path, tsv):
    out = tmp_path / "small"
    assert pack(tsv, out, "--image-size", "32") == pack(tsv, out, "--image-size", "48") == 0
    assert decode_image(open_rows(out)[0][3]).size == (48, 48)
    assert pack(tsv, out) == 0
    assert decode_image(open_rows(out)[0][3]).size == (20, 10)
    assert "image_size" not in json.loads((out / "rows.shards.json").read_text())


def test_shards_without_rows_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["pack", str(tmp_path / "x.tsv"), "--out", "s", "--shard-rows", "0"])
    words = "argument --shard-rows: expected an integer of at least 1, found '0'"
    assert words in capsys.readouterr().err


def test_shards_of_others_are_not_overwritten(tmp_path, tsv, capsys):
    (tmp_path / "s").mkdir()
    write_tar(tmp_path / "s" / "rows-000000.tar", [{"__key__": "a", "txt": b"x"}])
    assert pack(tsv, tmp_path / "s") == 2
    assert (
        "rows-000000.tar: expected no such file, found one that rows.shards.json does not list"
        in capsys.readouterr().err
    )


# shards that others made


@pytest.mark.parametrize(
    "value, cell",
    [
        ('"a\\tdog"', "a dog"),
        ("7", "7"),
        ("1.50", "1.50"),
        ('["x", "y"]', "x&&y"),
        ("[1, 2.5]", "1,2.5"),
        ('{"answer": "yes"}', "yes"),
        ('[{"answer": "yes"}, {"answer": "no"}]', "yes&&no"),
        ("null", ""),
        ("NaN", ""),
        ("true", ""),
        ("[null]", ""),
        ('{"a": 1}', ""),
        ("[[1, 2]]", ""),
        ("[]", ""),
    ],
)
def test_what_is_no_text_is_an_empty_cell_and_never_words(value, cell):
    assert as_cell(load_values(value)) == cell


@pytest.fixture
def foreign(tmp_path):
    fields = [
        {"caption": "a\tdog\n", "boxes": [1, 2.5], "tags": ["x", "y"], "score": 0.5, "none": None},
        {"caption": "a cat"},
    ]
    return write_tar(
        tmp_path / "laion.tar",
        [
            {
                "__key__": f"part/00{i}",
                "jpg": make_image(i),
                "txt": f"text {i}\n".encode(),
                "json": json.dumps(fields[i]).encode(),
            }
            for i in range(2)
        ],
    )


def test_shards_of_others_have_columns_by_name(foreign):
    file = open_rows(foreign)
    assert file.names == [
        "key",
        "image",
        "txt",
        "json.boxes",
        "json.caption",
        "json.none",
        "json.score",
        "json.tags",
    ]
    assert file[0] == [
        "part/000",
        text_of(make_image(0)),
        "text 0",
        "1,2.5",
        "a dog",
        "",
        "0.5",
        "x&&y",
    ]
    assert open_rows(foreign, "key,image,json.caption")[1] == [
        "part/001",
        text_of(make_image(1)),
        "a cat",
    ]
    assert open_rows(foreign, "2")[1] == ["text 1"]
    with pytest.raises(
        UserError,
        match=r"laion.tar: --selected-cols=text: expects names \(key, image, txt, json.boxes",
    ):
        open_rows(foreign, "text")


def test_shards_of_other_tar_programs_are_read(tmp_path):
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        path = tmp_path / f"{style}.tar"
        with tarfile.open(path, "w", format=style) as tar:
            folder = tarfile.TarInfo("data")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for name, data in (
                ("data/a.PNG", make_image(1, "PNG")),
                ("data/a.txt", b"hello"),
                ("data/._a.txt", b"junk"),
                ("data/b.png", b"x"),
                ("data/b.txt", b""),
                ("README", b"no sample"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        rows = open_rows(path, "key,image,txt")
        assert [rows[i] for i in range(2)] == [
            ["data/a", text_of(make_image(1, "PNG")), "hello"],
            ["data/b", text_of(b"x"), ""],
        ]


# bad input


def error_of(path, columns=None) -> str:
    with pytest.raises(UserError) as error:
        rows = open_rows(path, columns)
        for index in range(len(rows)):
            rows[index]
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "keep, words",
    [(0.5, "found one that is cut off after"), (0.999, "found one that is cut off after")],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_shard_that_is_cut_off_is_named(folder, keep, words, known):
    shard = folder / "rows-000001.tar"
    data = shard.read_bytes().rstrip(b"\0")
    shard.write_bytes(data[: int(len(data) * keep)])
    if known:
        assert (
            f"{shard}: expected " in error_of(folder)
            and "found " in error_of(folder)
            and "a shard that is cut off" in error_of(folder)
        )
    else:
        (folder / "rows.shards.json").unlink()
        message = error_of(folder)
        assert (
            message.startswith(f"{shard}: expected an uncompressed tar of samples, ")
            and words in message
            and "copy or make it again" in message
        )


def test_a_shard_that_ends_between_two_members_is_cut_off_too(tmp_path):
    path = tmp_path / "x.tar"
    write_tar(path, [{"__key__": "a", "txt": b"x" * 512}, {"__key__": "b", "txt": b"y" * 512}])
    path.write_bytes(path.read_bytes()[:1024])
    assert "found one that is cut off after 1024 bytes" in error_of(path)
    path.write_bytes(b"text" * 500)
    assert "expected an uncompressed tar of samples" in error_of(path)
    path.write_bytes(b"\x1f\x8b" + bytes(600))
    assert "found a damaged or compressed one" in error_of(path)


def test_numbers_behind_a_dot_are_no_endings_of_one_sample(tmp_path):
    path = write_tar(tmp_path / "x.tar", [{"__key__": f"a.{i}", "txt": b"x"} for i in range(65)])
    assert "found 'a.64.txt' twice, or 64 members before it" in error_of(path)


def test_a_missing_member_is_named_with_its_sample(tmp_path, folder):
    path = write_tar(
        tmp_path / "x.tar",
        [
            {"__key__": "a", "jpg": make_image(0), "txt": b"x"},
            {"__key__": "b", "jpg": make_image(1)},
        ],
    )
    assert error_of(path, "image,txt").startswith(
        f"{path}:2: expects a member .txt, found .jpg of the sample b; "
    )
    path = write_tar(
        tmp_path / "y.tar",
        [
            {"__key__": "a", "jpg": make_image(0), "json": b'["0",null]'},
            {"__key__": "b", "json": b'["1",null]'},
        ],
    )
    assert (
        "y.tar:2: expects a member .jpg or another image, found .json of the sample b"
        in error_of(path)
    )
    path = write_tar(
        tmp_path / "z.tar",
        [{"__key__": "a", "json": b'["0","x"]'}, {"__key__": "b", "json": b'["1"]'}],
    )
    assert (
        "z.tar:2: expects a member .json with 2 columns as row 1 has, found 1 columns"
        in error_of(path)
    )
    path = write_tar(
        tmp_path / "w.tar", [{"__key__": "a", "json": b'["0","x"]'}, {"__key__": "b", "json": b"["}]
    )
    assert "w.tar:2: expects JSON in the member .json, found damage" in error_of(path)


def test_a_line_break_in_a_name_breaks_no_message(tmp_path):
    path = write_tar(
        tmp_path / "x.tar", [{"__key__": "a", "txt": b"x"}, {"__key__": "b\nc", "q": b""}]
    )
    assert "x.tar:2: expects a member .txt, found .q of the sample b c; " in error_of(path)


def test_a_shard_that_is_cut_while_it_is_read_is_noticed(tmp_path, monkeypatch):
    rows = open_rows(write_tar(tmp_path / "x.tar", [{"__key__": "a", "txt": b"x" * 600}]), "txt")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: pread(file, min(size, 512), at))
    with pytest.raises(UserError, match="x.tar:1: the shard changed while it was read"):
        rows[0]


def test_a_missing_shard_and_a_pattern_without_shards_are_named(tmp_path, folder):
    (folder / "rows-000001.tar").unlink()
    for path in (folder, folder / "rows-{000000..000002}.tar"):
        assert error_of(path).startswith(
            f"{folder}/rows-000001.tar: expected a shard, found no such file"
        )
    assert error_of(folder / "x-*.tar").startswith(
        f"{folder}/x-*.tar: expected WebDataset shards (.tar), found none"
    )
    assert "expected a shard, found no such file" in error_of(tmp_path / "none.tar")
    (tmp_path / "empty").mkdir()
    assert "expected WebDataset shards (.tar), found none" in error_of(tmp_path / "empty")


def test_a_folder_with_two_names_asks_for_a_pattern(folder, tmp_path):
    pack(write_rows(tmp_path / "other.tsv"), folder)
    assert (
        "expected a folder with shards of one name, found other, rows; give a pattern"
        in error_of(folder)
    )
    assert len(open_rows(folder / "other-*.tar")) == 7


def test_an_index_that_is_older_than_its_shard_is_made_again(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write_tar(tmp_path / "x.tar", [{"__key__": "a", "txt": b"x"}])
    assert open_rows(path, "txt")[0] == ["x"]
    write_tar(path, [{"__key__": "a", "txt": b"other"}, {"__key__": "b", "txt": b"y"}])
    os.utime(path, ns=(1, 1))
    assert [open_rows(path, "txt")[i] for i in range(2)] == [["other"], ["y"]]
    assert caplog.text.count(f"x.tar.idx: older than {path}, made again") == 1


def test_a_shard_that_is_rewritten_while_it_is_read_is_noticed(tmp_path):
    path = write_tar(
        tmp_path / "x.tar", [{"__key__": "a", "txt": b"x" * 600}, {"__key__": "b", "txt": b"y"}]
    )
    file = open_rows(path, "txt")
    file[0]
    with open(path, "r+b") as tar:
        tar.seek(1536)  # of the first sample
        tar.write(b"z" * 2560)
    with pytest.raises(
        UserError,
        match=(
            "x.tar:2: expects a sample as it was indexed, found a damaged .*; the shard changed"
        ),
    ):
        file[1]


# manifests and indexes that come with shards of others


def manifest_with(folder, name: str) -> None:
    entry = {"rows": 1, "bytes": 4, "sha256": ""}
    manifest = {"made_by": "ofa pack", "plan": "x", "finished": True, "counts": {}}
    (folder / "rows.shards.json").write_text(json.dumps(manifest | {"files": {name: entry}}))


@pytest.mark.parametrize(
    "name",
    [
        "../home/essay.tar",
        "{home}/essay.tar",
        "link/essay.tar",
        "essay.tar",
        "other-000000.tar",
        "../rows-000000.tar",
        "rows-000000.tar\n",
        "",
    ],
)
def test_a_manifest_that_names_other_files_deletes_none_and_reads_none(tmp_path, tsv, capsys, name):
    home, folder = tmp_path / "home", tmp_path / "s"
    home.mkdir()
    folder.mkdir()
    (folder / "link").symlink_to(home)
    kept = [
        home / "essay.tar",
        tmp_path / "rows-000000.tar",
        folder / "other-000000.tar",
        folder / "essay.tar",
    ]
    for path in kept:
        path.write_text("text")
    manifest_with(folder, name.format(home=home))
    assert pack(tsv, folder) == 2
    assert (
        "rows.shards.json: expected the manifest of ofa pack, found something else ("
        in (error := capsys.readouterr().err)
        and "in place of rows-000000.tar or another number" in error
    )
    assert all(path.read_text() == "text" for path in kept)
    write_tar(folder / "rows-000000.tar", [{"__key__": "a", "txt": b"x"}])
    assert "expected the manifest of ofa pack" in error_of(folder / "rows-000000.tar")


def manifest_text(entry: str) -> str:
    start = '{"made_by": "ofa pack", "plan": "x", "finished": true, "counts": {}, "files": '
    return f'{start}{{"rows-000000.tar": {entry}}}}}'


@pytest.mark.parametrize(
    "content",
    [
        "[",
        "[]",
        "3",
        '{"shards": {}}',
        '{"made_by": "ofa pack", "files": [[]]}',
        "[" * 100_000,
        manifest_text('{"rows": 1e400, "bytes": 1, "sha256": ""}'),
        manifest_text('{"rows": 1, "bytes": -1, "sha256": ""}'),
        manifest_text('{"rows": 1, "bytes": 1}'),
    ],
)
def test_a_manifest_of_another_kind_is_named_and_stays(tmp_path, tsv, capsys, content):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/rows.shards.json").write_text(content)
    assert pack(tsv, tmp_path / "s") == 2
    assert "rows.shards.json: expected the manifest of ofa pack" in capsys.readouterr().err
    assert (tmp_path / "s/rows.shards.json").read_text() == content


def test_shards_that_are_links_are_not_deleted(tmp_path, tsv, folder, capsys):
    shard = folder / "rows-000000.tar"
    shard.rename(tmp_path / "elsewhere.tar")
    shard.symlink_to(tmp_path / "elsewhere.tar")
    assert pack(tsv, folder, "--shard-rows", "2") == 2
    assert (
        "a symbolic link that leads out" in capsys.readouterr().err
        and len(list(folder.glob("*.tar"))) == 3
    )


@pytest.mark.parametrize("name", ["../rows", "a/b", "x" * 250, "a\nb", "C:\\a"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, tsv, capsys, name):
    assert pack(tsv, tmp_path / "s", "--name", name) == 2
    assert "--name" in capsys.readouterr().err


def test_a_file_of_others_in_place_of_a_half_written_tsv_stays(tmp_path, folder, capsys):
    (tmp_path / "back.tsv.part").write_text("a download")
    assert pack(folder, tmp_path / "back.tsv") == 2
    assert (
        "back.tsv.part: expected no such file, found one that back.tsv.manifest.json"
        in capsys.readouterr().err
    )
    assert (tmp_path / "back.tsv.part").read_text() == "a download"


def index_words(path, change) -> None:
    """Change the words of a shard's index in place."""
    words = np.fromfile(f"{path}.idx", dtype="<i8")
    words = change(words)
    words.astype("<i8").tofile(f"{path}.idx")


def changed(number: int, value: int):
    def change(words):
        words[number] = value
        return words

    return change


def without_last_sample(words):
    words[3] -= 1
    return words[:-1]


@pytest.mark.parametrize(
    "change",
    [
        without_last_sample,
        *(changed(3, value) for value in (0, 10**18, -1, 4)),
        *(changed(4, value) for value in (-8, 2**62, 10**6, 512)),
        *(changed(5, value) for value in (-512, 0, 1, 10**18, 512)),
        *(changed(-1, value) for value in (-1, 10**18, 2**62, 2)),
    ],
    ids=lambda change: "",
)
def test_an_index_that_does_not_fit_its_shard_is_made_again(tmp_path, change):
    path = write_tar(tmp_path / "x.tar", [{"__key__": str(i), "txt": b"%d" % i} for i in range(3)])
    assert open_rows(path, "txt")[2] == ["2"]
    index_words(path, change)
    assert [open_rows(path, "txt")[i] for i in range(3)] == [["0"], ["1"], ["2"]]


def test_the_index_of_another_shard_of_the_same_size_and_time_is_made_again(tmp_path):
    one = write_tar(
        tmp_path / "one.tar",
        [{"__key__": "a", "txt": b"x" * 512}, {"__key__": "b", "txt": b"y" * 1024}],
    )
    other = write_tar(
        tmp_path / "other.tar",
        [{"__key__": "a", "txt": b"x" * 1024}, {"__key__": "b", "txt": b"y" * 512}],
    )
    for path in (one, other):
        os.utime(path, ns=(5, 5))
        assert len(open_rows(path)) == 2
    os.replace(f"{one}.idx", f"{other}.idx")
    assert open_rows(other, "txt")[1] == ["y" * 512]


@pytest.mark.parametrize("value", [10**18, 2**62, -1, 0, 1, 512, 3 << 10])
def test_a_place_that_was_made_up_asks_for_no_memory_and_gives_no_other_row(tmp_path, value):
    path = write_tar(tmp_path / "x.tar", [{"__key__": str(i), "txt": b"%d" % i} for i in range(99)])
    open_rows(path)
    row = next(row for row in range(5, 99) if not {row - 1, row} & {*row_files.sampled(99)})
    index_words(path, changed(row_files.HEADER + row, value))
    for number in (row - 1, row):
        with pytest.raises(
            UserError, match=rf"x.tar:{number + 1}: expects a sample as it was indexed, found "
        ):
            open_rows(path, "txt")[number]


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A ustar header with any text as the size."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size.ljust(12, b"\0"), kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "head",
    [
        header("a.txt", b"\xff" * 12),
        header("a.txt", b"\x80" + b"\xff" * 11),
        header("a.txt", b"77777777777"),
        header("a.txt", b"x"),
        header("a.txt", b"-10"),
        *(
            header("a", size, kind)
            for kind in (b"x", b"g", b"L", b"K")
            for size in (b"\xff" * 12, b"77777777777", b"\x80" + b"\x7f" * 11)
        ),
        header("a", b"%o" % 14, b"x")
        + b"14 size=-1024\n".ljust(512, b"\0")
        + header("a.txt", b"1"),
        header("a", b"%o" % 11, b"x") + b"11 size=99\n".ljust(512, b"\0") + header("a.txt", b"1"),
        header("a", b"0", b"L") * 3000,
        header("a.txt", b"1", b"S"),
    ],
    ids=lambda head: "",
)
def test_headers_that_were_made_up_are_one_message(tmp_path, head):
    (tmp_path / "x.tar").write_bytes(head + bytes(2048))
    assert error_of(tmp_path / "x.tar").startswith(
        f"{tmp_path}/x.tar: expected an uncompressed tar of samples"
    )


@pytest.mark.parametrize(
    "cell", ['"a\\tb"', '"a\\nb"', '"\\ud800"', "5", "NaN", "true", '{"a": 1}', "[1]"]
)
def test_a_cell_that_no_tsv_could_hold_is_named(tmp_path, cell):
    path = write_tar(
        tmp_path / "x.tar",
        [
            {"__key__": "a", "json": b'["0", "x"]'},
            {"__key__": "b", "json": b'["1", %s]' % cell.encode()},
        ],
    )
    assert "x.tar:2: expects a text without tabs and line breaks in column 1, found" in error_of(
        path
    )


@pytest.mark.parametrize("content", ['"text"', "5", "null", "[" * 100_000, "1" * 5000])
def test_json_of_another_kind_in_shards_of_others_is_no_traceback(tmp_path, content):
    path = write_tar(
        tmp_path / "x.tar",
        [
            {"__key__": "a\tb", "txt": b"x", "json": b"{}"},
            {"__key__": "b", "txt": b"x", "json": content.encode()},
        ],
    )
    rows = open_rows(path, "key,txt")
    assert rows[0] == ["a b", "x"]
    try:
        assert rows[1] == ["b", "x"]
    except UserError as error:
        assert "x.tar:2: expects JSON" in str(error)


def test_a_pattern_of_endless_shards_is_refused(tmp_path):
    assert "expected a pattern of at most 1,000,000 shards" in error_of(
        tmp_path / "x-{0..99999999999}.tar"
    )


# data larger than memory


def test_files_larger_than_memory_are_opened_and_read_within_a_little_of_it(tmp_path):
    """A TSV of 20 GB and a shard of 10, both sparse."""
    tsv, tar = tmp_path / "large.tsv", tmp_path / "large.tar"
    tsv.write_bytes(b"1\tfirst\n")
    with open(tsv, "r+b") as file:
        file.truncate(20 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n3\tlast\n")
    starts = np.array([0, 8, (20 << 30) + 1, (20 << 30) + 8], dtype=np.uint64)
    row_files.store(starts, tsv.stat(), [tmp_path / "large.tsv.idx"], MAGIC)
    with open(tar, "wb") as file:
        for number in range(5):  # members of 2 GB that hold nothing
            for name, size in ((f"{number}.bin", 2 << 30), (f"{number}.json", 6)):
                info = tarfile.TarInfo(name)
                info.size = size
                file.write(info.tobuf())
                data = b"" if name.endswith("bin") else f'["{number}x"]'.encode()
                file.write(data)
                file.seek(-(-size // 512) * 512 - len(data), os.SEEK_CUR)
        file.truncate(file.tell() + 1024)
    code = (
        "import resource\n"
        "from ofa.data.rows import open_rows\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"rows, shards = open_rows({str(tsv)!r}), open_rows({str(tar)!r})\n"
        "assert rows[2] == ['3', 'last'] and rows[0] == ['1', 'first'] and len(rows) == 3\n"
        "assert [shards[i] for i in (4, 0)] == [['4x'], ['0x']] and len(shards) == 5\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100_000, done.stdout  # KB


def test_rows_of_shards_are_even_and_no_row_is_read_for_all_offsets(folder, monkeypatch):
    from ofa.doctor.scan import usual_width

    rows = ShardFile(folder)
    monkeypatch.setattr(ShardFile, "raw", lambda *_: pytest.fail("rows are read"))
    assert usual_width(rows) == rows.num_columns
    assert rows.offsets is rows.offsets and len(rows.offsets) == len(ROWS) + 1
    assert rows.offsets[0] == 0 and "offsets" not in rows.__getstate__()


def test_one_index_for_all_shards_is_made_once_and_again_when_one_of_them_changes(
    folder, monkeypatch
):
    from ofa.data import shard_index

    index, scanned, stock = folder / "rows-000000.tar+2.idx", [], shard_index.scan
    assert [*folder.glob("*.idx")] == [index]  # packing made it
    index.unlink()
    monkeypatch.setattr(shard_index, "scan", lambda path: scanned.append(path) or stock(path))
    for _ in range(2):
        assert [*open_rows(folder)] == ROWS
    assert sorted(scanned) == [str(path) for path in sorted(folder.glob("*.tar"))]
    os.utime(folder / "rows-000001.tar", ns=(1, 1))
    assert [*open_rows(folder)] == ROWS and len(scanned) == 6


@pytest.mark.parametrize("number", [-1, 4, 7, 8, 12])
def test_an_index_of_several_shards_that_does_not_fit_them_is_made_again(folder, number):
    index = folder / "rows-000000.tar+2.idx"
    words = np.fromfile(index, dtype="<u8")
    assert len(words) == row_files.HEADER + len(ROWS) + 3
    words[number] += 1
    words.tofile(index)
    assert [*open_rows(folder)] == ROWS


def test_a_shard_with_other_rows_than_in_the_first_process_is_noticed(folder):
    rows = pickle.loads(pickle.dumps(open_rows(folder)))
    (folder / "rows-000001.tar").write_bytes((folder / "rows-000002.tar").read_bytes())
    with pytest.raises(UserError, match="expected|expects"):
        rows[0]


def test_a_manifest_is_read_once(folder, monkeypatch):
    from ofa.data import shards

    read, stock = [], shards.read_manifest
    monkeypatch.setattr(shards, "read_manifest", lambda *place: read.append(place) or stock(*place))
    assert len(shards.find_shards(f"{folder}/")) > 1 and len(read) == 1
