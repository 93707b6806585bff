"""``ofa checkpoint fetch``: the table of upstream's checkpoints, and how a file of it arrives."""

import re

import pytest
from file_server import file_server

from ofa.checkpoints import published
from ofa.cli.main import main
from ofa.errors import UserError
from ofa.io import download
from ofa.io.download import PublishedFiles
from ofa.tasks import specs_called

CONTENT = b"PK\x03\x04" + bytes(range(256)) * 400
FILE = "ofa_base.pt"


@pytest.fixture
def mirror(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with file_server({FILE: CONTENT}) as server:
        yield server


def fetch(mirror, folder, name: str = "base") -> int:
    return main(["checkpoint", "fetch", name, "--out", str(folder), "--source", mirror.url])


def test_a_checkpoint_arrives_whole_and_once(mirror, tmp_path, capsys):
    assert fetch(mirror, tmp_path) == 0 and (tmp_path / FILE).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert "0.1 MB, fetched" in capsys.readouterr().out
    assert fetch(mirror, tmp_path) == 0 and len(mirror.requests) == 1
    assert "complete already" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ofa_base", "ofa_base.pt"])
def test_the_name_of_the_file_is_known_as_well(mirror, tmp_path, name):
    assert fetch(mirror, tmp_path, name) == 0 and (tmp_path / FILE).is_file()


def test_a_download_that_was_cut_is_resumed(mirror, tmp_path, capsys):
    mirror.stop_after = 1000
    assert fetch(mirror, tmp_path) == 2
    assert f"after 1000 of {len(CONTENT)} bytes" in capsys.readouterr().err
    mirror.stop_after = None
    assert fetch(mirror, tmp_path) == 0 and mirror.requests[-1] == (FILE, "bytes=1000-")
    assert (tmp_path / FILE).read_bytes() == CONTENT


def test_a_file_that_changed_since_the_cut_is_fetched_from_its_beginning(mirror, tmp_path):
    mirror.stop_after = 1000
    fetch(mirror, tmp_path)
    mirror.files[FILE], mirror.changed, mirror.stop_after = CONTENT[:4] + CONTENT[5::2], True, None
    assert fetch(mirror, tmp_path) == 0
    assert (tmp_path / FILE).read_bytes() == mirror.files[FILE]


def test_a_page_in_place_of_a_checkpoint_is_refused_and_removed(mirror, tmp_path, capsys):
    mirror.files[FILE] = b"<html>please log in</html>"
    assert fetch(mirror, tmp_path) == 2 and not any(tmp_path.iterdir())
    assert "expected a checkpoint file, found a file that begins with b'<html>" in (
        capsys.readouterr().err
    )


def test_a_checksum_is_compared_where_one_is_known(mirror, tmp_path):
    public = PublishedFiles(
        name=FILE,
        command="ofa checkpoint fetch base",
        title="a checkpoint file",
        url=mirror.url,
        sums={FILE: "0" * 64},
        kept_in="",
    )
    with pytest.raises(UserError, match=f"{FILE}: expected sha256 0000"):
        download.fetch(public, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_noticed_before_the_download(
    mirror, tmp_path, capsys, monkeypatch
):
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("ofa.io.download.shutil.disk_usage", lambda path: free)
    assert fetch(mirror, tmp_path) == 2
    assert "0 MB are left, the disk has 0 MB" in capsys.readouterr().err


def test_a_folder_is_a_source(tmp_path):
    (tmp_path / FILE).write_bytes(CONTENT)
    source = ["--source", str(tmp_path), "--out", str(tmp_path / "new")]
    assert main(["checkpoint", "fetch", "base", *source]) == 0
    assert (tmp_path / "new" / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("folder", "found"), [("none", "no such folder"), (".", f"the folder holds no {FILE}")]
)
def test_a_folder_that_lacks_the_file_is_told_as_one(tmp_path, capsys, folder, found):
    source = ["--source", str(tmp_path / folder), "--out", str(tmp_path / "new")]
    assert main(["checkpoint", "fetch", "base", *source]) == 2
    message = capsys.readouterr().err
    assert f"error: {tmp_path / folder}: expected a folder with {FILE}, found: {found};" in message
    assert "Without a connection" not in message
    assert not (tmp_path / "new").exists()


def test_without_a_connection_the_message_names_file_folder_and_address(tmp_path, capsys):
    out = ["--out", str(tmp_path / "new"), "--source", "http://127.0.0.1:9"]
    assert main(["checkpoint", "fetch", "base", *out]) == 2
    message = capsys.readouterr().err
    assert f"copy {FILE} to {tmp_path / 'new'}" in message and not (tmp_path / "new").exists()
    assert f"download {published.ADDRESS}/{FILE}" in message


def test_an_unknown_name_is_answered_by_a_similar_one(capsys):
    assert main(["checkpoint", "fetch", "caption_bas"]) == 2
    assert "did you mean caption_base?" in capsys.readouterr().err


def test_the_list_has_a_line_for_each_checkpoint_and_the_license(capsys):
    assert main(["checkpoint", "fetch", "--list"]) == 0
    head, *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(published.published_checkpoints()) and "license: Apache-2.0" in last
    assert any(re.match(r"refcoco_large +refcoco_large_best.pt +470M .* 90.05", x) for x in lines)


def test_every_task_of_the_table_is_a_task_here():
    rows = published.published_checkpoints().values()
    tasks = {row["task"].split(" (")[0] for row in rows} - {"pretraining"}
    assert all(specs_called(task) for task in tasks) and len(tasks) == 8


def test_a_missing_checkpoint_is_known_by_its_file():
    command = "ofa checkpoint fetch caption_base --out /data"
    assert published.advice("/data/caption_base_best.pt").endswith(command)
    assert published.advice("/data/mine.pt") == ""


def test_a_log_file_gets_lines_of_a_long_download(mirror, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("ofa.io.progress.SECONDS_BETWEEN_LINES", 0)
    caplog.set_level("INFO")
    assert fetch(mirror, tmp_path) == 0
    assert f"{FILE}: 65.5k of 102k B, " in caplog.text
